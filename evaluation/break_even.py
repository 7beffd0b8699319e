"""After how many fields a surrogate has paid for its data and its training.

It is compared with the cheapest classical solve that is as accurate as the surrogate, not with the
solve that made the data: on a coarser grid, in longer steps or to a looser tolerance a solver is
often a hundred times faster and still no worse than the surrogate (McGreivy & Hakim 2024,
doi:10.1038/s42256-024-00897-5).
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from sobolev.datasets import Manifest, NavierStokesRecipe, Recipe, ShallowWaterRecipe
from sobolev.datasets.generating.generation import SOLVER_BATCH, streams
from sobolev.datasets.recipes.base import restricted
from sobolev.grids import AbstractGrid, Axis, Grid, SphereGrid
from sobolev.grids.axis import subsampled_sizes
from sobolev.solvers.navier_stokes.states import band_limited

PATIENCE = 60.0
"""Seconds: no finer grid is tried once a solve of the batch has taken so long."""
_LOOSER = {"steps": 0.5, "step": 2, "courant": 2, "tolerance": 100}
"""By which factor a recipe's accuracy beside its grid is lowered."""


@dataclass(frozen=True)
class Problem:
    """Fields that a classical solver is to make as well as a surrogate does."""

    recipe: Recipe
    inputs: Tensor
    """What the solver starts from, ``(sample, channels, *space)`` on ``source``."""
    source: AbstractGrid
    grid: AbstractGrid
    """Where errors are taken."""
    error: Callable[[Tensor], Tensor]
    """Relative L² error per sample of ``(sample, channels, *space)`` on ``grid``."""


@dataclass(frozen=True)
class Solve:
    """One configuration of the solver, judged; ``relative_l2`` is None where it gave up."""

    resolution: int
    setting: str
    relative_l2: float | None
    seconds_per_field: float | None
    remark: str = ""


@dataclass(frozen=True)
class BreakEven:
    """Costs in seconds, on one machine, of a surrogate and of the solve that is as accurate."""

    relative_l2: float
    """The surrogate's error on the samples of the comparison."""
    samples: int
    seconds_per_field: float
    """Of the surrogate, in batches."""
    solver: Solve
    """The cheapest solve whose error is at most the surrogate's."""
    solver_is_reference: bool
    """No cheaper solve is as accurate: ``solver`` is the one that made the data."""
    tried: tuple[Solve, ...]
    training_seconds: float | None
    data_seconds: float
    data_samples: int
    data_seconds_per_sample: float

    @property
    def fields(self) -> float | None:
        """N* = (data + training) / (solver per field − surrogate per field), or None: never."""
        saved = (self.solver.seconds_per_field or 0.0) - self.seconds_per_field
        if self.training_seconds is None or saved <= 0:
            return None
        return (self.data_seconds + self.training_seconds) / saved

    @property
    def verdict(self) -> str:
        """The number in words, or why there is none."""
        if self.training_seconds is None:
            return "at an unknown number: the surrogate does not record how long it was trained"
        if self.fields is None:
            return "never: the classical solver is as accurate and no slower"
        return f"after {_rounded(self.fields):,}"


def break_even(
    problem: Problem,
    relative_l2: float,
    seconds_per_field: float,
    *,
    manifest: Manifest,
    data_samples: int,
    training_seconds: float | None,
    tick: Callable[[str], None] = lambda text: None,
) -> BreakEven:
    """Find the cheapest solve that is as accurate, and compare costs.

    Args:
        problem: the fields of the comparison.
        relative_l2, seconds_per_field: the surrogate's error and time on them.
        manifest: of data like those trained on; drawing some of them again is timed.
        data_samples: how many samples were drawn for training and validation.
        training_seconds: wall-clock time, if it was recorded.
        tick: told what is being tried.
    """
    tick("drawing training data again, to time it")
    per_sample = seconds_to_draw(manifest)
    tried = tuple(_tried(problem, relative_l2, tick))
    good = [s for s in tried if s.relative_l2 is not None and s.relative_l2 <= relative_l2]
    finest = problem.recipe.solver_resolution
    reference = Solve(finest, "as the data were made, drawing included", 0.0, per_sample)
    cheapest = min(good, key=lambda s: s.seconds_per_field or math.inf, default=reference)
    return BreakEven(
        relative_l2,
        len(problem.inputs),
        seconds_per_field,
        cheapest,
        not good,
        tried,
        training_seconds,
        per_sample * data_samples,
        data_samples,
        per_sample,
    )


def _rounded(count: float) -> int:
    """To two significant digits, upwards: times are known no better.

    >>> _rounded(12345.6), _rounded(7.2)
    (13000, 8)
    """
    unit = 10 ** max(0, math.floor(math.log10(max(count, 1.0))) - 1)
    return math.ceil(count / unit) * unit


def seconds_to_draw(manifest: Manifest) -> float:
    """Seconds per sample to draw and solve the recipe of a data set again, in one process: a batch of
    ``SOLVER_BATCH``, or a single sample where that takes more than two seconds."""
    recipe, split = manifest.build_recipe(), next(iter(manifest.splits))

    def draw(count: int) -> float:
        start = time.perf_counter()
        recipe.solved(streams(manifest, split, range(count)))
        return (time.perf_counter() - start) / count

    single = draw(1)
    return single if single > 2 else draw(SOLVER_BATCH)


def continued(recipe: Recipe, frames: int, stride: int) -> Recipe:
    """``recipe`` for ``frames`` frames after the one it starts from, each ``stride`` of its intervals
    after the last (on the sphere perhaps some more, to fill an hour)."""
    if isinstance(recipe, NavierStokesRecipe):
        interval = recipe.interval * stride
        return replace(recipe, interval=interval, time=interval * frames)
    if isinstance(recipe, ShallowWaterRecipe):
        interval = recipe.interval * stride
        return replace(recipe, interval=interval, hours=math.ceil(interval * frames / 3600 - 1e-9))
    raise ValueError(f"{type(recipe).__name__} makes no trajectories")


def _tried(problem: Problem, wanted: float, tick: Callable[[str], None]) -> Iterator[Solve]:
    """Grids from coarse to fine; on each that is good enough, looser settings until one is not.

    What is too loose on a fine grid is too loose on a coarse one, so that each grid goes on from the
    loosest setting before. The search ends where finer grids only cost more.
    """
    recipe, best = problem.recipe, math.inf
    for size in _sizes(problem):
        seconds = 0.0
        for candidate in [recipe, *_looser(recipe)]:
            tick(f"solving at {size} nodes per axis")
            solve, spent = _judged(replace(problem, recipe=candidate), size)
            seconds = seconds or spent
            yield solve
            if solve.relative_l2 is None or not solve.relative_l2 <= wanted:
                break
            recipe, per_field = candidate, solve.seconds_per_field or math.inf
            if per_field > 2 * best:
                return
            best = min(best, per_field)
        if seconds > PATIENCE:
            return


def _sizes(problem: Problem) -> list[int]:
    """Sizes to solve at, coarsest first: by cutting or adding modes on periodic axes and the sphere,
    elsewhere by picking nodes, as a coefficient with jumps is restricted."""
    if not _is_spectral(problem.source):
        return [n for n in reversed(subsampled_sizes(_first_axis(problem.source))) if n >= 5]
    finest = problem.recipe.solver_resolution
    powers = (n for k in range(3, 31) for n in (2**k, 3 * 2 ** (k - 1)))
    return [*itertools.takewhile(lambda n: n < finest, powers), finest]


def _is_spectral(grid: AbstractGrid) -> bool:
    return isinstance(grid, SphereGrid) or _first_axis(grid).boundary == "periodic"


def _first_axis(grid: AbstractGrid) -> Axis:
    if not isinstance(grid, Grid):
        raise TypeError(f"a {type(grid).__name__} has no axes")
    return grid.axes[0]


def _looser(recipe: Recipe) -> Iterator[Recipe]:
    """The recipe at lower and lower accuracy in time or of the iteration."""
    last = {
        "steps": 4,
        "step": getattr(recipe, "interval", math.inf),
        "courant": 2.8,
        "tolerance": 0.1,
    }
    for name, factor in _LOOSER.items():
        while hasattr(recipe, name):
            value = getattr(recipe, name)
            value = type(value)(value * factor)
            if value < last[name] if factor < 1 else value > last[name]:
                break
            recipe = replace(recipe, **{name: value})  # type: ignore[type-var]
            yield recipe


def _judged(problem: Problem, size: int) -> tuple[Solve, float]:
    """Error and time of one configuration, and the seconds that its first solve took."""
    recipe, grid = problem.recipe, problem.recipe.grid(size)
    inputs = _start(problem, grid)
    setting = ", ".join(f"{k} {getattr(recipe, k):.4g}" for k in _LOOSER if hasattr(recipe, k))
    start = time.perf_counter()
    try:
        solved = recipe.solve(inputs, grid)
    except (ArithmeticError, ValueError) as error:  # too coarse for this solver, which says why
        return Solve(size, setting, None, None, str(error)), time.perf_counter() - start
    first = time.perf_counter() - start
    fields = _channels(solved, len(recipe.times) > 0)
    found = float(problem.error(_brought(fields, grid, problem.grid)).mean())
    times = [first]
    while sum(times) < 0.5 and len(times) < 6:
        start = time.perf_counter()
        recipe.solve(inputs, grid)
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:] or times) / len(inputs)
    return Solve(size, setting, found if math.isfinite(found) else None, seconds), first


def _start(problem: Problem, grid: AbstractGrid) -> Tensor:
    """What the solver starts from on ``grid``."""
    if not _is_spectral(grid):
        return restricted(problem.inputs, problem.source, grid)
    start = problem.source.resample(problem.inputs, grid)
    if isinstance(problem.recipe, NavierStokesRecipe) and isinstance(grid, Grid):
        return band_limited(start, grid)  # its solver takes what the 2/3 rule keeps
    return start


def _channels(outputs: Tensor, in_time: bool) -> Tensor:
    """``(sample, output, [time,] *space)`` as channels, frames but the first one before variables."""
    return outputs[:, :, 1:].transpose(1, 2).flatten(1, 2) if in_time else outputs


def _brought(u: Tensor, grid: AbstractGrid, target: AbstractGrid) -> Tensor:
    """``u`` on the grid where errors are taken: expanded on a finer one, restricted as data are
    stored on a coarser one."""
    if grid.shape == target.shape:
        return u
    finer = grid.shape[0] > target.shape[0]
    return restricted(u, grid, target) if finer else grid.resample(u, target)
