"""Pictures of a data set, as files: samples, animations, spectra and statistics.

Nothing here touches matplotlib's global state. Fields are read as they are drawn and statistics
gathered block by block, so that memory does not grow with the data set.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.animation import FFMpegWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sobolev.datasets.statistics import Spectra, Statistics, good_samples, node_weights
from sobolev.datasets.store.manifest import ERROR, STATUS, Manifest
from sobolev.datasets.store.shards import open_dataset
from sobolev.grids import AbstractGrid, SphereGrid
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
    save_figure,
    save_gif,
    save_mp4,
    tidy,
    with_units,
    wrap,
)
from sobolev.grids.variables import Variable
from sobolev.solvers import SolutionError

_TIMES = ("#9ecae1", "#4292c6", "#08306b")  # first, middle and last frame
_STRIP = 5  # frames of a trajectory drawn side by side
_FRAMES = 60  # of an animation
_NODES = 256  # per axis of an animation
_CENSUS = 64  # samples that spectra and histograms are made of …
_VALUES = 2**25  # … or fewer, of so many values together

_logger = logging.getLogger(__name__)


def show(
    path: str | Path,
    out: str | Path | None = None,
    *,
    split: str | None = None,
    samples: Sequence[int] | None = None,
    animation: str | None = "gif",
) -> list[Path]:
    """Draw a data set into files, replacing those of an earlier call.

    ==========================  =======================================================================
    ``samples.png``             fields that have no time: lines in 1-D, maps in 2-D, on a sphere in the
                                equal-area projection of Mollweide
    ``samples-NAME.png``        a trajectory: frames over time, in 1-D the x–t plane
    ``animation-NAME.gif``      the trajectories side by side, on one colour scale
    ``spectra.png``             squared L² norm per shell of wavenumber: mean and range over the samples
    ``statistics.png``, .json   distribution of the values; moments over all samples; failures; errors
    ==========================  =======================================================================

    Samples that failed in the solver are left out everywhere; those asked for are named in the log.
    Spectra and distributions are of the first 64 others, or fewer of large fields; moments are of all.

    Args:
        path: folder of the data set.
        out: folder to write to; ``figures`` in that of the data set by default.
        split: which split; by default the first that was asked for when the data were drawn.
        samples: their numbers within the split; by default the first four that did not fail.
        animation: ``"gif"``, ``"mp4"`` (which needs ffmpeg) or None. Data without time have none.

    Returns:
        The files written.

    Raises:
        ValueError: for an unknown split, sample or kind of animation, for samples that all failed,
            and for fields in 3-D.
        FileNotFoundError: if there is no data set, or no ffmpeg for an MP4.
        DamagedDataError: if a file of the data set is not as it was written.
    """
    view = _view(Path(path), split, samples)
    trajectories = [v for v in view.variables if view.is_trajectory(v)]
    _check_animation(animation, needed=bool(trajectories))
    found = {v.name: Statistics.of(view.data, v.name, view.grid) for v in view.variables}
    folder = Path(path) / "figures" if out is None else Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    still = [v for v in view.variables if not view.is_trajectory(v)]
    if still:
        files.append(save_figure(_samples(view, still), folder / "samples.png"))
    for variable in trajectories:
        figure = _strip(view, variable) if view.grid.ndim == 2 else _space_time(view, variable)
        name = re.sub(r"\W+", "-", variable.name)
        files.append(save_figure(figure, folder / f"samples-{name}.png"))
        if animation:
            files.append(_animated(view, variable, folder / f"animation-{name}.{animation}"))
    files.append(save_figure(_spectra(view), folder / "spectra.png"))
    files.append(save_figure(_statistics(view, found), folder / "statistics.png"))
    files.append(folder / "statistics.json")
    files[-1].write_text(json.dumps(_in_numbers(view, found), indent=1, ensure_ascii=False) + "\n")
    return files


@dataclass(frozen=True)
class _View:
    """A split, and the samples of it that are drawn."""

    data: xr.Dataset
    manifest: Manifest
    grid: AbstractGrid
    split: str
    samples: list[int]

    @property
    def variables(self) -> list[Variable]:
        return self.manifest.variables

    def is_trajectory(self, variable: Variable) -> bool:
        return "time" in self.data[variable.name].dims

    def frames(self, count: int) -> list[int]:
        """Return up to ``count`` frames at even distances, the first and the last among them."""
        total = len(self.manifest.times)
        return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()

    @property
    def clock(self) -> tuple[np.ndarray, str]:
        """The times and their unit, hours or days instead of many seconds."""
        times = np.array(self.manifest.times)
        units = self.manifest.time_units
        for longer, seconds in (("days", 86400.0), ("h", 3600.0)):
            if units == "s" and times[-1] >= 4 * seconds:
                return times / seconds, longer
        return times, "" if units == "1" else units

    def time(self, frame: int) -> str:
        """Return the moment of a frame, in words."""
        times, units = self.clock
        return f"$t$ = {times[frame]:.4g} {units}".rstrip()

    def read(
        self,
        variable: Variable,
        samples: list[int],
        frames: list[int] | None = None,
        *,
        step: int = 1,
    ) -> np.ndarray:
        """Return values ``(sample, [frame,] *space)`` at every ``step``-th node."""
        picked: dict[str, Any] = {"sample": samples}
        if frames is not None:
            picked["time"] = frames
        picked |= {dim: slice(None, None, step) for dim in self.grid.dims}
        return self.data[variable.name].isel(picked).values

    def census(self, variable: Variable) -> tuple[np.ndarray, list[str]]:
        """Return values of some samples at the first, middle and last time, ``(sample, frame, *space)``,
        and the names of these frames."""
        frames = self.frames(3) if self.is_trajectory(variable) else None
        size = math.prod(self.grid.shape) * len(frames or [0])
        good = good_samples(self.data)[: min(_CENSUS, max(1, _VALUES // size))]
        values = self.read(variable, good.tolist(), frames)
        if frames is None:
            return values[:, None], [""]
        return values, [self.time(frame) for frame in frames]


def _view(path: Path, split: str | None, samples: Sequence[int] | None) -> _View:
    manifest = Manifest.read(path)
    split = next(iter(manifest.requested), "train") if split is None else split
    data = open_dataset(path, split)
    grid = manifest.grid
    if grid.ndim > 2:
        raise ValueError(
            f"{path} holds fields in {grid.ndim}-D; only 1-D and 2-D fields can be drawn"
        )
    return _View(data, manifest, grid, split, _picked(data, split, samples))


def _picked(data: xr.Dataset, split: str, samples: Sequence[int] | None) -> list[int]:
    """Return those of ``samples`` that did not fail; the first four for None."""
    good = set(good_samples(data).tolist())
    count = data.sizes["sample"]
    if not good:
        raise ValueError(f"every sample of split {split!r} failed in the solver; nothing to show")
    if samples is None:
        return sorted(good)[:4]
    for sample in samples:
        if not 0 <= sample < count:
            raise ValueError(
                f"split {split!r} has samples 0 to {count - 1}; there is no sample {sample}"
            )
    for sample in set(samples) - good:
        status = SolutionError.STATUS[int(data[STATUS][sample])].replace("_", " ")
        _logger.warning(
            "%s sample %d is left out: the solver gave up on it (%s)", split, sample, status
        )
    picked = [sample for sample in samples if sample in good]
    if not picked:
        some = ", ".join(map(str, sorted(good)[:4]))
        raise ValueError(
            f"none of the samples {list(samples)} of split {split!r} was solved; those that were begin with {some}"
        )
    return picked


def _check_animation(animation: str | None, *, needed: bool) -> None:
    if animation not in ("gif", "mp4", None):
        raise ValueError(f"animation must be 'gif', 'mp4' or None, got {animation!r}")
    if needed and animation == "mp4" and not FFMpegWriter.isAvailable():
        raise FileNotFoundError(
            "an MP4 needs ffmpeg, which is not installed; `apt install ffmpeg`, `conda install ffmpeg` or "
            "`brew install ffmpeg` installs it, animation='gif' does without"
        )


def _samples(view: _View, variables: list[Variable]) -> Figure:
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
        axes.set_title(f"sample {sample}", fontsize=8)
    return figure


def _strip(view: _View, variable: Variable) -> Figure:
    """Draw a row per sample, a column per time."""
    frames = view.frames(_STRIP)
    figure, panels = panels_of(view.grid, len(view.samples), len(frames))
    fields = view.read(variable, view.samples, frames)
    scale = Scale.of(fields)
    for row, trajectory, sample in zip(panels, fields, view.samples, strict=True):
        for axes, field in zip(row, trajectory, strict=True):
            draw_field(axes, field, view.grid, scale)
        name_row(row[0], f"sample {sample}", view.grid)
    for axes, frame in zip(panels[0], frames, strict=True):
        axes.set_title(view.time(frame), fontsize=8)
    scale.bar(figure, panels, label_of(variable))
    return figure


def _space_time(view: _View, variable: Variable) -> Figure:
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
        axes.set_title(f"sample {sample}", fontsize=8)
        axes.set_xlabel(f"${view.grid.dims[0]}$", fontsize=8)
        axes.tick_params(labelsize=7)
    panels[0, 0].set_ylabel(with_units("$t$", units), fontsize=8)
    scale.bar(figure, panels[0], label_of(variable))
    return figure


def _animated(view: _View, variable: Variable, file: Path) -> Path:
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
        axes.set_title(f"sample {sample}", fontsize=8)
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


def _spectra(view: _View) -> Figure:
    """Draw a panel per variable; for trajectories at the first, middle and last time."""
    columns = len(view.variables)
    figure = Figure(figsize=(3.4 * columns, 3.0), layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for axes, variable in zip(panels, view.variables, strict=True):
        fields, names = view.census(variable)
        spectra = Spectra.of(fields, view.grid)
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


def _statistics(view: _View, found: dict[str, Statistics]) -> Figure:
    """Draw a row per variable: distribution, then moments over time or space."""
    still_maps = view.grid.ndim == 2 and not all(view.is_trajectory(v) for v in view.variables)
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
            scale = Scale.of(moment)
            draw_field(axes, moment, view.grid, scale)
            scale.bar(figure, np.array([axes]), name, shrink=shrink)
            label_map(axes, view.grid)
    figure.suptitle("\n".join(wrap(_in_words(view), 48 * columns)), fontsize=8)
    return figure


def _histogram(axes: Axes, view: _View, variable: Variable) -> None:
    fields, names = view.census(variable)
    scale = Scale.of(fields)
    low = float(fields.min())
    high = float(fields.max())
    space = np.geomspace if scale.kind == "logarithmic" else np.linspace
    edges = space(low, high if high > low else low + 1, 81)
    weights = np.broadcast_to(node_weights(view.grid), fields[:, 0].shape)
    for frame, (name, colour) in enumerate(zip(names, _TIMES[-len(names) :], strict=True)):
        density, _ = np.histogram(fields[:, frame], edges, weights=weights, density=True)
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


def _moment_lines(axes: Axes, view: _View, variable: Variable, moments: Statistics) -> None:
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


def _in_numbers(view: _View, found: dict[str, Statistics]) -> dict[str, Any]:
    """Return the content of ``statistics.json``."""
    status = view.data[STATUS].values
    errors = view.data[ERROR].values.astype(np.float64)
    errors = errors[(status == 0) & np.isfinite(errors)]
    known = enumerate(SolutionError.STATUS)
    estimates: dict[str, float] = {"count": len(errors)}
    if len(errors):
        estimates |= {"median": float(np.median(errors)), "max": float(errors.max())}
    return {
        "title": view.manifest.title,
        "manifest_sha256": view.manifest.digest,
        "split": view.split,
        "samples": len(status),
        "failed": {name: int((status == code).sum()) for code, name in known if code},
        "error_estimates": estimates,
        "variables": {name: statistics.summary() for name, statistics in found.items()},
    }


def _in_words(view: _View) -> str:
    numbers = _in_numbers(view, {})
    failed = {name.replace("_", " "): n for name, n in numbers["failed"].items() if n}
    reasons = ", ".join(f"{n} {name}" for name, n in failed.items())
    left_out = f"of which {reasons} and left out" if failed else "none failed"
    errors = numbers["error_estimates"]
    worst = "no error estimates"
    if errors["count"]:
        many = (
            f"largest of {errors['count']} error estimates"
            if errors["count"] > 1
            else "error estimate of one"
        )
        worst = f"{many}: {errors['max']:.1e} (relative L²)"
    return f"{view.split}: {numbers['samples']} samples, {left_out}; {worst}"


def _count(samples: int) -> str:
    return f"{samples} samples" if samples > 1 else "one sample"
