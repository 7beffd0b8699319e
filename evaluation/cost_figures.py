"""Figures of certificates and costs."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from sobolev.certification.certificates import Effectivity
from sobolev.evaluation.break_even import BreakEven
from sobolev.evaluation.figure_look import LEGEND, PALE, plot, plottable, tidied
from sobolev.grids.drawing import PREDICTION, TRUTH


def bounds(found: Effectivity) -> Figure:
    """Draw bounds over true errors, with the diagonal."""
    figure, axes = plot()
    bound = plottable(found.bound)
    error = plottable(found.error)
    axes.plot(error, bound, "o", color=PREDICTION, ms=3, alpha=0.6, mew=0)
    known = np.concatenate([bound, error])
    known = known[np.isfinite(known) & (known > 0)]
    ends = [0.8 * known.min(), 1.25 * known.max()] if len(known) else [0.1, 1.0]
    axes.plot(ends, ends, color=TRUTH, lw=0.8, ls=":", label="bound = error")
    axes.set(xscale="log", yscale="log", xlabel="true relative error", ylabel="bound")
    axes.legend(**LEGEND)
    return tidied(figure)


def effectivities(found: Effectivity) -> Figure:
    """Draw the distribution of bound over true error."""
    figure, axes = plot()
    values = plottable(found.ratio)
    values = values[np.isfinite(values)]
    axes.hist(values, 30, histtype="stepfilled", color=PREDICTION, alpha=0.4)
    axes.axvline(1.0, color=TRUTH, lw=0.8, ls=":", label="1: sharp")
    if len(values):
        middle = float(np.median(values))
        axes.axvline(middle, color=PREDICTION, lw=1, label=f"median {middle:.3g}")
    axes.set(xlabel="effectivity: bound / true error", ylabel="samples")
    axes.legend(**LEGEND)
    return tidied(figure)


def work_and_precision(paid: BreakEven) -> Figure:
    """Draw error over time per field, of every solve that was tried and of the surrogate."""
    figure, axes = plot()
    points = [
        (s.seconds_per_field, s.relative_l2)
        for s in paid.tried
        if s.seconds_per_field is not None and s.relative_l2 is not None
    ]
    if points:
        axes.plot(*zip(*points, strict=True), "o", color=PALE, ms=4, label="solver, as tried")
    if not paid.solver_is_reference and paid.solver.seconds_per_field and paid.solver.relative_l2:
        axes.plot(
            paid.solver.seconds_per_field, paid.solver.relative_l2, "o", color=TRUTH, ms=6,
            label="cheapest that is as accurate",
        )  # fmt: skip
    axes.plot(
        paid.seconds_per_field, paid.relative_l2, "*", color=PREDICTION, ms=12, label="surrogate"
    )
    axes.axhline(paid.relative_l2, color=PREDICTION, lw=0.8, ls=":")
    axes.set(xscale="log", yscale="log", xlabel="seconds per field", ylabel="relative L² error")
    axes.legend(**LEGEND)
    return tidied(figure)


def total_cost(paid: BreakEven) -> Figure:
    """Draw the seconds spent on so many fields with the surrogate, its data and training included, and
    with the solver."""
    figure, axes = plot()
    fixed = paid.data_seconds + (paid.training_seconds or 0.0)
    solver = paid.solver.seconds_per_field or 0.0
    reach = 100 * max(paid.fields or 0.0, fixed / max(solver, 1e-12), 1e3)
    fields = np.geomspace(1, reach, 200)
    axes.plot(fields, solver * fields, color=TRUTH, lw=1.2, label="solver of equal error")
    axes.plot(
        fields,
        fixed + paid.seconds_per_field * fields,
        color=PREDICTION,
        lw=1.2,
        label="surrogate",
    )
    if paid.fields is not None:
        axes.axvline(paid.fields, color=PALE, lw=0.8, ls=":", label=f"N*: {paid.verdict}")
    axes.set(xscale="log", yscale="log", xlabel="fields", ylabel="seconds in all")
    axes.legend(**LEGEND)
    return tidied(figure)
