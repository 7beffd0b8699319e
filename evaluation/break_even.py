"""The number of fields after which a surrogate has paid for its data and its training.

It is compared with the cheapest classical solve that is as accurate as the surrogate, not with the
solve that made the data: on a coarser grid, in longer steps or to a looser tolerance a solver is
often a hundred times faster and still no worse than the surrogate (McGreivy & Hakim 2024,
doi:10.1038/s42256-024-00897-5).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from sobolev.datasets.generating.generation import SOLVER_BATCH, streams
from sobolev.datasets.recipes.base import Recipe
from sobolev.datasets.store.manifest import Manifest
from sobolev.evaluation.cheaper_solves import Solve, SolverProblem, solves


@dataclass(frozen=True)
class BreakEven:
    """Costs in seconds, on one machine, of a surrogate and of the solve that is as accurate."""

    relative_l2: float
    """The surrogate's error on the samples of the comparison."""
    samples: int
    seconds_per_field: float
    """The surrogate's, in batches."""
    solver: Solve
    """The cheapest solve whose error is at most the surrogate's."""
    solver_is_reference: bool
    """True if no cheaper solve is as accurate: ``solver`` is then the one that made the data."""
    tried: tuple[Solve, ...]
    training_seconds: float | None
    data_seconds: float
    data_samples: int
    data_seconds_per_sample: float

    @property
    def fields(self) -> float | None:
        """N* = (data + training) / (solver per field − surrogate per field), or None for never."""
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
    problem: SolverProblem,
    relative_l2: float,
    seconds_per_field: float,
    *,
    recipe: Recipe,
    manifest: Manifest,
    data_samples: int,
    training_seconds: float | None,
    tick: Callable[[str], None] = lambda text: None,
) -> BreakEven:
    """Find the cheapest solve that is as accurate, and compare costs.

    Args:
        problem: the fields of the comparison.
        relative_l2, seconds_per_field: the surrogate's error and time on them.
        recipe: the one that drew the data.
        manifest: of data like those trained on; drawing some of them again is timed.
        data_samples: the number of samples drawn for training and validation.
        training_seconds: wall-clock time, if it was recorded.
        tick: told what is being tried.
    """
    tick("drawing training data again, to time it")
    per_sample = seconds_to_draw(recipe, manifest)
    tried = tuple(solves(problem, relative_l2, tick))
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
    """Round upwards to two significant digits: times are known no better.

    >>> _rounded(12345.6), _rounded(7.2)
    (13000, 8)
    """
    unit = 10 ** max(0, math.floor(math.log10(max(count, 1.0))) - 1)
    return math.ceil(count / unit) * unit


def seconds_to_draw(recipe: Recipe, manifest: Manifest) -> float:
    """Return the seconds per sample to draw and solve a data set again, in one process: a batch of
    ``SOLVER_BATCH``, or a single sample where that takes more than two seconds."""
    split = next(iter(manifest.splits))

    def draw(count: int) -> float:
        start = time.perf_counter()
        recipe.solved(streams(manifest, split, range(count)))
        return (time.perf_counter() - start) / count

    single = draw(1)
    return single if single > 2 else draw(SOLVER_BATCH)
