"""The figures of an evaluation. Nothing here touches matplotlib's global state."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from torch import Tensor

from sobolev.certification.certificates import Effectivity
from sobolev.evaluation.break_even import BreakEven
from sobolev.evaluation.comparison import Comparison
from sobolev.evaluation.rollouts import Rollouts
from sobolev.grids import Grid, SphereGrid, energy_spectrum
from sobolev.grids.drawing import (
    ERROR,
    PREDICTION,
    TRUTH,
    Scale,
    draw_field,
    flat_grid,
    label_of,
    name_row,
    wrap,
)
from sobolev.grids.variables import Variable
from sobolev.surrogates import Surrogate

Sizes = tuple[int, ...]
"""Nodes per axis."""
_PALE = "#8c8c8c"
_WIDE = 20
"""Ratio of the largest to the least value from which on an axis is logarithmic."""
_SPECTRA = ((TRUTH, "-"), (PREDICTION, "--"), (ERROR, "-"))
"""Colour and line of truth, prediction and error."""


def save(figure: Figure, path: Path) -> None:
    """Write a PNG."""
    figure.savefig(path, dpi=120)
    figure.set_layout_engine("none")  # found once, the layout holds for whatever else is written


def fields(comparison: Comparison, surrogate: Surrogate) -> Figure:
    """Draw input, truth, prediction and error of the sample of median error and of the worst one.

    Each output has a row, beside the input of its number or the last. Of more than three outputs the
    first, the middle and the last are drawn. A volume is cut in the middle of its first axis.
    """
    errors = comparison.errors()
    sizes = " × ".join(map(str, comparison.grid.shape))
    comparison, cut = _section(comparison)
    order = errors.argsort()
    picked = {"median": int(order[len(order) // 2]), "worst": int(order[-1])}
    count = len(surrogate.outputs)
    shown = sorted({0, count // 2, count - 1})
    rows = [(label, sample, i) for label, sample in picked.items() for i in shown]
    height = 1.8 if isinstance(comparison.grid, SphereGrid) else 3.1  # maps of a sphere are 2 : 1
    figure = Figure(figsize=(12.5, height * len(rows)), layout="constrained")
    draw = _draw_lines if comparison.grid.ndim == 1 else _draw_maps
    panels = figure.subplots(len(rows), 3 if comparison.grid.ndim == 1 else 4, squeeze=False)
    for row, (label, sample, i) in zip(panels, rows, strict=True):
        draw(list(row), comparison, surrogate, sample, i)
        name = f"{label} of {len(errors)}:\nrelative L² {float(errors[sample]):.4f}"
        if isinstance(comparison.grid, SphereGrid):  # its panels have no axes to label
            name_row(row[0], name, comparison.grid)
        else:
            row[0].set_ylabel(name, fontsize=9)
    what = surrogate.outputs[0].long_name if count == 1 else f"{len(shown)} of {count} outputs"
    figure.suptitle(
        f"{what} at {sizes} nodes{cut}", parse_math=False
    )  # a stranger's name is no formula
    return figure


def spectra(comparisons: Mapping[Sizes, Comparison]) -> Figure:
    """Draw the mean energy spectrum of truth, prediction and error at each resolution, in
    ``surrogate.comparable`` units; the mean over channels."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    low = 1.0
    for i, (_, c) in enumerate(sorted(comparisons.items())):
        prediction, target = c.comparable()
        shade = 0.35 + 0.65 * (i + 1) / len(comparisons)
        fields = {"truth": target, "prediction": prediction, "error": prediction - target}
        for (name, u), (colour, style) in zip(fields.items(), _SPECTRA, strict=True):
            k, energy = energy_spectrum(u, c.grid)
            mean = energy.mean(dim=(0, 1))
            low = float(mean.max()) * 1e-16 if name == "truth" else low
            axes.loglog(
                k[1:],
                mean[1:].clamp(min=1e-30),
                style,
                color=colour,
                alpha=shade,
                lw=1.2,
                label=f"{name}, {c.label}",
            )
    axes.set(
        xlabel="wavenumber",
        ylabel="energy per shell",
        title="Energy spectrum of truth, prediction and error",
        ylim=(low, None),
    )
    figure.legend(loc="outside lower center", fontsize=8, ncols=len(comparisons), frameon=False)
    return figure


def training_curve(run: Path) -> Figure:
    """Draw training loss and validation error by epoch, from the run's ``metrics*.csv``, of which there
    is one per start."""
    rows: list[dict[str, str]] = []
    for file in sorted(run.glob("metrics*.csv")):  # metrics-000.csv … before metrics.csv
        with file.open() as handle:
            later = list(csv.DictReader(handle))
        first = min((int(row["epoch"]) for row in later), default=0)
        rows = [row for row in rows if int(row["epoch"]) < first] + later
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    curves = (
        ("train/loss", TRUTH, "training loss"),
        ("valid/relative_l2", PREDICTION, "validation, relative L²"),
    )
    for column, colour, label in curves:
        points = [(int(row["epoch"]) + 1, float(row[column])) for row in rows if row.get(column)]
        axes.semilogy(*zip(*points, strict=True), color=colour, lw=1.2, label=label)
    axes.set(xlabel="epoch", title="Training")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    return figure


def error_histogram(comparisons: Mapping[Sizes, Comparison]) -> Figure:
    """Draw the distribution of the samples' relative L² errors at each resolution."""
    figure, axes = _plot()
    errors = {n: c.errors().numpy() for n, c in sorted(comparisons.items())}
    errors = {n: e[np.isfinite(e) & (e > 0)] for n, e in errors.items()}
    finite = np.concatenate(list(errors.values()))
    low, high = (finite.min(), finite.max()) if len(finite) else (0.1, 1.0)
    wide = high > _WIDE * low
    edges = (
        np.geomspace(low / 1.05, high * 1.05, 31)
        if wide
        else np.linspace(0.95 * low, 1.05 * high, 31)
    )
    for i, (sizes, values) in enumerate(errors.items()):
        shade = 0.35 + 0.65 * (i + 1) / len(errors)
        axes.hist(
            values,
            edges.tolist(),
            histtype="step",
            color=PREDICTION,
            alpha=shade,
            label=comparisons[sizes].label,
        )
        if len(values):
            axes.axvline(float(np.mean(values)), color=PREDICTION, alpha=shade, lw=0.8, ls=":")
    axes.set(
        xscale="log" if wide else "linear", xlabel="relative L² error of a sample", ylabel="samples"
    )
    axes.legend(title="nodes (dotted: mean)", **_LEGEND)
    return _tidied(figure)


def error_over_resolution(
    comparisons: Mapping[Sizes, Comparison], solver: Mapping[Sizes, float], trained_at: Sizes
) -> Figure:
    """Draw the mean relative L² error and its 10th to 90th percentile over nodes per axis, with the
    errors of the classical solver on the same grids where they are known."""
    figure, axes = _plot()
    sizes = sorted(comparisons)
    nodes = [_per_axis(n) for n in sizes]
    errors = [comparisons[n].errors() for n in sizes]
    low, high = ([float(e.quantile(q)) for e in errors] for q in (0.1, 0.9))
    axes.fill_between(nodes, low, high, color=PREDICTION, alpha=0.15, lw=0)
    means = [float(e.mean()) for e in errors]
    axes.plot(nodes, means, "o-", color=PREDICTION, lw=1.2, ms=4, label="surrogate")
    if known := {_per_axis(n): e for n, e in sorted(solver.items()) if e > 0}:
        axes.plot(*zip(*known.items(), strict=True), "s--", color=TRUTH, lw=1, ms=3, label="solver")
    if trained_at in sizes:
        axes.axvline(_per_axis(trained_at), color=_PALE, lw=0.8, ls=":", label="trained at")
    axes.set(xscale="log", xlabel="nodes per axis", ylabel="relative L² error")
    _scale(axes, [*low, *high, *known.values()])
    axes.set_xticks(nodes, [comparisons[n].label for n in sizes])
    axes.set_xticks([], minor=True)
    axes.legend(**_LEGEND)
    return _tidied(figure)


def _per_axis(sizes: Sizes) -> float:
    """Return the geometric mean of the nodes per axis, to draw over."""
    return math.prod(sizes) ** (1 / len(sizes))


def binned_errors(comparisons: Mapping[Sizes, Comparison]) -> Figure:
    """Draw the share of the mean square error up to each wavenumber."""
    figure, axes = _plot()
    for i, (_, c) in enumerate(sorted(comparisons.items())):
        k, bins, _ = c.spectral_error()
        shade = 0.35 + 0.65 * (i + 1) / len(comparisons)
        share = bins.cumsum(0) / bins.sum()
        axes.plot(k[1:], share[1:], color=ERROR, alpha=shade, lw=1.2, label=c.label)
    axes.set(
        xscale="log",
        ylim=(0, 1.02),
        xlabel="wavenumber",
        ylabel="share of the squared error up to it",
    )
    axes.legend(title="nodes", **_LEGEND)
    return _tidied(figure)


def error_over_time(rollouts: Rollouts) -> Figure:
    """Draw the relative L² error of each predicted frame: mean, median and 10th to 90th percentile over
    the trajectories, beside persistence."""
    figure, axes = _plot()
    found = rollouts.summary()
    times = found["times"]
    errors = found["relative_l2"]
    low, high = (_plottable(errors[name]) for name in ("p10", "p90"))
    axes.fill_between(times, low, high, color=PREDICTION, alpha=0.15, lw=0, label="10 to 90 %")
    axes.plot(times, _plottable(errors["median"]), color=PREDICTION, lw=1.2, label="median")
    axes.plot(times, _plottable(errors["mean"]), color=PREDICTION, lw=1, ls="--", label="mean")
    persistence = _plottable(found["persistence_relative_l2"])
    axes.plot(times, persistence, color=_PALE, lw=1, ls=":", label="last given frame kept")
    axes.set(xlabel=_time(rollouts), ylabel="relative L² error of the frame")
    _scale(axes, np.concatenate([low, high, persistence]))
    axes.legend(**_LEGEND)
    return _tidied(figure)


def drift(rollouts: Rollouts) -> Figure:
    """Draw the departure of each quantity's mean over the domain from that of the last given frame,
    beside the solver's."""
    quantities = rollouts.surrogate.quantities
    figure = Figure(figsize=(3.6 * len(quantities) + 1.6, 3.1), layout="constrained")
    panels = figure.subplots(1, len(quantities), squeeze=False)[0]
    parts = (
        ("surrogate", PREDICTION, rollouts.predictions), ("solver", TRUTH, rollouts.targets),
    )  # fmt: skip
    for name, colour, trajectories in parts:
        values = rollouts.drift(trajectories).mean(0)
        for axes, variable, column in zip(panels, quantities, values.T, strict=True):
            axes.plot(rollouts.times, _plottable(column), color=colour, lw=1.2, label=name)
            axes.set_title(label_of(variable), fontsize=9)
            axes.set_yscale("log" if float(column.abs().max()) else "linear")
            axes.set_xlabel(_time(rollouts))
    panels[0].set_ylabel("mean over trajectories of |⟨u(t)⟩ − ⟨u(0)⟩|", fontsize=8)
    panels[0].legend(**_LEGEND)
    return _tidied(figure)


def last_spectra(rollouts: Rollouts) -> Figure:
    """Draw energy spectra of truth, prediction and error in the last frame, a panel for each quantity."""
    quantities = rollouts.surrogate.quantities
    figure = Figure(figsize=(3.6 * len(quantities) + 1.6, 3.4), layout="constrained")
    panels = figure.subplots(1, len(quantities), squeeze=False)[0]
    k, energies = rollouts.last_spectra()
    for (name, energy), (colour, style) in zip(energies.items(), _SPECTRA, strict=True):
        for axes, variable, values in zip(panels, quantities, energy, strict=True):
            shown = values[1:].clamp(min=1e-30)
            axes.loglog(k[1:], shown, style, color=colour, lw=1.2, label=name)
            axes.set_title(label_of(variable), fontsize=9)
            axes.set_xlabel("wavenumber")
            if name == "truth":
                axes.set_ylim(float(values.max()) * 1e-12, None)
    panels[0].set_ylabel("energy per shell")
    panels[0].legend(**_LEGEND)
    return _tidied(figure)


def filmstrip(rollouts: Rollouts, quantity: int = 0) -> Figure:
    """Draw truth, prediction and error of the trajectory of median error at five times; on a line, the
    three over position and time. A volume is cut in the middle of its first axis."""
    order = rollouts.whole_error().nan_to_num(nan=float("inf")).argsort()
    sample = int(order[len(order) // 2])
    truth, prediction = (
        _plottable(u[sample, :, quantity]) for u in (rollouts.targets, rollouts.predictions)
    )
    rows = {"solver": truth, "surrogate": prediction, "surrogate − solver": prediction - truth}
    bound = float(np.nan_to_num(np.abs(rows["surrogate − solver"])).max())
    bound = max(bound, 1e-30)
    scale = Scale.of(truth)
    errors = Scale(-bound, bound, "diverging")
    scales = dict(zip(rows, (scale, scale, errors), strict=True))
    draw = _draw_over_time if rollouts.grid.ndim == 1 else _draw_strip
    figure = draw(rollouts, rows, scales)
    title = (
        f"{rollouts.surrogate.quantities[quantity].long_name}, trajectory {sample} (median error)"
    )
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure


def bounds(found: Effectivity) -> Figure:
    """Draw bounds over true errors, with the diagonal."""
    figure, axes = _plot()
    bound = _plottable(found.bound)
    error = _plottable(found.error)
    axes.plot(error, bound, "o", color=PREDICTION, ms=3, alpha=0.6, mew=0)
    known = np.concatenate([bound, error])
    known = known[np.isfinite(known) & (known > 0)]
    ends = [0.8 * known.min(), 1.25 * known.max()] if len(known) else [0.1, 1.0]
    axes.plot(ends, ends, color=TRUTH, lw=0.8, ls=":", label="bound = error")
    axes.set(xscale="log", yscale="log", xlabel="true relative error", ylabel="bound")
    axes.legend(**_LEGEND)
    return _tidied(figure)


def effectivities(found: Effectivity) -> Figure:
    """Draw the distribution of bound over true error."""
    figure, axes = _plot()
    values = _plottable(found.ratio)
    values = values[np.isfinite(values)]
    axes.hist(values, 30, histtype="stepfilled", color=PREDICTION, alpha=0.4)
    axes.axvline(1.0, color=TRUTH, lw=0.8, ls=":", label="1: sharp")
    if len(values):
        middle = float(np.median(values))
        axes.axvline(middle, color=PREDICTION, lw=1, label=f"median {middle:.3g}")
    axes.set(xlabel="effectivity: bound / true error", ylabel="samples")
    axes.legend(**_LEGEND)
    return _tidied(figure)


def work_and_precision(paid: BreakEven) -> Figure:
    """Draw error over time per field, of every solve that was tried and of the surrogate."""
    figure, axes = _plot()
    points = [
        (s.seconds_per_field, s.relative_l2)
        for s in paid.tried
        if s.seconds_per_field is not None and s.relative_l2 is not None
    ]
    if points:
        axes.plot(*zip(*points, strict=True), "o", color=_PALE, ms=4, label="solver, as tried")
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
    axes.legend(**_LEGEND)
    return _tidied(figure)


def total_cost(paid: BreakEven) -> Figure:
    """Draw the seconds spent on so many fields with the surrogate, its data and training included, and
    with the solver."""
    figure, axes = _plot()
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
        axes.axvline(paid.fields, color=_PALE, lw=0.8, ls=":", label=f"N*: {paid.verdict}")
    axes.set(xscale="log", yscale="log", xlabel="fields", ylabel="seconds in all")
    axes.legend(**_LEGEND)
    return _tidied(figure)


def _plot() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    return figure, figure.subplots()


def _scale(axes: Axes, values: Sequence[float] | np.ndarray) -> None:
    """Make the y axis logarithmic where it has several decades to show, else begin it at 0."""
    shown = np.asarray(values, dtype=float)
    shown = shown[np.isfinite(shown) & (shown > 0)]
    if len(shown) and shown.max() > _WIDE * shown.min():
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, None)


def _tidied(figure: Figure) -> Figure:
    for axes in figure.axes:
        axes.grid(alpha=0.25, lw=0.5)
        axes.tick_params(which="both", labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_fontsize(8)
    return figure


_LEGEND: dict[str, Any] = {"fontsize": 7, "title_fontsize": 7, "frameon": False}


def _plottable(values: Sequence[float] | Float[Tensor, " ..."]) -> np.ndarray:
    """Return values with gaps where they are not finite."""
    array = np.asarray(values, dtype=float)
    return np.where(np.isfinite(array), array, np.nan)


def _time(rollouts: Rollouts) -> str:
    return label_of(Variable("time", "time since the last given frame", rollouts.time_units))


def _draw_strip(
    rollouts: Rollouts, rows: Mapping[str, np.ndarray], scales: Mapping[str, Scale]
) -> Figure:
    """Draw maps at five of the times, a row for each of ``rows``."""
    grid = rollouts.grid
    count = len(rollouts.times)
    picked = sorted({round(i * (count - 1) / 4) for i in range(5)})
    if grid.ndim == 3:
        first, *others = flat_grid(grid).axes
        rows = {name: u[:, first.size // 2] for name, u in rows.items()}
        grid = Grid(*others)
    size = (2.3 * len(picked) + 0.8, (1.3 if isinstance(grid, SphereGrid) else 2.2) * 3 + 0.4)
    figure = Figure(figsize=size, layout="compressed")
    panels = figure.subplots(3, len(picked), squeeze=False)
    for (name, frames), line in zip(rows.items(), panels, strict=True):
        for i, axes in zip(picked, line, strict=True):
            draw_field(axes, frames[i], grid, scales[name])
            axes.set(xticks=[], yticks=[])
            if name == "solver":
                axes.set_title(f"t = {rollouts.times[i]:.4g}", fontsize=8)
        if isinstance(grid, SphereGrid):  # its panels have no axes to label
            name_row(line[0], name, grid)
        else:
            line[0].set_ylabel(name, fontsize=8)
        bar = figure.colorbar(ScalarMappable(**scales[name].colours), ax=line, pad=0.01)
        bar.ax.tick_params(labelsize=7)
        bar.ax.yaxis.get_offset_text().set_fontsize(7)
    return figure


def _draw_over_time(
    rollouts: Rollouts, rows: Mapping[str, np.ndarray], scales: Mapping[str, Scale]
) -> Figure:
    """Draw three maps over position and time."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    x = rollouts.grid.points()[0]
    for (name, frames), axes in zip(rows.items(), panels, strict=True):
        mesh = axes.pcolormesh(x, rollouts.times, frames, rasterized=True, **scales[name].colours)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(rollouts.grid.dims[0], fontsize=8)
        figure.colorbar(mesh, ax=axes).ax.tick_params(labelsize=7)
    panels[0].set_ylabel(_time(rollouts), fontsize=8)
    return figure


def _section(c: Comparison) -> tuple[Comparison, str]:
    """Return the middle slice of a volume, and words that say which; lines and maps as they are."""
    if c.grid.ndim < 3:
        return c, ""
    first, *others = flat_grid(c.grid).axes
    middle = first.size // 2
    inputs, targets, predictions = (u[:, :, middle] for u in (c.inputs, c.targets, c.predictions))
    plane = replace(c, grid=Grid(*others), inputs=inputs, targets=targets, predictions=predictions)
    return plane, f", cut at {first.name} = {float(first.points()[middle]):.4g}"


def _drawn(
    c: Comparison, surrogate: Surrogate, sample: int, output: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, str, str]:
    """Return input, truth and prediction, and the names of the input and the output."""
    i = min(output, len(surrogate.inputs) - 1)
    if surrogate.window is not None:  # the present frame, which is the last
        quantities = len(surrogate.quantities)
        i = len(surrogate.inputs) - quantities + output % quantities
    return (
        c.inputs[sample, i].cpu().numpy(),
        c.targets[sample, output].cpu().numpy(),
        c.predictions[sample, output].cpu().numpy(),
        "\n".join(wrap(surrogate.inputs[i].long_name, 34)),
        "\n".join(wrap(surrogate.outputs[output].long_name, 34)),
    )


def _draw_lines(
    row: list[Axes], c: Comparison, surrogate: Surrogate, sample: int, output: int
) -> None:
    x = c.grid.points()[0]
    source, truth, prediction, given, asked = _drawn(c, surrogate, sample, output)
    row[0].plot(x, source, color=TRUTH, lw=1)
    row[0].set_title(given, parse_math=False)
    row[1].plot(x, truth, color=TRUTH, lw=2, label="solver")
    row[1].plot(x, prediction, color=PREDICTION, lw=1.2, ls="--", label="surrogate")
    row[1].set_title(asked, parse_math=False)
    row[1].legend(fontsize=8)
    row[2].plot(x, prediction - truth, color=ERROR, lw=1)
    row[2].set_title("surrogate − solver")
    for axes in row:
        axes.set_xlabel(c.grid.dims[0])


def _draw_maps(
    row: list[Axes], c: Comparison, surrogate: Surrogate, sample: int, output: int
) -> None:
    source, truth, prediction, given, asked = _drawn(c, surrogate, sample, output)
    error = prediction - truth
    bound = max(float(abs(error).max()), 1e-30)
    panels = (
        (source, given, Scale.of(source)),
        (truth, f"{asked}\nsolver" if len(surrogate.outputs) > 1 else "solver", Scale.of(truth)),
        (prediction, "surrogate", Scale.of(truth)),
        (error, "surrogate − solver", Scale(-bound, bound, "diverging")),
    )
    for axes, (field, title, scale) in zip(row, panels, strict=True):
        draw_field(axes, field, c.grid, scale)
        axes.set_title(title, fontsize=10, parse_math=False)
        axes.set(xticks=[], yticks=[])
        shrink = 0.4 if isinstance(c.grid, SphereGrid) else 0.85
        axes.figure.colorbar(ScalarMappable(**scale.colours), ax=axes, shrink=shrink)
