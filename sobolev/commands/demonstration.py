"""The main job: from a PDE to a saved surrogate, with a table and pictures on the way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import rich.console
import yaml

from sobolev.commands.evaluate import print_table
from sobolev.commands.train import trained
from sobolev.datasets import generate
from sobolev.evaluation import evaluate_run
from sobolev.training.runs.configurations import configuration


@dataclass(frozen=True)
class _Problem:
    recipe: str
    stored: int
    resolutions: tuple[int, ...]
    epochs: int
    variable: str


_PROBLEMS = {
    "burgers": _Problem("burgers-fno", 1024, (1024, 2048, 4096, 8192), 60, "velocity"),
    "darcy": _Problem("darcy-fno", 85, (85, 141, 211, 421), 20, "pressure"),
}
_SAMPLES = {"train": 1000, "valid": 100, "test": 200}
_FEW_SAMPLES = {"train": 64, "valid": 16, "test": 16}


def demo(
    problem: str = "burgers",
    *,
    run: str | Path | None = None,
    data: str | Path | None = None,
    small: bool = False,
) -> Path:
    """Generate, train, evaluate and plot, and return the run folder. ``small`` takes a minute and
    proves only that it works."""
    say = rich.console.Console(width=110, highlight=False).print
    p = _PROBLEMS[problem]
    suffix = ("" if problem == "burgers" else f"-{problem}") + ("-small" if small else "")
    run = Path(run or f"runs/demo{suffix}")
    data = Path(data or f"data/demo-{problem}{'-small' if small else ''}")
    say(
        f"[bold]1  data[/]     {p.recipe} solved on its finest grid, stored at {p.stored} nodes per axis in {data}"
    )
    generate(p.recipe, data, _FEW_SAMPLES if small else _SAMPLES, resolution=p.stored)
    say(f"[bold]2  training[/] a Fourier neural operator; the run is kept in {run}")
    checkpoint = run / "checkpoints" / "last.ckpt"
    unfinished = checkpoint.exists() and not (run / "surrogate").exists()
    settings = yaml.safe_load(configuration(p.recipe).read_text())
    settings["data"]["path"] = str(data)
    settings["trainer"]["max_epochs"] = 2 if small else p.epochs
    trained({**settings, "run": str(run), "resume": unfinished, "overwrite": not unfinished})
    finest = f"{p.resolutions[1]} to {p.resolutions[-1]}"
    say(
        f"[bold]3  judging[/]  on test fields at {p.stored} nodes per axis, and zero-shot at {finest}"
    )
    evaluation = evaluate_run(run, data, p.resolutions, out=run / "evaluation")
    print_table(evaluation.scores)
    say(f"report.html, evaluation.json and figures: {run / 'evaluation'}")
    say("[bold]4  using it[/]")
    say(_LINES.format(run=run, data=data, variable=p.variable), markup=False)
    return run


_LINES = """\
    from sobolev import Surrogate
    from sobolev.datasets import open_dataset

    surrogate = Surrogate.load("{run}/surrogate")
    prediction = surrogate.predict(open_dataset("{data}", "test"))
    print(prediction.{variable})
"""
