"""Figures of rollouts: errors, drifts and fields over time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from sobolev.evaluation.figure_look import (
    LEGEND,
    PALE,
    SPECTRA,
    plot,
    plottable,
    ranked,
    scale_values,
    tidied,
)
from sobolev.evaluation.rollouts import Rollouts
from sobolev.grids import Grid, SphereGrid
from sobolev.grids.drawing import (
    PREDICTION,
    TRUTH,
    Scale,
    draw_field,
    drawable_grid,
    label_of,
    name_row,
)
from sobolev.grids.variables import Variable


def error_over_time(rollouts: Rollouts) -> Figure:
    """Draw the relative L² error of each predicted frame: mean, median and 10th to 90th percentile over
    the trajectories, beside persistence."""
    figure, axes = plot()
    found = rollouts.summary()
    times = found["times"]
    errors = found["relative_l2"]
    low, high = (plottable(errors[name]) for name in ("p10", "p90"))
    axes.fill_between(times, low, high, color=PREDICTION, alpha=0.15, lw=0, label="10 to 90 %")
    axes.plot(times, plottable(errors["median"]), color=PREDICTION, lw=1.2, label="median")
    axes.plot(times, plottable(errors["mean"]), color=PREDICTION, lw=1, ls="--", label="mean")
    persistence = plottable(found["persistence_relative_l2"])
    axes.plot(times, persistence, color=PALE, lw=1, ls=":", label="last given frame kept")
    axes.set(xlabel=_time(rollouts), ylabel="relative L² error of the frame")
    scale_values(axes, np.concatenate([low, high, persistence]))
    axes.legend(**LEGEND)
    return tidied(figure)


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
            axes.plot(rollouts.times, plottable(column), color=colour, lw=1.2, label=name)
            axes.set_title(label_of(variable), fontsize=9)
            axes.set_yscale("log" if float(column.abs().max()) else "linear")
            axes.set_xlabel(_time(rollouts))
    panels[0].set_ylabel("mean over trajectories of |⟨u(t)⟩ − ⟨u(0)⟩|", fontsize=8)
    panels[0].legend(**LEGEND)
    return tidied(figure)


def last_spectra(rollouts: Rollouts) -> Figure:
    """Draw energy spectra of truth, prediction and error in the last frame, a panel for each quantity."""
    quantities = rollouts.surrogate.quantities
    figure = Figure(figsize=(3.6 * len(quantities) + 1.6, 3.4), layout="constrained")
    panels = figure.subplots(1, len(quantities), squeeze=False)[0]
    k, energies = rollouts.last_spectra()
    for (name, energy), (colour, style) in zip(energies.items(), SPECTRA, strict=True):
        for axes, variable, values in zip(panels, quantities, energy, strict=True):
            shown = values[1:].clamp(min=1e-30)
            axes.loglog(k[1:], shown, style, color=colour, lw=1.2, label=name)
            axes.set_title(label_of(variable), fontsize=9)
            axes.set_xlabel("wavenumber")
            if name == "truth":
                axes.set_ylim(float(values.max()) * 1e-12, None)
    panels[0].set_ylabel("energy per shell")
    panels[0].legend(**LEGEND)
    return tidied(figure)


def filmstrip(rollouts: Rollouts, quantity: int = 0) -> Figure:
    """Draw truth, prediction and error of the trajectory of median error at five times; on a line, the
    three over position and time. A volume is cut in the middle of its first axis."""
    order = ranked(rollouts.whole_error())
    sample = int(order[len(order) // 2])
    truth, prediction = (
        plottable(u[sample, :, quantity]) for u in (rollouts.targets, rollouts.predictions)
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


def _draw_strip(
    rollouts: Rollouts, rows: Mapping[str, np.ndarray], scales: Mapping[str, Scale]
) -> Figure:
    """Draw maps at five of the times, a row for each of ``rows``."""
    grid = rollouts.grid
    count = len(rollouts.times)
    picked = sorted({round(i * (count - 1) / 4) for i in range(5)})
    if grid.ndim == 3:
        first, *others = drawable_grid(grid).axes
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


def _time(rollouts: Rollouts) -> str:
    return label_of(Variable("time", "time since the last given frame", rollouts.time_units))
