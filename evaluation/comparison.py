"""A surrogate's predictions beside the true fields, at resolutions it never saw."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.datasets.generating.generation import refined
from sobolev.datasets.loading.datamodule import OperatorDataModule
from sobolev.datasets.recipes.base import Recipe
from sobolev.datasets.recipes.presets import class_of, recipe_from
from sobolev.datasets.store.manifest import Manifest
from sobolev.evaluation.measures import MEASURES
from sobolev.grids import AbstractGrid, SphereGrid
from sobolev.grids.description import by, in_words
from sobolev.grids.norms import relative_error
from sobolev.grids.restriction import Resolution, at_resolution, resolution_of
from sobolev.grids.variables import Variable
from sobolev.surrogates import Surrogate
from sobolev.surrogates.applying import apply, comfortable_batch
from sobolev.training.metrics import binned_error
from sobolev.training.zeros import numbers_of, without_size

WINDOWS = 1024
"""The largest number of windows of trajectories that the scores of one application are taken over."""
TIMED_SOLVES = 8
"""The number of samples that the classical solver is timed on."""

Inputs = Float[Tensor, "sample inputs *space"]
Outputs = Float[Tensor, "sample outputs *space"]
"""Fields; the frames of trajectories are channels."""


@dataclass(frozen=True)
class Score:
    """The scores of a surrogate at one resolution. Errors are means over the samples."""

    resolution: int | list[int]
    """Nodes per axis: one number where it stands for all of them."""
    samples: int
    relative_l2: float
    relative_h1: float
    seconds_per_field: float
    solver_seconds_per_field: float | None
    """The time of the data's own solver on the same grid and the same machine, in batches; None if
    the recipe is not known, makes trajectories, or was not to be timed."""
    solver_relative_l2: float | None
    """Error of that solve against the stored fields, which come from the recipe's finest grid."""
    relative_l2_of: dict[str, float] = field(default_factory=dict)
    """The error of each quantity by itself, where there are several."""
    zero: list[int] = field(default_factory=list)
    """The samples with true fields of zero, which no error is relative to. They are left out of the
    relative errors."""


@dataclass(frozen=True)
class Comparison:
    """Test fields at one resolution, with their predictions."""

    grid: AbstractGrid
    inputs: Inputs
    targets: Outputs
    predictions: Outputs
    surrogate: Surrogate

    @property
    def label(self) -> str:
        """The resolution in words: one number where it stands for all axes."""
        found = resolution_of(self.grid)
        return str(found) if isinstance(found, int) else by(found)

    def first(self, count: int) -> Comparison:
        """Return the comparison of the first ``count`` samples, or of all if there are fewer."""
        return replace(
            self,
            inputs=self.inputs[:count],
            targets=self.targets[:count],
            predictions=self.predictions[:count],
        )

    def errors(self, order: float = 0.0) -> Float[Tensor, " sample"]:
        """Return the relative H^s error per sample, in ``surrogate.comparable`` units."""
        return relative_error(*self.comparable(), self.grid, order)

    def comparable(self) -> tuple[Outputs, Outputs]:
        """Return prediction and target in ``surrogate.comparable`` units, float64."""
        prediction, target = (
            self.surrogate.comparable(u.double(), self.inputs)
            for u in (self.predictions, self.targets)
        )
        return prediction, target

    def measured(self) -> dict[str | None, dict[str, Float[Tensor, " sample"]]]:
        """Return every measure per sample: under None that of all quantities together, and by name that
        of each where there are several."""
        compared = self.comparable()
        physical = (self.predictions.double(), self.targets.double())
        names = [v.name for v in self.surrogate.quantities]
        parts: dict[str | None, slice] = {None: slice(None)}
        if len(names) > 1:
            parts |= {name: slice(i, None, len(names)) for i, name in enumerate(names)}
        found: dict[str | None, dict[str, Float[Tensor, " sample"]]] = {}
        for name, channels in parts.items():
            found[name] = {}
            for key, measure in MEASURES.items():
                p, y = compared if measure.comparable else physical
                found[name][key] = measure.of(p[:, channels], y[:, channels], self.grid)
        return found

    def spectral_error(self) -> tuple[Float[Tensor, " shell"], Float[Tensor, " shell"], float]:
        """Return wavenumbers, mean square error per shell (``metrics.binned_error``), and the mean square
        error by quadrature, to which the shells sum; in ``surrogate.comparable`` units."""
        prediction, target = self.comparable()
        weights = self.grid.quadrature()
        space = tuple(range(-self.grid.ndim, 0))
        square = ((prediction - target).square() * (weights / weights.sum())).sum(space)
        bins = binned_error(prediction, target, self.grid).mean(0)
        return self.grid.shells()[0], bins, float(square.mean())

    def integrals(self) -> dict[str, dict[str, float]]:
        """Return means over the domain per quantity: the mean of |⟨p⟩ − ⟨y⟩| over the samples, the mean of
        |⟨y⟩|, and the root mean square of y."""
        weights = self.grid.quadrature()
        weights = weights / weights.sum()
        space = tuple(range(-self.grid.ndim, 0))
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
    resolution: Resolution | None = None,
    *,
    split: str = "test",
    solver_timing: bool = True,
    recipes: Sequence[type[Recipe]] = (),
) -> tuple[Score, Comparison]:
    """Predict the fields of a split at one resolution, by one application of the operator.

    Fields come from the stored nodes if these include the wanted ones, else from the data set's
    recipe and seeds: the same samples, with more of the solver's nodes kept. On a sphere coarser
    fields are the stored ones with fewer modes. Of trajectories at most ``WINDOWS`` windows are taken,
    evenly spread.

    Args:
        surrogate: the one that predicts.
        data: data set with the fields.
        resolution: one number of nodes for each axis, or n for all (on a sphere n × 2n); as stored by
            default.
        split: the split of the data set.
        solver_timing: time classical solves on the same grid too.
        recipes: classes from outside the package that may have drawn the data.

    Raises:
        ValueError: for a resolution that the recipe's grid cannot be restricted to.
    """
    manifest = Manifest.read(Path(data))
    manifest.shards(split)  # refuses an unknown split by name
    window = surrogate.meaning.cut
    check_same_meaning(surrogate, OperatorDataModule(data, window=window), data)
    module = fields_at(data, resolution, split, window, recipes=recipes)
    items = module.pairs(split)
    few = min(len(items), WINDOWS) if manifest.times else len(items)
    picked = [i * len(items) // few for i in range(few)]
    inputs, outputs = items.__getitems__(picked)
    grid = surrogate.grid.resized(*module.grid.shape)
    predictions, seconds = _timed_predictions(surrogate, inputs, grid)
    comparison = Comparison(grid, inputs, outputs, predictions, surrogate)
    solver_seconds = None
    solver_error = None
    known = class_of(manifest.recipe, recipes) is not None
    if known and not manifest.times and not manifest.parameters and solver_timing:
        recipe = recipe_from(manifest.recipe, recipes)
        solver_seconds, solver_error = _timed_solves(recipe, comparison)
    measured = comparison.measured()
    everything = measured.pop(None)
    score = Score(
        resolution_of(grid),
        len(inputs),
        float(everything["relative_l2"].nanmean()),
        float(everything["relative_h1"].nanmean()),
        seconds,
        solver_seconds,
        solver_error,
        {str(name): float(m["relative_l2"].nanmean()) for name, m in measured.items()},
        numbers_of(items, picked, without_size(surrogate, outputs)),
    )
    return score, comparison


def fields_at(
    data: str | Path,
    resolution: Resolution | None,
    split: str,
    window: Sequence[int] | str,
    *,
    recipes: Sequence[type[Recipe]] = (),
) -> OperatorDataModule:
    """Return the fields at ``resolution``, drawn again from their seeds if they were not stored.

    Raises:
        ValueError: for a resolution that the data, and the recipe's grid, cannot be restricted to.
    """
    stored = Manifest.read(Path(data)).grid
    target = stored if resolution is None else at_resolution(stored, resolution)
    if not _is_within(target, stored):
        data = _drawn_again(data, split, target, recipes)
        stored = Manifest.read(Path(data)).grid
    how = "subsample" if stored.can_subsample(target) else "spectral"
    return OperatorDataModule(data, resolution=target.shape, restriction=how, window=window)


def _is_within(target: AbstractGrid, stored: AbstractGrid) -> bool:
    """Return whether stored fields hold those on ``target``: at some of their nodes, or on a sphere by
    fewer modes."""
    coarser = all(n <= m for n, m in zip(target.shape, stored.shape, strict=True))
    return stored.can_subsample(target) or (isinstance(stored, SphereGrid) and coarser)


def _drawn_again(
    data: str | Path, split: str, target: AbstractGrid, recipes: Sequence[type[Recipe]]
) -> Path:
    """Return the data set of the same samples on the solver's grid."""
    manifest = Manifest.read(Path(data))
    if class_of(manifest.recipe, recipes) is None:
        raise ValueError(
            f"no test fields on {by(target.shape)} nodes: the data are stored on {by(manifest.grid.shape)}, and cannot "
            f"be drawn again here: their recipe is {manifest.recipe.get('class')!r}"
        )
    recipe = recipe_from(manifest.recipe, recipes)
    possible = {recipe.grid(n).shape: n for n in recipe.resolutions()}
    if tuple(target.shape) not in possible:
        raise ValueError(
            f"no test fields at resolution {by(dict.fromkeys(target.shape))}: {type(recipe).__name__} solves on "
            f"{recipe.solver_resolution} nodes per axis; choose from {', '.join(map(str, possible.values()))}"
        )
    return refined(data, split, recipe.solver_resolution, recipes=recipes)


def check_same_meaning(surrogate: Surrogate, module: OperatorDataModule, data: str | Path) -> None:
    """Refuse fields that are not those the surrogate was trained on.

    Raises:
        ValueError: saying what both are.
    """
    wanted = _fields_in_words([*surrogate.inputs, *surrogate.outputs], surrogate.grid)
    found = _fields_in_words([*module.inputs, *module.outputs], module.grid)
    if wanted != found:
        raise ValueError(f"the surrogate was trained on {wanted}; {data} holds {found}")


def _fields_in_words(variables: Sequence[Variable], grid: AbstractGrid) -> str:
    """Return names, units, boundaries and extents in words; sizes do not matter."""
    fields = ", ".join(f"{v.name} [{v.units}]" for v in variables)
    return f"{fields} on {in_words(grid, sizes=False)}"


def _timed_predictions(
    surrogate: Surrogate, inputs: Inputs, grid: AbstractGrid
) -> tuple[Outputs, float]:
    """Return predictions on the CPU and the median time per field over batches."""

    def timed(batch: Inputs) -> tuple[Outputs, float]:
        start = time.perf_counter()
        prediction = surrogate(batch).cpu()
        return prediction, (time.perf_counter() - start) / len(batch)

    apply(surrogate, timed, inputs[:1], batch_size=1)  # warm up
    found = apply(surrogate, timed, inputs, batch_size=comfortable_batch(grid))
    predictions, seconds = zip(*found, strict=True)
    return torch.cat(predictions), statistics.median(seconds)


def _timed_solves(recipe: Recipe, comparison: Comparison) -> tuple[float, float]:
    """Return the time per field of the classical solver on this grid, and its error against the
    stored fields."""
    few = comparison.first(TIMED_SOLVES)
    start = time.perf_counter()
    solved = recipe.solve(few.inputs.double(), few.grid)
    seconds = (time.perf_counter() - start) / len(solved)
    return seconds, float(replace(few, predictions=solved).errors().nanmean())
