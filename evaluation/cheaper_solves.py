"""The same problem solved more cheaply: on coarser grids, in longer steps, to looser tolerances."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from sobolev.datasets.recipes.base import Recipe, expands_in_modes
from sobolev.datasets.recipes.capabilities import Loosenable
from sobolev.grids import AbstractGrid, Grid
from sobolev.grids.axis import subsampled_sizes
from sobolev.grids.restriction import restricted

PATIENCE = 60.0
"""The seconds of a solve of the batch after which no finer grid is tried."""


@dataclass(frozen=True)
class SolverProblem:
    """Fields that a classical solver is to make as well as a surrogate does."""

    recipe: Recipe
    inputs: Float[Tensor, "sample inputs *source_space"]
    """The fields that the solver starts from, on ``source``."""
    source: AbstractGrid
    grid: AbstractGrid
    """The grid that errors are taken on."""
    error: Callable[[Float[Tensor, "sample outputs *space"]], Float[Tensor, " sample"]]
    """Relative L² error per sample of fields on ``grid``."""


@dataclass(frozen=True)
class Solve:
    """One configuration of the solver, judged; ``relative_l2`` is None where it gave up."""

    resolution: int
    setting: str
    relative_l2: float | None
    seconds_per_field: float | None
    remark: str = ""


def solves(problem: SolverProblem, wanted: float, tick: Callable[[str], None]) -> Iterator[Solve]:
    """Yield solves on grids from coarse to fine; on each that is good enough, also looser settings until
    one is not.

    A setting that is too loose on a fine grid is too loose on a coarse one. Each grid therefore goes on
    from the loosest setting that was good enough before. The search ends where finer grids only cost
    more.
    """
    recipe = problem.recipe
    best = math.inf
    for size in _sizes(problem):
        seconds = 0.0
        for candidate in [recipe, *(recipe.looser() if isinstance(recipe, Loosenable) else ())]:
            tick(f"solving at {size} nodes per axis")
            solve, spent = _judged(replace(problem, recipe=candidate), size)
            seconds = seconds or spent
            yield solve
            if solve.relative_l2 is None or not solve.relative_l2 <= wanted:
                break
            recipe = candidate
            per_field = solve.seconds_per_field or math.inf
            if per_field > 2 * best:
                return
            best = min(best, per_field)
        if seconds > PATIENCE:
            return


def _sizes(problem: SolverProblem) -> list[int]:
    """Return the sizes to solve at, coarsest first.

    Periodic axes and the sphere have any size, by cutting or adding modes. Elsewhere nodes are picked,
    as a coefficient with jumps is restricted.
    """
    source = problem.source
    finest = problem.recipe.solver_resolution
    if isinstance(source, Grid) and not expands_in_modes(source):
        return [n for n in reversed(subsampled_sizes(source.axes[0])) if n >= 5]
    powers = (n for k in range(3, 31) for n in (2**k, 3 * 2 ** (k - 1)))
    return [*itertools.takewhile(lambda n: n < finest, powers), finest]


def _judged(problem: SolverProblem, size: int) -> tuple[Solve, float]:
    """Return one configuration, judged, and the seconds that its first solve took."""
    recipe = problem.recipe
    grid = recipe.grid(size)
    inputs = recipe.inputs_on(grid, problem.inputs, problem.source)
    setting = recipe.setting if isinstance(recipe, Loosenable) else ""
    start = time.perf_counter()
    try:
        solved = recipe.solve(inputs, grid)
    except (ArithmeticError, ValueError) as error:  # too coarse for this solver, which says why
        return Solve(size, setting, None, None, str(error)), time.perf_counter() - start
    first = time.perf_counter() - start
    fields = _channels(solved, bool(recipe.times))
    found = float(problem.error(_brought(fields, grid, problem.grid)).nanmean())
    times = [first]
    while sum(times) < 0.5 and len(times) < 6:
        start = time.perf_counter()
        recipe.solve(inputs, grid)
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:] or times) / len(inputs)
    return Solve(size, setting, found if math.isfinite(found) else None, seconds), first


def _channels(
    outputs: Float[Tensor, "sample variable *time_and_space"], in_time: bool
) -> Float[Tensor, "sample channels *space"]:
    """Return outputs as channels: all frames but the first one, the variables of each together."""
    return outputs[:, :, 1:].transpose(1, 2).flatten(1, 2) if in_time else outputs


def _brought(
    u: Float[Tensor, "sample channels *space"], grid: AbstractGrid, target: AbstractGrid
) -> Float[Tensor, "sample channels *target_space"]:
    """Return ``u`` on ``target``: expanded on a finer grid, restricted on a coarser one, as data are
    that are stored there."""
    if grid.shape == target.shape:
        return u
    finer = grid.shape[0] > target.shape[0]
    return restricted(u, grid, target) if finer else grid.resample(u, target)
