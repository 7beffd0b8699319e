"""The same problem solved more cheaply: on coarser grids, in longer steps, to looser tolerances."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from sobolev.datasets.recipes.base import Recipe, expands_in_modes
from sobolev.datasets.recipes.capabilities import Loosenable
from sobolev.grids import AbstractGrid, Grid
from sobolev.grids.axis import subsampled_sizes
from sobolev.grids.restriction import restricted

PATIENCE = 60.0
"""Seconds: no finer grid is tried once a solve of the batch has taken so long."""


@dataclass(frozen=True)
class SolverProblem:
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


def solves(problem: SolverProblem, wanted: float, tick: Callable[[str], None]) -> Iterator[Solve]:
    """Yield solves on grids from coarse to fine; on each that is good enough, looser settings until one is not.

    What is too loose on a fine grid is too loose on a coarse one, so that each grid goes on from the
    loosest setting before. The search ends where finer grids only cost more.
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
            recipe, per_field = candidate, solve.seconds_per_field or math.inf
            if per_field > 2 * best:
                return
            best = min(best, per_field)
        if seconds > PATIENCE:
            return


def _sizes(problem: SolverProblem) -> list[int]:
    """Sizes to solve at, coarsest first: by cutting or adding modes on periodic axes and the sphere,
    elsewhere by picking nodes, as a coefficient with jumps is restricted."""
    source, finest = problem.source, problem.recipe.solver_resolution
    if isinstance(source, Grid) and not expands_in_modes(source):
        return [n for n in reversed(subsampled_sizes(source.axes[0])) if n >= 5]
    powers = (n for k in range(3, 31) for n in (2**k, 3 * 2 ** (k - 1)))
    return [*itertools.takewhile(lambda n: n < finest, powers), finest]


def _judged(problem: SolverProblem, size: int) -> tuple[Solve, float]:
    """Error and time of one configuration, and the seconds that its first solve took."""
    recipe, grid = problem.recipe, problem.recipe.grid(size)
    inputs = recipe.inputs_on(grid, problem.inputs, problem.source)
    setting = recipe.setting if isinstance(recipe, Loosenable) else ""
    start = time.perf_counter()
    try:
        solved = recipe.solve(inputs, grid)
    except (ArithmeticError, ValueError) as error:  # too coarse for this solver, which says why
        return Solve(size, setting, None, None, str(error)), time.perf_counter() - start
    first = time.perf_counter() - start
    fields = _channels(solved, bool(recipe.times))
    found = float(problem.error(_brought(fields, grid, problem.grid)).mean())
    times = [first]
    while sum(times) < 0.5 and len(times) < 6:
        start = time.perf_counter()
        recipe.solve(inputs, grid)
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:] or times) / len(inputs)
    return Solve(size, setting, found if math.isfinite(found) else None, seconds), first


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
