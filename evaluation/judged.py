"""``sobolev evaluate``: a surrogate judged at several resolutions, as a report and as JSON."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rich.console
import rich.markup
import rich.progress
import rich.table
import torch
from torch import Tensor

from sobolev.certification.certificates import Effectivity, certificate_of, effectivity
from sobolev.datasets import Manifest
from sobolev.datasets.generating.generation import streams
from sobolev.datasets.generating.generation import versions as versions_of_data
from sobolev.datasets.store.whole_files import replacing
from sobolev.evaluation import figures as plots
from sobolev.evaluation import report
from sobolev.evaluation.break_even import BreakEven, Problem, break_even, continued, restricted
from sobolev.evaluation.comparison import (
    MEASURES,
    TIMED_SOLVES,
    WINDOWS,
    Comparison,
    Score,
    evaluate,
    fields_at,
)
from sobolev.evaluation.rollouts import TRAJECTORIES, Rollouts, roll_out, whole_window
from sobolev.surrogates.surrogate import Surrogate, load_run

SCHEMA = 1
"""Of ``evaluation.json``."""
CERTIFIED = 100
"""Samples that certificates are judged on, at most: their true errors may take a solve each."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that was found out about a surrogate."""

    surrogate: Surrogate
    run: Path
    data: Path
    split: str
    manifest: Manifest
    command: str
    scores: list[Score]
    comparisons: dict[int, Comparison]
    rollouts: Rollouts | None
    break_even: BreakEven | None
    no_break_even: str
    """Why there is no break-even."""
    certificates: Effectivity | None
    no_certificates: str

    def record(self, part: str) -> dict[str, Any]:
        """A part of the surrogate's provenance, which may be anybody's JSON; empty if it is none."""
        return _record(self.surrogate.provenance, part)

    @property
    def trained_on(self) -> list[int] | None:
        """Nodes per axis in training."""
        sizes = self.record("data").get("resolution")
        good = isinstance(sizes, list) and sizes and all(isinstance(n, int) for n in sizes)
        return sizes if good else None

    @property
    def trained_recipe(self) -> str:
        recipe = self.record("data").get("recipe")
        return str(recipe.get("class")) if isinstance(recipe, dict) else "not recorded"

    @property
    def seen(self) -> bool:
        """Whether the fields tested on were trained on or chose the best weights."""
        drawn = self.record("data")
        same = (drawn.get("recipe"), drawn.get("seed")) == (
            self.manifest.recipe,
            self.manifest.seed,
        )
        return same and self.split in ("train", "valid")

    @property
    def config(self) -> str | None:
        """``config.yaml`` of the run."""
        file = self.run / "config.yaml"
        return file.read_text() if file.is_file() else None

    @property
    def parameters(self) -> int:
        """Real numbers that were trained; complex weights would count twice, but there are none."""
        return sum(p.numel() for p in self.surrogate.operator.parameters())

    @property
    def protocol(self) -> str:
        return str(self.surrogate.provenance.get("protocol", "not recorded"))

    def as_json(self) -> dict[str, Any]:
        """What ``evaluation.json`` holds: plain, and every float finite or null."""
        manifest = self.manifest
        plain = {
            "schema": SCHEMA,
            "command": self.command,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": versions(),
            "machine": machine(),
            "run": {
                "path": str(self.run),
                "operator": self.surrogate.operator.description,
                "parameters": self.parameters,
                "protocol": self.protocol,
                "symmetries": list(self.surrogate.symmetries),
                "conserved": self.surrogate.conserved,
                "provenance": self.surrogate.provenance,
            },
            "data": {
                "path": str(self.data), "split": self.split, "title": manifest.title, "equation": manifest.equation,
                "recipe": manifest.recipe, "preset": manifest.preset, "seed": manifest.seed, "dtype": manifest.dtype,
                "resolution": manifest.resolution, "samples": manifest.requested, "sha256": manifest.digest,
            },
            "measures": {
                key: {"title": m.title, "definition": m.definition} for key, m in MEASURES.items()
            },
            "limits": {"windows": WINDOWS, "timed_solves": TIMED_SOLVES},
            "scores": [asdict(score) for score in self.scores],
            "metrics": [_metrics(n, c) for n, c in self.comparisons.items()],
            "certificates": None if self.certificates is None else _certified(self.surrogate, self.certificates),
            "no_certificates": self.no_certificates,
            "rollouts": None if self.rollouts is None else self.rollouts.summary(),
            "break_even": None if self.break_even is None else _costs(self.break_even),
            "no_break_even": self.no_break_even,
        }  # fmt: skip
        return finite(plain)


def evaluate_run(
    run: str | Path,
    data: str | Path,
    resolutions: Sequence[int] | None = None,
    *,
    split: str = "test",
    out: str | Path | None = None,
    solver_timing: bool = True,
    trajectories: int = TRAJECTORIES,
    symmetrize: bool = False,
) -> list[Score]:
    """Evaluate, print the table, and save ``report.html``, ``evaluation.json`` and figures in ``out``
    (``RUN/evaluation``, or ``RUN/evaluation-symmetrized``).

    Args:
        run: the folder of a run, or of a surrogate.
        data: data set with the fields to test on.
        resolutions: nodes per axis; as stored by default. The first one is that of rollouts and of
            the break-even.
        split: of the data set.
        solver_timing: time classical solves too, for the comparison of costs.
        trajectories: how many to roll out, where the data are trajectories.
        symmetrize: judge ``Surrogate.symmetrized()``.
    """
    run, data = Path(run), Path(data)
    surrogate, manifest = load_run(run), Manifest.read(data)
    home = run if (run / "surrogate").is_dir() else run.parent
    out = Path(out) if out else home / f"evaluation{'-symmetrized' * symmetrize}"
    if symmetrize:
        surrogate = surrogate.symmetrized()
    resolutions = list(resolutions or [manifest.resolution])
    scores, comparisons = [], {}
    with _progress() as tick:
        for resolution in resolutions:
            tick(f"predicting {split} fields at {resolution} nodes per axis")
            score, comparisons[resolution] = evaluate(
                surrogate, data, resolution, split=split, solver_timing=solver_timing
            )
            scores.append(score)
        first, rollouts = comparisons[resolutions[0]], None
        if surrogate.window is not None and manifest.times:
            module = fields_at(data, resolutions[0], split, whole_window(surrogate, manifest))
            tick(f"rolling out {module.window.horizon} frames")
            rollouts = roll_out(surrogate, module, split=split, trajectories=trajectories)
        tick("bounding errors")
        bounded, unbounded = _bounded(first)
        paid, why_not = None, "classical solves were not to be timed (--no-solver-timing)"
        if solver_timing:
            paid, why_not = _paid(manifest, split, first, scores[0], rollouts, tick)
        command = _command(
            run, data, resolutions, split, out, solver_timing, trajectories, symmetrize
        )
        if home != run and run.name != "surrogate":
            home = run  # a surrogate by itself: what lies beside it is none of its training
        evaluation = Evaluation(
            surrogate, home, data, split, manifest, command, scores, comparisons, rollouts,
            paid, why_not, bounded, unbounded,
        )  # fmt: skip
        tick("drawing")
        _save(evaluation, out)
    print_table(scores)
    rich.console.Console().print(f"report.html, evaluation.json and figures: {out}")
    return scores


def print_table(scores: Sequence[Score]) -> None:
    """The scores as a table on the terminal; several quantities have rows of their own."""
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
            str(s.resolution), str(s.samples), f"{s.relative_l2:.5f}", f"{s.relative_h1:.5f}",
            f"{1e3 * s.seconds_per_field:.2f}", *solver,
        )  # fmt: skip
        for name, error in s.relative_l2_of.items():
            table.add_row(rich.markup.escape(name), "", f"{error:.5f}", *[""] * 4, style="dim")
    rich.console.Console(width=110).print(table)


def finite(value: Any) -> Any:
    """JSON-able data with every float that is not finite replaced by None, as strict JSON wants it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def versions() -> dict[str, str]:
    """Of what the figures depend on."""
    return {
        **versions_of_data(),
        **{name: version(name) for name in ("lightning", "torchmetrics", "xarray")},
    }


def machine() -> dict[str, str | int]:
    """What the times were taken on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": "cpu",
    }


def _processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _save(evaluation: Evaluation, out: Path) -> None:
    """The report, the JSON and the figures for slides."""
    out.mkdir(parents=True, exist_ok=True)
    found = evaluation.as_json()
    text = json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False)
    with replacing(out / "evaluation.json") as part:
        part.write_text(text + "\n", encoding="utf-8")
    figures = report.figures(evaluation)
    for name, figure in figures.items():
        if name in ("spectra", "training") or name.startswith("fields-"):
            plots.save(figure, out / f"{name.replace('spectra', 'spectrum')}.png")
    with replacing(out / "report.html") as part:
        part.write_text(report.render(evaluation, found, figures), encoding="utf-8")


def _metrics(resolution: int, comparison: Comparison) -> dict[str, Any]:
    """All measures at one resolution, summed up over the samples."""
    k, bins, square = comparison.spectral_error()
    return {
        "resolution": resolution,
        "nodes": list(comparison.grid.shape),
        "samples": len(comparison.targets),
        "errors": [
            {"quantity": name, "metric": key, **_summed_up(values)}
            for name, measures in comparison.measured().items()
            for key, values in measures.items()
        ],
        "binned_square_error": {
            "wavenumber": k.tolist(), "shells": bins.tolist(), "sum": float(bins.sum()), "mean_square_error": square,
        },
        "integrals": comparison.integrals(),
    }  # fmt: skip


def _summed_up(values: Tensor) -> dict[str, float]:
    """Mean, median and 90th percentile over the samples; one that is not finite makes them so."""
    middle, high = (float(values.quantile(q)) for q in (0.5, 0.9))
    return {"mean": float(values.mean()), "median": middle, "p90": high}


def _bounded(comparison: Comparison) -> tuple[Effectivity | None, str]:
    """Bounds beside true errors, or None and why there are none."""
    inputs, predictions, targets = (
        u[:CERTIFIED] for u in (comparison.inputs, comparison.predictions, comparison.targets)
    )
    try:
        found = effectivity(comparison.surrogate, inputs, predictions, targets, comparison.grid)
        return found, ""
    except ValueError as error:  # says which surrogates, grids and predictions have no bound
        return None, str(error)


def _certified(surrogate: Surrogate, found: Effectivity) -> dict[str, Any]:
    """What there is to say of certificates."""
    certificate, ratio = certificate_of(surrogate), found.ratio
    p10, middle, p90 = (float(ratio.quantile(q)) for q in (0.1, 0.5, 0.9))
    return {
        "samples": len(ratio),
        "norm": found.norm,
        "reference": certificate.reference,
        "guaranteed": found.guaranteed,
        "coverage": certificate.attributes.get("coverage"),
        "calibration_samples": certificate.attributes.get("calibration_samples"),
        "holds": int((found.bound >= found.error).sum()),
        "effectivity": {"median": middle, "p10": p10, "p90": p90, "largest": float(ratio.max())},
        "mean_bound": float(found.bound.mean()),
        "mean_error": float(found.error.mean()),
        "bound": found.bound.tolist(),
        "error": found.error.tolist(),
    }


def _record(provenance: Mapping[str, Any], part: str) -> dict[str, Any]:
    found = provenance.get(part)
    return found if isinstance(found, dict) else {}


def _number(provenance: Mapping[str, Any], part: str, name: str) -> float | None:
    """A finite number of the provenance, if that is what is there."""
    found = _record(provenance, part).get(name)
    good = isinstance(found, (int, float)) and not isinstance(found, bool) and math.isfinite(found)
    return found if good else None


def _lineage(provenance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The record of a surrogate and, if its training went on from another one, of that."""
    before = _record(provenance, "start")
    return [provenance, *(_lineage(before) if before else [])]


def _origin(provenance: Mapping[str, Any]) -> tuple[Any, Any]:
    data = _record(provenance, "data")
    return data.get("recipe"), data.get("seed")


def _costs(paid: BreakEven) -> dict[str, Any]:
    return {**asdict(paid), "fields": paid.fields, "verdict": paid.verdict}


def _paid(
    manifest: Manifest,
    split: str,
    comparison: Comparison,
    score: Score,
    rollouts: Rollouts | None,
    tick: Callable[[str], None],
) -> tuple[BreakEven | None, str]:
    """The break-even, or None and why there is none."""
    if not manifest.can_be_drawn_again:
        return None, "the data were not drawn from a recipe of sobolev: their solver is not known"
    if rollouts is not None:
        seconds = rollouts.seconds_per_trajectory
        error = float(rollouts.whole_error()[:TIMED_SOLVES].mean())
        problem = _trajectories_to_solve(manifest, rollouts)
    elif manifest.times:
        return None, "the surrogate is not in time, the data are"
    else:
        seconds = score.seconds_per_field
        error = float(comparison.errors()[:TIMED_SOLVES].mean())
        problem = _fields_to_solve(manifest, split, comparison)
    if not math.isfinite(error):
        return None, "the surrogate's error is not finite, so that no solve is as bad"
    provenance = comparison.surrogate.provenance
    runs = _lineage(provenance)
    if any(_origin(run) != _origin(provenance) for run in runs):
        return None, "training went on from a surrogate of other data, whose cost is not known here"
    spent = [_number(run, "training", "seconds") for run in runs]
    known = [seconds for seconds in spent if seconds is not None]
    drawn = max(_samples(run, manifest) for run in runs)  # the larger part holds the smaller
    return break_even(
        problem,
        error,
        seconds,
        manifest=manifest,
        data_samples=drawn,
        training_seconds=sum(known) if len(known) == len(spent) else None,
        tick=tick,
    ), ""


def _samples(run: Mapping[str, Any], manifest: Manifest) -> int:
    """How many a training used, for learning and for validation."""
    trained = _number(run, "data", "train_samples") or manifest.requested.get("train", 0)
    return int(trained + (_number(run, "data", "valid_samples") or 0))


def _fields_to_solve(manifest: Manifest, split: str, comparison: Comparison) -> Problem:
    """Some samples, from inputs on the solver's own grid if drawing them again gives the stored
    ones."""
    recipe, few = manifest.build_recipe(), min(TIMED_SOLVES, len(comparison.inputs))
    some = replace(comparison, inputs=comparison.inputs[:few], targets=comparison.targets[:few])
    fine = recipe.grid(recipe.solver_resolution)
    drawn = recipe.draw(streams(manifest, split, range(few)))
    stored, again = some.inputs.double(), restricted(drawn, fine, some.grid)
    inputs, source = stored, some.grid
    if torch.allclose(again, stored, rtol=1e-5, atol=1e-5 * float(stored.abs().max())):
        inputs, source = drawn, fine
    return Problem(
        recipe, inputs, source, some.grid, lambda u: replace(some, predictions=u).errors()
    )


def _trajectories_to_solve(manifest: Manifest, rollouts: Rollouts) -> Problem:
    """Some trajectories, from the last frame that the surrogate was given."""
    few, frames = min(TIMED_SOLVES, len(rollouts.inputs)), len(rollouts.times)
    some = replace(rollouts, inputs=rollouts.inputs[:few], targets=rollouts.targets[:few])
    recipe = continued(manifest.build_recipe(), frames, rollouts.surrogate.in_time.stride)

    def error(u: Tensor) -> Tensor:
        found = u.unflatten(1, (-1, some.targets.shape[2]))[:, :frames]
        return some.whole_error(found)

    return Problem(recipe, some.start.double(), some.grid, some.grid, error)


def _command(
    run: Path,
    data: Path,
    resolutions: Sequence[int],
    split: str,
    out: Path,
    solver_timing: bool,
    trajectories: int,
    symmetrize: bool,
) -> str:
    """The command line that does this again."""
    words = ["sobolev", "evaluate", str(run), "--data", str(data)]
    for resolution in resolutions:
        words += ["--resolution", str(resolution)]
    words += ["--split", split] if split != "test" else []
    words += ["--out", str(out)]
    words += ["--no-solver-timing"] if not solver_timing else []
    words += ["--trajectories", str(trajectories)] if trajectories != TRAJECTORIES else []
    words += ["--symmetrize"] if symmetrize else []
    return shlex.join(words)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A line that says what is being done, on a terminal."""
    columns = (
        rich.progress.SpinnerColumn(),
        rich.progress.TextColumn("{task.description}"),
        rich.progress.TimeElapsedColumn(),
    )
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("evaluating", total=None)
        yield lambda text: bar.update(task, description=text)
