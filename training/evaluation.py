"""Judging a surrogate on fields it was not trained on, at resolutions it never saw."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import rich.console
import rich.table
import torch
from torch import Tensor

from sobolev.datasets import Manifest, OperatorDataModule, Recipe, Variable, refined
from sobolev.solvers import AbstractGrid, Grid, SphereGrid
from sobolev.training import plots
from sobolev.training.losses import relative_error
from sobolev.training.surrogate import Surrogate, at_resolution, comfortable_batch

_TIMED_SOLVES = 8


@dataclass(frozen=True)
class Score:
    """How a surrogate does at one resolution; errors are means over the samples."""

    resolution: int
    samples: int
    relative_l2: float
    relative_h1: float
    seconds_per_field: float
    solver_seconds_per_field: float | None
    """Of the data's own solver on the same grid and the same machine, in batches; None if the
    recipe is not known."""
    solver_relative_l2: float | None
    """Error of that solve against the stored fields, which come from the recipe's finest grid."""


@dataclass(frozen=True)
class Comparison:
    """Test fields at one resolution with their prediction, ``(sample, channel, *space)`` each."""

    grid: AbstractGrid
    inputs: Tensor
    targets: Tensor
    predictions: Tensor
    scale: Tensor
    """Standard deviation of each output variable in the training data, ``(channel, 1 …)``."""

    def errors(self, order: float = 0.0) -> Tensor:
        """Relative H^s error per sample, each variable measured in its standard deviations."""
        prediction, target = (u.double() / self.scale for u in (self.predictions, self.targets))
        return relative_error(prediction, target, self.grid, order)


def evaluate_run(
    run: str | Path,
    data: str | Path,
    resolutions: Sequence[int] | None = None,
    *,
    split: str = "test",
    out: str | Path | None = None,
) -> list[Score]:
    """Evaluate, print the table, and save ``evaluation.json`` and figures in ``out``
    (``RUN/evaluation``)."""
    run, data = Path(run), Path(data)
    surrogate = load_run(run)
    home = run if (run / "surrogate").is_dir() else run.parent
    out = Path(out) if out else home / "evaluation"
    out.mkdir(parents=True, exist_ok=True)
    resolutions = resolutions or [Manifest.read(data).resolution]
    scores, comparisons = [], {}
    for resolution in resolutions:
        score, comparisons[resolution] = evaluate(surrogate, data, resolution, split=split)
        scores.append(score)
    print_table(scores)
    (out / "evaluation.json").write_text(
        json.dumps([asdict(score) for score in scores], indent=1) + "\n"
    )
    for resolution in {min(resolutions), max(resolutions)}:
        plots.save(
            plots.fields(comparisons[resolution], surrogate), out / f"fields-{resolution}.png"
        )
    plots.save(plots.spectra(comparisons), out / "spectrum.png")
    if list(run.glob("metrics*.csv")):
        plots.save(plots.training_curve(run), out / "training.png")
    rich.console.Console().print(f"figures and evaluation.json: {out}")
    return scores


def evaluate(
    surrogate: Surrogate, data: str | Path, resolution: int, *, split: str = "test"
) -> tuple[Score, Comparison]:
    """Predict the fields of a split at one resolution.

    Fields come from the stored nodes if these include the wanted ones, else from the data set's
    recipe and seeds: the same samples, with more of the solver's nodes kept. On a sphere, where
    ``resolution`` n means n × 2n, coarser fields are the stored ones with fewer modes.

    Raises:
        ValueError: for a resolution that the recipe's grid cannot be subsampled to.
    """
    manifest = Manifest.read(Path(data))
    manifest.shards(split)  # refuses an unknown split by name
    window = surrogate.provenance.get("data", {}).get("window", (1, 1))
    _check_same_meaning(surrogate, OperatorDataModule(data, window=window), data)
    module = _stored_or_drawn(manifest, data, resolution, split, window)
    inputs, outputs = module.pairs(split)[:]
    grid = surrogate.grid.resized(*module.grid.shape)
    predictions, seconds = _timed_predictions(surrogate, inputs, grid)
    scale = surrogate.output_scale.double().cpu()
    comparison = Comparison(grid, inputs, outputs, predictions, scale)
    solver_seconds, solver_error = None, None
    if manifest.can_be_drawn_again and not manifest.times:
        recipe = manifest.build_recipe()
        solver_seconds, solver_error = _timed_solves(recipe, grid, inputs, outputs)
    score = Score(
        resolution,
        len(inputs),
        float(comparison.errors().mean()),
        float(comparison.errors(order=1.0).mean()),
        seconds,
        solver_seconds,
        solver_error,
    )
    return score, comparison


def _stored_or_drawn(
    manifest: Manifest, data: str | Path, resolution: int, split: str, window: Sequence[int]
) -> OperatorDataModule:
    """The fields at ``resolution``, drawn again from their seeds if they were not stored."""
    stored, target = manifest.grid, at_resolution(manifest.grid, resolution)
    coarser = isinstance(stored, SphereGrid) and target.shape[0] <= stored.shape[0]
    if not (coarser or stored.can_subsample(target)):
        recipe = manifest.build_recipe()
        if resolution not in recipe.resolutions():
            raise ValueError(
                f"no test fields at resolution {resolution}: {type(recipe).__name__} solves on "
                f"{recipe.solver_resolution} nodes per axis; choose from {', '.join(map(str, recipe.resolutions()))}"
            )
        data = refined(data, split, recipe.solver_resolution)
        stored = Manifest.read(Path(data)).grid
    restriction = "subsample" if stored.can_subsample(target) else "spectral"
    return OperatorDataModule(data, resolution=resolution, restriction=restriction, window=window)


def _check_same_meaning(surrogate: Surrogate, module: OperatorDataModule, data: str | Path) -> None:
    """Refuse fields that are not those the surrogate was trained on."""
    wanted = _meaning([*surrogate.inputs, *surrogate.outputs], surrogate.grid)
    found = _meaning([*module.inputs, *module.outputs], module.grid)
    if wanted != found:
        raise ValueError(f"the surrogate was trained on {wanted}; {data} holds {found}")


def _meaning(variables: Sequence[Variable], grid: AbstractGrid) -> str:
    """Names, units, boundaries and extents in words; sizes do not matter."""
    fields = ", ".join(f"{v.name} [{v.units}]" for v in variables)
    if isinstance(grid, SphereGrid):
        return f"{fields} on a sphere ({grid.kind}, radius {grid.radius:.9g})"
    if not isinstance(grid, Grid):
        raise ValueError(f"fields live on a Grid or a SphereGrid, got {type(grid).__name__}")
    axes = ", ".join(
        f"{a.name} ({a.boundary}, {a.origin:.9g} to {a.origin + a.length:.9g})" for a in grid.axes
    )
    return f"{fields} on {axes}"


def load_run(path: str | Path) -> Surrogate:
    """The surrogate of a run folder, or of a surrogate folder."""
    path = Path(path)
    return Surrogate.load(path / "surrogate" if (path / "surrogate").is_dir() else path)


def print_table(scores: Sequence[Score]) -> None:
    """The scores as a table on the terminal."""
    table = rich.table.Table()
    heads = (
        "resolution",
        "samples",
        "relative L²",
        "relative H¹",
        "ms/field",
        "solver ms/field",
        "solver relative L²",
    )
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
    rich.console.Console(width=110).print(table)


@torch.no_grad()
def _timed_predictions(
    surrogate: Surrogate, inputs: Tensor, grid: AbstractGrid
) -> tuple[Tensor, float]:
    """Predictions on the CPU and the median time per field over batches."""
    device = surrogate.input_mean.device
    predictions, times = [], []
    surrogate(inputs[:1].to(device))  # warm up
    for batch in inputs.split(comfortable_batch(grid)):
        start = time.perf_counter()
        predictions.append(surrogate(batch.to(device)).cpu())
        times.append((time.perf_counter() - start) / len(batch))
    return torch.cat(predictions), statistics.median(times)


def _timed_solves(
    recipe: Recipe, grid: AbstractGrid, inputs: Tensor, targets: Tensor
) -> tuple[float, float]:
    """Time per field of the classical solver on this grid, and its error against the stored
    fields."""
    batch = inputs[:_TIMED_SOLVES].double()
    start = time.perf_counter()
    solved = recipe.solve(batch, grid)
    seconds = (time.perf_counter() - start) / len(batch)
    return seconds, float(relative_error(solved, targets[:_TIMED_SOLVES].double(), grid).mean())
