"""A surrogate judged at several resolutions, as a report and as JSON."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import rich.console
import rich.progress
import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.certification.certificates import Certificate, Effectivity, certificate_of, effectivity
from sobolev.datasets.generating.generation import streams
from sobolev.datasets.recipes.base import Recipe
from sobolev.datasets.recipes.capabilities import Evolving
from sobolev.datasets.recipes.presets import class_of, recipe_from
from sobolev.datasets.store.manifest import Manifest
from sobolev.datasets.store.whole_files import replacing
from sobolev.evaluation import figures as plots
from sobolev.evaluation import report
from sobolev.evaluation.break_even import BreakEven, break_even
from sobolev.evaluation.cheaper_solves import SolverProblem
from sobolev.evaluation.comparison import TIMED_SOLVES, Comparison, Score, evaluate, fields_at
from sobolev.evaluation.record import Evaluation
from sobolev.evaluation.rollouts import TRAJECTORIES, Rollouts, roll_out, whole_window
from sobolev.grids.checks import plain
from sobolev.grids.restriction import Resolution, restricted
from sobolev.operators import Operator
from sobolev.surrogates import Surrogate
from sobolev.surrogates.provenance import Provenance

CERTIFIED = 100
"""The largest number of samples that certificates are judged on: the true error of each may take a
solve."""


def evaluate_run(
    run: str | Path,
    data: str | Path,
    resolutions: Sequence[Resolution] | None = None,
    *,
    split: str = "test",
    out: str | Path | None = None,
    solver_timing: bool = True,
    trajectories: int = TRAJECTORIES,
    symmetrize: bool = False,
    recipes: Sequence[type[Recipe]] = (),
    operators: Sequence[type[Operator]] = (),
    command: str | None = None,
) -> Evaluation:
    """Judge a surrogate, and save ``report.html``, ``evaluation.json`` and figures in ``out``.

    Args:
        run: the folder of a run, or of a surrogate.
        data: data set with the fields to test on.
        resolutions: nodes per axis, one number for each or n for all; as stored by default. The first
            one is that of rollouts and of the break-even.
        split: the split of the data set.
        out: folder to write to; by default ``RUN/evaluation``, or ``RUN/evaluation-symmetrized``.
        solver_timing: time classical solves too, for the comparison of costs.
        trajectories: the number to roll out, where the data are trajectories.
        symmetrize: judge ``Surrogate.symmetrized()``.
        recipes, operators: classes from outside the package that may be met.
        command: the command that makes the report again, for it to say; a call of this function by
            default.

    Raises:
        ValueError: for a surrogate, data, a split or resolutions that do not go together.
    """
    run = Path(run)
    data = Path(data)
    resolutions = None if resolutions is None else plain(list(resolutions))
    surrogate = Surrogate.load(run, operators=operators)
    out = Path(out) if out else report_folder(run, symmetrize)
    # beside a surrogate by itself lies nothing of its training
    home = run.parent if run.name == "surrogate" and not (run / "surrogate").is_dir() else run
    if symmetrize:
        surrogate = surrogate.symmetrized()
    if command is None:
        command = f"sobolev.evaluation.evaluate_run({str(run)!r}, {str(data)!r}, {resolutions!r}, split={split!r})"
    wanted = [None] if resolutions is None else resolutions
    with _progress() as tick:
        judge = _Judge(surrogate, data, split, tuple(recipes), solver_timing, tick)
        evaluation = judge.evaluation(wanted, trajectories, run=home, command=command)
        tick("drawing")
        _save(evaluation, out)
    return evaluation


def report_folder(run: Path, symmetrize: bool) -> Path:
    """Return the folder of a report unless told otherwise: in the run, or beside a surrogate."""
    home = run if (run / "surrogate").is_dir() else run.parent
    return home / f"evaluation{'-symmetrized' * symmetrize}"


class _Judge:
    """A judge of a surrogate on a split."""

    def __init__(
        self,
        surrogate: Surrogate,
        data: Path,
        split: str,
        recipes: tuple[type[Recipe], ...],
        solver_timing: bool,
        tick: Callable[[str], None],
    ) -> None:
        self.surrogate = surrogate
        self.data = data
        self.split = split
        self.recipes = recipes
        self.solver_timing = solver_timing
        self.tick = tick
        self.manifest = Manifest.read(data)

    def evaluation(
        self,
        resolutions: Sequence[Resolution | None],
        trajectories: int,
        *,
        run: Path,
        command: str,
    ) -> Evaluation:
        """Return all that is found out."""
        scores, comparisons = self._scores(resolutions)
        first = next(iter(comparisons.values()))
        rollouts = self._rollouts(resolutions[0], trajectories)
        self.tick("bounding errors")
        certificate, bounds, unbounded = self._bounded(first)
        paid, unpaid = self._break_even(first, scores[0], rollouts)
        return Evaluation(
            self.surrogate, run, self.data, self.split, self.manifest, command, scores, comparisons, rollouts,
            paid, unpaid, bounds, certificate, unbounded,
        )  # fmt: skip

    def _scores(
        self, resolutions: Sequence[Resolution | None]
    ) -> tuple[list[Score], dict[tuple[int, ...], Comparison]]:
        scores = []
        comparisons = {}
        for resolution in resolutions:
            where = "as stored" if resolution is None else f"at {resolution} nodes per axis"
            self.tick(f"predicting {self.split} fields {where}")
            score, comparison = evaluate(
                self.surrogate, self.data, resolution, split=self.split,
                solver_timing=self.solver_timing, recipes=self.recipes,
            )  # fmt: skip
            if (shape := tuple(comparison.grid.shape)) not in comparisons:  # asked for twice
                scores.append(score)
                comparisons[shape] = comparison
        return scores, comparisons

    def _rollouts(self, resolution: Resolution | None, trajectories: int) -> Rollouts | None:
        if self.surrogate.window is None or not self.manifest.times:
            return None
        window = whole_window(self.surrogate, self.manifest)
        module = fields_at(self.data, resolution, self.split, window, recipes=self.recipes)
        self.tick(f"rolling out {module.window.horizon} frames")
        return roll_out(self.surrogate, module, split=self.split, trajectories=trajectories)

    def _bounded(
        self, comparison: Comparison
    ) -> tuple[Certificate | None, Effectivity | None, str]:
        """Return bounds beside true errors, or None and the reason why there are none."""
        some = comparison.first(CERTIFIED)
        try:
            certificate = certificate_of(self.surrogate, recipes=self.recipes)
            found = effectivity(
                self.surrogate, some.inputs, some.predictions, some.targets, some.grid,
                recipes=self.recipes,
            )  # fmt: skip
        except ValueError as error:  # says which surrogates, grids and predictions have no bound
            return None, None, str(error)
        return certificate, found, ""

    def _break_even(
        self, comparison: Comparison, score: Score, rollouts: Rollouts | None
    ) -> tuple[BreakEven | None, str]:
        """Return the break-even, or None and the reason why there is none."""
        if not self.solver_timing:
            return None, "classical solves were not to be timed (--no-solver-timing)"
        if class_of(self.manifest.recipe, self.recipes) is None:
            return (
                None,
                "the data were not drawn from a recipe of sobolev: their solver is not known",
            )
        recipe = recipe_from(self.manifest.recipe, self.recipes)
        if recipe.parameters:
            names = ", ".join(parameter.name for parameter in recipe.parameters)
            return (
                None,
                f"costs are compared for one equation; here {names} differs from sample to sample",
            )
        if rollouts is None and self.manifest.times:
            return None, "the surrogate is not in time, the data are"
        if rollouts is not None and not isinstance(recipe, Evolving):
            return (
                None,
                f"{type(recipe).__name__} does not say how its trajectories go on (Evolving)",
            )
        if rollouts is not None:
            seconds = rollouts.seconds_per_trajectory
            error = float(rollouts.whole_error()[:TIMED_SOLVES].nanmean())
            problem = _trajectories_to_solve(recipe, rollouts)
        else:
            seconds = score.seconds_per_field
            error = float(comparison.errors()[:TIMED_SOLVES].nanmean())
            problem = _fields_to_solve(recipe, self.manifest, self.split, comparison)
        if not math.isfinite(error):
            return None, "the surrogate's error is not finite, so that no solve is as bad"
        runs = self.surrogate.provenance.lineage
        if any(_origin(run) != _origin(runs[0]) for run in runs):
            return (
                None,
                "training went on from a surrogate of other data, whose cost is not known here",
            )
        spent = [run.training.seconds for run in runs]
        known = [seconds for seconds in spent if seconds is not None]
        return break_even(
            problem,
            error,
            seconds,
            recipe=recipe,
            manifest=self.manifest,
            data_samples=max(
                self._samples(run) for run in runs
            ),  # the larger part holds the smaller
            training_seconds=sum(known) if len(known) == len(spent) else None,
            tick=self.tick,
        ), ""

    def _samples(self, run: Provenance) -> int:
        """Return the number of samples that a training used, for learning and for validation."""
        trained = run.data.train_samples or self.manifest.requested.get("train", 0)
        return trained + (run.data.valid_samples or 0)


def _origin(provenance: Provenance) -> tuple[object, object]:
    return provenance.data.recipe, provenance.data.seed


def _fields_to_solve(
    recipe: Recipe, manifest: Manifest, split: str, comparison: Comparison
) -> SolverProblem:
    """Return the problem of some samples, from inputs on the solver's own grid if drawing them again
    gives the stored ones."""
    some = comparison.first(TIMED_SOLVES)
    fine = recipe.grid(recipe.solver_resolution)
    drawn = recipe.draw(streams(manifest, split, range(len(some.inputs))))
    stored = some.inputs.double()
    again = restricted(drawn, fine, some.grid)
    same = torch.allclose(again, stored, rtol=1e-5, atol=1e-5 * float(stored.abs().max()))
    inputs = drawn if same else stored
    source = fine if same else some.grid
    return SolverProblem(
        recipe, inputs, source, some.grid, lambda u: replace(some, predictions=u).errors()
    )


def _trajectories_to_solve(recipe: Any, rollouts: Rollouts) -> SolverProblem:
    """Return the problem of some trajectories of an ``Evolving`` recipe, from the last frame that the
    surrogate was given."""
    frames = len(rollouts.times)
    some = rollouts.first(TIMED_SOLVES)
    longer = recipe.continued(frames, rollouts.surrogate.in_time.stride)

    def error(u: Float[Tensor, "sample channels *space"]) -> Float[Tensor, " sample"]:
        found = u.unflatten(1, (-1, some.targets.shape[2]))[:, :frames]
        return some.whole_error(found)

    return SolverProblem(longer, some.start.double(), some.grid, some.grid, error)


def _save(evaluation: Evaluation, out: Path) -> None:
    """Write the report, the JSON and the figures for slides."""
    out.mkdir(parents=True, exist_ok=True)
    found = evaluation.to_json()
    text = json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False)
    with replacing(out / "evaluation.json") as part:
        part.write_text(text + "\n", encoding="utf-8")
    figures = report.figures(evaluation)
    for name, figure in figures.items():
        if name in ("spectra", "training") or name.startswith("fields-"):
            plots.save(figure, out / f"{name.replace('spectra', 'spectrum')}.png")
    with replacing(out / "report.html") as part:
        part.write_text(report.render(evaluation, found, figures), encoding="utf-8")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show a line that says what is being done, on a terminal."""
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
