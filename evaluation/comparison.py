"""A surrogate's predictions beside the true fields, at resolutions it never saw, and the measures of
their errors."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sobolev.datasets import Manifest, OperatorDataModule, Recipe, refined
from sobolev.grids import AbstractGrid, Grid, SphereGrid
from sobolev.grids.norms import relative_error
from sobolev.grids.restriction import at_resolution
from sobolev.grids.variables import Variable
from sobolev.surrogates.surrogate import Surrogate, comfortable_batch
from sobolev.training.metrics import binned_error, max_error, nrmse, spectrum_error, vrmse

WINDOWS = 1024
"""Windows of trajectories that the scores of one application are taken over, at most."""
TIMED_SOLVES = 8
"""Samples that the classical solver is timed on."""


@dataclass(frozen=True)
class Measure:
    """A figure of merit: one number per sample from ``(prediction, target, grid)``."""

    title: str
    definition: str
    of: Callable[[Tensor, Tensor, AbstractGrid], Tensor]
    comparable: bool = True
    """Taken of fields in ``surrogate.comparable`` units rather than in their own."""


MEASURES = {
    "relative_l2": Measure("relative L²", "‖p − y‖ / ‖y‖ with ‖u‖² = ∫u²", relative_error),
    "relative_h1": Measure(
        "relative H¹",
        "the same with ‖u‖² = Σₖ (1 + λₖ) |ûₖ|², λₖ the eigenvalues of −Δ: values and gradients",
        partial(relative_error, order=1.0),
    ),
    "relative_h-1": Measure(
        "relative H⁻¹",
        "the same with ‖u‖² = Σₖ |ûₖ|² / (1 + λₖ): large scales",
        partial(relative_error, order=-1.0),
    ),
    "nrmse": Measure(
        "nRMSE",
        "√⟨(p − y)²⟩ / √⟨y²⟩ per channel, then their mean, ⟨⟩ the mean over space (PDEBench)",
        nrmse,
        comparable=False,
    ),
    "vrmse": Measure(
        "VRMSE",
        "√⟨(p − y)²⟩ / √⟨(y − ⟨y⟩)²⟩ per channel, then their mean; predicting the mean scores 1 (The Well)",
        vrmse,
        comparable=False,
    ),
    "max_error": Measure(
        "max error", "max |p − y| over all nodes, in training standard deviations", max_error
    ),
    "spectrum_error": Measure(
        "spectrum error",
        "√⟨(log₁₀ Eₚ(k)/E(k))²⟩ over the shells of wavenumber the truth has energy in: decades between the energy "
        "spectra, whatever the phases",
        spectrum_error,
    ),
}  # fmt: skip


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
    recipe is not known, makes trajectories, or was not to be timed."""
    solver_relative_l2: float | None
    """Error of that solve against the stored fields, which come from the recipe's finest grid."""
    relative_l2_of: dict[str, float] = field(default_factory=dict)
    """Of each quantity by itself, where there are several."""


@dataclass(frozen=True)
class Comparison:
    """Test fields at one resolution with their prediction, ``(sample, channel, *space)`` each."""

    grid: AbstractGrid
    inputs: Tensor
    targets: Tensor
    predictions: Tensor
    surrogate: Surrogate

    def errors(self, order: float = 0.0) -> Tensor:
        """Relative H^s error per sample, in ``surrogate.comparable`` units."""
        return relative_error(*self.comparable(), self.grid, order)

    def comparable(self) -> tuple[Tensor, Tensor]:
        """Prediction and target in ``surrogate.comparable`` units, float64."""
        prediction, target = (
            self.surrogate.comparable(u.double()) for u in (self.predictions, self.targets)
        )
        return prediction, target

    def measured(self) -> dict[str | None, dict[str, Tensor]]:
        """Every measure per sample: of all quantities together under None, and by name where there
        are several."""
        compared, physical = self.comparable(), (self.predictions.double(), self.targets.double())
        names = [v.name for v in self.surrogate.quantities]
        parts: dict[str | None, slice] = {None: slice(None)}
        if len(names) > 1:
            parts |= {name: slice(i, None, len(names)) for i, name in enumerate(names)}
        found: dict[str | None, dict[str, Tensor]] = {}
        for name, channels in parts.items():
            found[name] = {}
            for key, measure in MEASURES.items():
                p, y = compared if measure.comparable else physical
                found[name][key] = measure.of(p[:, channels], y[:, channels], self.grid)
        return found

    def spectral_error(self) -> tuple[Tensor, Tensor, float]:
        """Wavenumbers, mean square error per shell (``metrics.binned_error``), and the mean square
        error by quadrature, which the shells sum to; in ``surrogate.comparable`` units."""
        prediction, target = self.comparable()
        weights = self.grid.quadrature()
        space = tuple(range(-self.grid.ndim, 0))
        square = ((prediction - target).square() * (weights / weights.sum())).sum(space)
        bins = binned_error(prediction, target, self.grid).mean(0)
        return self.grid.shells()[0], bins, float(square.mean())

    def integrals(self) -> dict[str, dict[str, float]]:
        """Means over the domain per quantity: mean |⟨p⟩ − ⟨y⟩| over the samples, beside the mean of
        |⟨y⟩|, and the root mean square of y."""
        weights = self.grid.quadrature()
        weights, space = weights / weights.sum(), tuple(range(-self.grid.ndim, 0))
        p, y = ((u.double() * weights).sum(space) for u in (self.predictions, self.targets))
        size = (self.targets.double().square() * weights).sum(space).mean(0).sqrt()
        count = len(self.surrogate.quantities)
        return {
            v.name: {
                "error": float((p - y)[:, i::count].abs().mean()),
                "mean": float(y[:, i::count].abs().mean()),
                "rms": float(size[i::count].square().mean().sqrt()),
            }
            for i, v in enumerate(self.surrogate.quantities)
        }


def evaluate(
    surrogate: Surrogate,
    data: str | Path,
    resolution: int,
    *,
    split: str = "test",
    solver_timing: bool = True,
) -> tuple[Score, Comparison]:
    """Predict the fields of a split at one resolution, by one application of the operator.

    Fields come from the stored nodes if these include the wanted ones, else from the data set's
    recipe and seeds: the same samples, with more of the solver's nodes kept. On a sphere, where
    ``resolution`` n means n × 2n, coarser fields are the stored ones with fewer modes. Of
    trajectories at most ``WINDOWS`` windows are taken, evenly spread.

    Raises:
        ValueError: for a resolution that the recipe's grid cannot be subsampled to.
    """
    manifest = Manifest.read(Path(data))
    manifest.shards(split)  # refuses an unknown split by name
    window = surrogate.window
    frames = (window.history, window.horizon, window.stride) if window else (1, 1)
    check_same_meaning(surrogate, OperatorDataModule(data, window=frames), data)
    module = fields_at(data, resolution, split, frames)
    items = module.pairs(split)
    few = min(len(items), WINDOWS) if manifest.times else len(items)
    inputs, outputs = items.__getitems__([i * len(items) // few for i in range(few)])
    grid = surrogate.grid.resized(*module.grid.shape)
    predictions, seconds = _timed_predictions(surrogate, inputs, grid)
    comparison = Comparison(grid, inputs, outputs, predictions, surrogate)
    solver_seconds, solver_error = None, None
    if manifest.can_be_drawn_again and not manifest.times and solver_timing:
        solver_seconds, solver_error = _timed_solves(manifest.build_recipe(), comparison)
    measured = comparison.measured()
    everything = measured.pop(None)
    score = Score(
        resolution,
        len(inputs),
        float(everything["relative_l2"].mean()),
        float(everything["relative_h1"].mean()),
        seconds,
        solver_seconds,
        solver_error,
        {str(name): float(m["relative_l2"].mean()) for name, m in measured.items()},
    )
    return score, comparison


def fields_at(
    data: str | Path, resolution: int, split: str, window: Sequence[int]
) -> OperatorDataModule:
    """The fields at ``resolution``, drawn again from their seeds if they were not stored."""
    manifest = Manifest.read(Path(data))
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


def check_same_meaning(surrogate: Surrogate, module: OperatorDataModule, data: str | Path) -> None:
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


def _timed_solves(recipe: Recipe, comparison: Comparison) -> tuple[float, float]:
    """Time per field of the classical solver on this grid, and its error against the stored
    fields."""
    few = replace(
        comparison,
        inputs=comparison.inputs[:TIMED_SOLVES],
        targets=comparison.targets[:TIMED_SOLVES],
    )
    start = time.perf_counter()
    solved = recipe.solve(few.inputs.double(), few.grid)
    seconds = (time.perf_counter() - start) / len(solved)
    return seconds, float(replace(few, predictions=solved).errors().mean())
