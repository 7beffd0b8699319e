"""``sobolev evaluate``: a surrogate judged, as a report and as JSON."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sobolev.commands.options import (
    RUN,
    SYMMETRIZE,
    Commands,
    add,
    add_operators,
    add_recipes,
    positive,
    resolution,
    sizes_in_words,
)

if TYPE_CHECKING:
    from sobolev.evaluation.comparison import Score


_EVALUATE = """\
Predict the test fields at each resolution and compare with the solver's. Writes report.html, one file that opens
from disk, and the same numbers as evaluation.json: errors in several norms, fields, spectra, rollouts of
trajectories, error bounds beside true errors, and after how many fields the surrogate has paid for its data and
training, against the cheapest solve that is as accurate. Resolutions finer than the data are drawn again from the
data set's seeds, once, on the solver's grid.

example:
  sobolev evaluate runs/burgers-fno --data data/burgers --resolution 1024 --resolution 8192
"""


def declare(commands: Commands) -> None:
    sub = add(
        commands,
        "evaluate",
        run,
        "judge a trained surrogate on test fields, at any resolution",
        _EVALUATE,
    )
    sub.add_argument("run", help=RUN)
    sub.add_argument("--data", required=True, help="data set with the fields to test on")
    sub.add_argument("--split", default="test", help="split to test on (default: test)")
    sub.add_argument(
        "--resolution",
        type=resolution,
        action="append",
        metavar="N",
        help="nodes per axis, such as 64 or 64x32; repeat (default: as stored)",
    )
    sub.add_argument(
        "--out", help="folder for report.html and evaluation.json (default: RUN/evaluation)"
    )
    sub.add_argument(
        "--trajectories",
        type=positive,
        metavar="N",
        help="how many to roll out, where the data are trajectories (default: 32)",
    )
    sub.add_argument("--symmetrize", action="store_true", help=SYMMETRIZE)
    sub.add_argument(
        "--no-solver-timing",
        action="store_true",
        help="leave out what takes classical solves: their times and the break-even",
    )
    add_recipes(sub)
    add_operators(sub)


def run(options: argparse.Namespace) -> int:
    from sobolev.commands.classes import operators_of, recipes_of
    from sobolev.evaluation.judged import evaluate_run, report_folder
    from sobolev.evaluation.rollouts import TRAJECTORIES

    run = Path(options.run)
    out = options.out or report_folder(run, options.symmetrize)
    evaluation = evaluate_run(
        run, options.data, options.resolution, split=options.split, out=out,
        solver_timing=not options.no_solver_timing, trajectories=options.trajectories or TRAJECTORIES,
        symmetrize=options.symmetrize, recipes=recipes_of(options), operators=operators_of(options),
        command=command_line(options, out),
    )  # fmt: skip
    print_table(evaluation.scores)
    print(f"report.html, evaluation.json and figures: {out}")
    return 0


def command_line(options: argparse.Namespace, out: str | Path) -> str:
    """Return the command line that makes the same report again."""
    words = ["sobolev", "evaluate", str(options.run), "--data", str(options.data)]
    for sizes in options.resolution or ():
        words += ["--resolution", sizes_in_words(sizes)]
    words += ["--split", options.split] if options.split != "test" else []
    words += ["--out", str(out)]
    words += ["--no-solver-timing"] if options.no_solver_timing else []
    words += ["--trajectories", str(options.trajectories)] if options.trajectories else []
    words += ["--symmetrize"] if options.symmetrize else []
    for name in ("recipes", "operators"):
        for given in getattr(options, name) or ():
            words += [f"--{name}", given]
    return shlex.join(words)


def print_table(scores: Sequence[Score]) -> None:
    """Print the scores as a table on the terminal; several quantities have rows of their own."""
    import rich.console
    import rich.markup
    import rich.table

    from sobolev.training.zeros import in_words

    table = rich.table.Table()
    heads = (
        "resolution", "samples", "relative L²", "relative H¹", "ms/field", "solver ms/field", "solver relative L²",
    )  # fmt: skip
    for head in heads:
        table.add_column(head, justify="right")
    for s in scores:
        solver = ["–", "–"]
        if s.solver_seconds_per_field is not None:
            solver = [f"{1e3 * s.solver_seconds_per_field:.2f}", f"{s.solver_relative_l2:.1e}"]
        table.add_row(
            sizes_in_words(s.resolution), str(s.samples), f"{s.relative_l2:.5f}", f"{s.relative_h1:.5f}",
            f"{1e3 * s.seconds_per_field:.2f}", *solver,
        )  # fmt: skip
        for name, error in s.relative_l2_of.items():
            table.add_row(rich.markup.escape(name), "", f"{error:.5f}", *[""] * 4, style="dim")
    console = rich.console.Console(width=110)
    console.print(table)
    for zero in {in_words(s.zero) for s in scores if s.zero}:
        console.print(f"the true field of {zero} is zero; the relative errors leave it out")
