"""Figures of a data set: samples, trajectories, animations, spectra and statistics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sobolev.datasets.statistics import Spectra, Statistics, node_weights
from sobolev.datasets.views import View, summary
from sobolev.grids import SphereGrid
from sobolev.grids.drawing import (
    BLUE,
    INK,
    Scale,
    draw_field,
    label_map,
    label_of,
    name_row,
    panels_of,
    redraw_field,
    save_gif,
    save_mp4,
    tidy,
    with_units,
    wrap,
)
from sobolev.grids.variables import Variable

_TIMES = ("#9ecae1", "#4292c6", "#08306b")  # first, middle and last frame
_STRIP = 5  # frames of a trajectory drawn side by side
_FRAMES = 60  # of an animation
_NODES = 256  # per axis of an animation


def samples_drawn(view: View, variables: list[Variable]) -> Figure:
    """Draw a row per variable, a column per sample."""
    figure, panels = panels_of(view.grid, len(variables), len(view.samples))
    for row, variable in zip(panels, variables, strict=True):
        fields = view.read(variable, view.samples)
        scale = Scale.of(fields)
        for axes, field in zip(row, fields, strict=True):
            draw_field(axes, field, view.grid, scale)
        if view.grid.ndim == 1:
            row[0].set_ylabel("\n".join(wrap(label_of(variable), 28)), fontsize=8)
        else:
            scale.bar(figure, row, label_of(variable))
    for axes, sample in zip(panels[0], view.samples, strict=True):
        axes.set_title(f"sample {sample}{view.where}", fontsize=8)
    return figure


def strip(view: View, variable: Variable) -> Figure:
    """Draw a row per sample, a column per time."""
    frames = view.frames(_STRIP)
    figure, panels = panels_of(view.grid, len(view.samples), len(frames))
    fields = view.read(variable, view.samples, frames)
    scale = Scale.of(fields)
    for row, trajectory, sample in zip(panels, fields, view.samples, strict=True):
        for axes, field in zip(row, trajectory, strict=True):
            draw_field(axes, field, view.grid, scale)
        name_row(row[0], f"sample {sample}{view.where}", view.grid)
    for axes, frame in zip(panels[0], frames, strict=True):
        axes.set_title(view.time(frame), fontsize=8)
    scale.bar(figure, panels, label_of(variable))
    return figure


def space_time(view: View, variable: Variable) -> Figure:
    """Draw a panel per sample: x to the right, time upwards."""
    frames = view.frames(8 * _FRAMES)
    fields = view.read(variable, view.samples, frames)
    scale = Scale.of(fields)
    (points,) = view.grid.points()
    times, units = view.clock
    figure = Figure(figsize=(1 + 2.2 * len(view.samples), 3), layout="constrained")
    panels = figure.subplots(1, len(view.samples), sharex=True, sharey=True, squeeze=False)
    for axes, field, sample in zip(panels[0], fields, view.samples, strict=True):
        axes.pcolormesh(points.numpy(), times[frames], field, shading="nearest", **scale.colours)
        axes.set_title(f"sample {sample}{view.where}", fontsize=8)
        axes.set_xlabel(f"${view.grid.dims[0]}$", fontsize=8)
        axes.tick_params(labelsize=7)
    panels[0, 0].set_ylabel(with_units("$t$", units), fontsize=8)
    scale.bar(figure, panels[0], label_of(variable))
    return figure


def animated(view: View, variable: Variable, file: Path) -> Path:
    """Draw the trajectories side by side, frame by frame."""
    frames = view.frames(_FRAMES)
    step = -(-max(view.grid.shape) // _NODES)
    fields = view.read(variable, view.samples, frames, step=step)
    grid = view.grid
    scale = Scale.of(fields)
    figure, panels = panels_of(grid, 1, len(view.samples), heading=0.35)
    artists = [
        draw_field(axes, field[0], grid, scale, step=step)
        for axes, field in zip(panels[0], fields, strict=True)
    ]
    for axes, sample in zip(panels[0], view.samples, strict=True):
        axes.set_title(f"sample {sample}{view.where}", fontsize=8)
    title = figure.suptitle(view.time(frames[-1]), fontsize=9)
    if grid.ndim == 2:
        scale.bar(figure, panels[0], label_of(variable))
    else:
        panels[0, 0].set_ylabel(label_of(variable), fontsize=8)
        low = float(fields.min())
        high = float(fields.max())
        room = 0.05 * (high - low) or 1.0
        panels[0, 0].set_ylim(low - room, high + room)

    def pictures() -> Iterator[None]:
        for frame, number in enumerate(frames):
            for artist, field in zip(artists, fields[:, frame], strict=True):
                redraw_field(artist, field, grid, step=step)
            title.set_text(view.time(number))
            yield

    save = save_gif if file.suffix == ".gif" else save_mp4
    save(file, figure, pictures(), min(15, max(4, len(frames) // 6)), scale.map)
    return file


def spectra_drawn(view: View) -> Figure:
    """Draw a panel per variable; for trajectories at the first, middle and last time."""
    columns = len(view.variables)
    figure = Figure(figsize=(3.4 * columns, 3.0), layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for axes, variable in zip(panels, view.variables, strict=True):
        fields, names = view.census(variable)
        # where fields fill a part of their box, the modes are those of fields that go on as zero
        spectra = Spectra.of(np.nan_to_num(fields), view.grid)
        count = len(fields)
        _draw_spectra(axes, spectra, names, by_degree=isinstance(view.grid, SphereGrid))
        axes.set_title("\n".join(wrap(label_of(variable), 44)), fontsize=8)
    panels[0].set_ylabel("squared L² norm per shell", fontsize=8)
    what = "mean and range over " if count > 1 else ""
    figure.suptitle(f"{view.split}: {what}{_count(count)}", fontsize=8)
    return figure


def _draw_spectra(axes: Axes, spectra: Spectra, names: list[str], *, by_degree: bool) -> None:
    """Draw the mean over the samples as a line and their range as a band, for each frame.

    The mean of the fields, whose wavenumber is 0, is left out.
    """
    k = spectra.wavenumbers
    cutoff = spectra.cutoff
    if by_degree:
        k = np.arange(len(k))
        cutoff = len(k) - 1.0
    shown = spectra.energy[..., 1:]
    resolved = k[1:] <= cutoff * (1 + 1e-9)
    for frame, (name, colour) in enumerate(zip(names, _TIMES[-len(names) :], strict=True)):
        energy = shown[:, frame]
        if not energy.any():  # of a field that is constant at first; its logarithm cannot be drawn
            continue
        axes.loglog(k[1:], energy.mean(axis=0), color=colour, lw=1.3, label=name)
        axes.fill_between(
            k[1:], energy.min(axis=0), energy.max(axis=0), color=colour, alpha=0.2, lw=0
        )
    axes.axvline(cutoff, color=INK, lw=0.8, ls=":", zorder=0)
    axes.annotate(
        "grid cutoff", (cutoff, 0.98), xycoords=("data", "axes fraction"), rotation=90,
        xytext=(-2, 0), textcoords="offset points", ha="right", va="top", fontsize=6.5, color=INK,
    )  # fmt: skip
    means = shown.mean(axis=0)[:, resolved]
    if means.any():
        top = float(shown.max())
        bottom = float(means[means > 0].min())
        axes.set_ylim(max(bottom / 30, 1e-20 * top), 5 * top)
    axes.set_xlabel("degree $l$" if by_degree else "wavenumber", fontsize=8)
    tidy(axes)
    if names != [""]:
        axes.legend(fontsize=7, frameon=False, loc="lower left")


def statistics_drawn(view: View, found: dict[str, Statistics]) -> Figure:
    """Draw a row per variable: distribution, then moments over time or space."""
    grid = view.flat().grid
    still_maps = grid.ndim == 2 and not all(view.is_trajectory(v) for v in view.variables)
    columns = 3 if still_maps else 2
    size = (3.1 * columns, 2.5 * len(view.variables) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(view.variables), columns, squeeze=False)
    for row, variable in zip(panels, view.variables, strict=True):
        _histogram(row[0], view, variable)
        moments = found[variable.name]
        if view.is_trajectory(variable) or view.grid.ndim == 1:
            _moment_lines(row[1], view, variable, moments)
            for axes in row[2:]:
                axes.remove()
            continue
        pair = {"mean": moments.mean, "standard deviation": np.sqrt(moments.variance)}
        shrink = 0.5 if isinstance(view.grid, SphereGrid) else 0.9
        for axes, (name, moment) in zip(row[1:], pair.items(), strict=True):
            shown = moment if moment.ndim == grid.ndim else moment[len(moment) // 2]
            scale = Scale.of(shown)
            draw_field(axes, shown, grid, scale)
            scale.bar(figure, np.array([axes]), name, shrink=shrink)
            label_map(axes, grid)
    figure.suptitle("\n".join(wrap(summary(view), 48 * columns)), fontsize=8)
    return figure


def _histogram(axes: Axes, view: View, variable: Variable) -> None:
    fields, names = view.census(variable)
    scale = Scale.of(fields)
    low = float(np.nanmin(fields))  # gaps are outside the domain
    high = float(np.nanmax(fields))
    space = np.geomspace if scale.kind == "logarithmic" else np.linspace
    edges = space(low, high if high > low else low + 1, 81)
    weights = np.broadcast_to(node_weights(view.grid), fields[:, 0].shape)
    for frame, (name, colour) in enumerate(zip(names, _TIMES[-len(names) :], strict=True)):
        there = np.isfinite(fields[:, frame])
        values = fields[:, frame][there]
        density, _ = np.histogram(values, edges, weights=weights[there], density=True)
        axes.stairs(density, edges, color=colour, lw=1.1, label=name)
        if density.max() > 10 * density[density > 0].min():  # two phases are two bars from 0
            axes.set_yscale("log")
    if scale.kind == "logarithmic":
        axes.set_xscale("log")
    else:
        axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("\n".join(wrap(label_of(variable), 40)), fontsize=8)
    axes.set_ylabel("probability density", fontsize=8)
    axes.set_title(_count(len(fields)), fontsize=8)
    tidy(axes)
    if names != [""]:
        axes.legend(fontsize=7, frameon=False)


def _moment_lines(axes: Axes, view: View, variable: Variable, moments: Statistics) -> None:
    """Draw mean and standard deviation over time, or over the nodes in 1-D."""
    if view.is_trajectory(variable):
        at, units = view.clock
        name = with_units("$t$", units)
    else:
        at = view.grid.points()[0].numpy()
        name = f"${view.grid.dims[0]}$"
    mean = moments.mean.ravel()
    deviation = np.sqrt(moments.variance).ravel()
    axes.fill_between(at, mean - deviation, mean + deviation, color=BLUE, alpha=0.2, lw=0)
    axes.plot(at, mean, color=BLUE, lw=1.2)
    axes.set_title("mean ± standard deviation", fontsize=8)
    axes.set_xlabel(name, fontsize=8)
    axes.margins(x=0)
    tidy(axes)


def _count(samples: int) -> str:
    return f"{samples} samples" if samples > 1 else "one sample"
