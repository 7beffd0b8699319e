"""Pictures of a data set, as files: samples, animations, spectra and statistics.

Nothing here touches matplotlib's global state. Fields are read as they are drawn and statistics
gathered block by block, so that memory does not grow with the data set.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib import colormaps
from matplotlib.animation import FFMpegWriter
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from PIL import Image

from sobolev.datasets.base import Variable
from sobolev.datasets.store import ERROR, STATUS, Manifest, open_dataset
from sobolev.solvers import AbstractGrid, Axis, Grid, SolutionError, SphereGrid, energy_spectrum

_INK, _BLUE = "#222222", "#1f77b4"
_TIMES = ("#9ecae1", "#4292c6", "#08306b")  # first, middle and last frame
_DPI, _ANIMATION_DPI = 150, 100
_STRIP = 5  # frames of a trajectory drawn side by side
_FRAMES = 60  # of an animation
_NODES = 256  # per axis of an animation
_CENSUS = 64  # samples that spectra and histograms are made of …
_VALUES = 2**25  # … or fewer, of so many values together
_BLOCK = 2**22  # values held at a time while statistics are gathered

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
        files.append(_saved(_samples(view, still), folder / "samples.png"))
    for variable in trajectories:
        figure = _strip(view, variable) if view.grid.ndim == 2 else _space_time(view, variable)
        name = re.sub(r"\W+", "-", variable.name)
        files.append(_saved(figure, folder / f"samples-{name}.png"))
        if animation:
            files.append(_animated(view, variable, folder / f"animation-{name}.{animation}"))
    files.append(_saved(_spectra(view), folder / "spectra.png"))
    files.append(_saved(_statistics(view, found), folder / "statistics.png"))
    files.append(folder / "statistics.json")
    files[-1].write_text(json.dumps(_in_numbers(view, found), indent=1, ensure_ascii=False) + "\n")
    return files


@dataclass(frozen=True)
class Statistics:
    """Moments of a variable over all samples of a split that did not fail, in float64.

    ``mean`` and ``variance`` are those of each frame of a trajectory (over samples and space) or of
    each node of a field without time (over samples). Nodes count alike on flat grids, and by their
    area on a sphere.
    """

    mean: np.ndarray
    variance: np.ndarray
    low: float
    high: float
    weights: np.ndarray  # of the nodes, 1 on average

    @classmethod
    def of(cls, data: xr.Dataset, name: str, grid: AbstractGrid) -> Statistics:
        """Those of the variable ``name`` of an opened split, reading it block by block.

        Raises:
            ValueError: if samples that count as solved hold values that are not finite, or there
                are no samples that count as solved.
        """
        weights = _node_weights(grid)
        space = tuple(range(-grid.ndim, 0)) if "time" in data[name].dims else ()
        count, mean, square, low, high = 0, np.zeros(1), np.zeros(1), math.inf, -math.inf
        for block in _blocks(data, name):  # merged as in Chan, Golub and LeVeque (1983)
            here = _averaged(block, weights, space).mean(axis=0)
            inner = _averaged((block - here) ** 2, weights, space).sum(axis=0)
            shift, share = here - mean, len(block) / (count + len(block))
            square = square + inner + shift**2 * (count * share)
            mean, count = mean + shift * share, count + len(block)
            low, high = min(low, float(block.min())), max(high, float(block.max()))
        if not count:
            raise ValueError(f"no statistics of {name}: every sample failed in the solver")
        return cls(mean, square / count, low, high, weights)

    def summary(self) -> dict[str, float]:
        """Mean, standard deviation, minimum and maximum over samples, time and space."""
        mean = float((self.mean * self.weights).mean())
        variance = float(((self.variance + (self.mean - mean) ** 2) * self.weights).mean())
        return {"mean": mean, "std": math.sqrt(variance), "min": self.low, "max": self.high}


@dataclass(frozen=True)
class Spectra:
    """Squared L² norm per shell of wavenumber: ``energy`` is ``(sample, frame, shell)``."""

    wavenumbers: np.ndarray
    energy: np.ndarray
    cutoff: float
    """The largest wavenumber that the grid resolves in every direction."""

    @classmethod
    def of(cls, fields: np.ndarray, grid: AbstractGrid) -> Spectra:
        """Those of ``fields``, ``(sample, frame, *space)``.

        Fields that do not vanish on the border of a box with nodes there are expanded in cosines
        instead of sines, whose slow decay would only tell of the border: the inner nodes, over
        which the norm is taken anyway, are the cell centres of a box with free ends.

        >>> grid = Grid.periodic(16, length=2 * math.pi)
        >>> spectra = Spectra.of(np.cos(3 * grid.points()[0].numpy())[None, None], grid)
        >>> [round(float(e), 12) for e in spectra.energy[0, 0, :5] / math.pi]    # ∫ cos² 3x = π
        [0.0, 0.0, 0.0, 1.0, 0.0]
        """
        if isinstance(grid, Grid):
            grid, fields = _free_ends(grid, fields)
        pairs = [energy_spectrum(torch.from_numpy(u.astype(np.float64)), grid) for u in fields]
        energy = torch.stack([energy for _, energy in pairs]).numpy()
        wavenumbers = pairs[0][0].numpy()
        if isinstance(grid, SphereGrid):
            return cls(wavenumbers, energy, float(wavenumbers[-1]))
        cutoff = min(float(axis.wavenumbers().max()) for axis in _flat(grid).axes)
        return cls(wavenumbers, energy, cutoff)


def _free_ends(grid: Grid, fields: np.ndarray) -> tuple[Grid, np.ndarray]:
    """Grid and fields without the border nodes of Dirichlet axes, if there is anything on them."""
    boxed = [axis.boundary == "dirichlet" for axis in grid.axes]
    inside = tuple(slice(1, -1) if box else slice(None) for box in boxed)
    border = np.ones(grid.shape, bool)
    border[inside] = False
    if not border.any() or np.abs(fields[..., border]).max() <= 1e-6 * np.abs(fields).max():
        return grid, fields
    axes = [
        replace(axis, size=axis.size - 2, length=axis.length - axis.spacing,
                origin=axis.origin + axis.spacing / 2, boundary="neumann") if box else axis
        for axis, box in zip(grid.axes, boxed, strict=True)
    ]  # fmt: skip
    return Grid(*axes), fields[(..., *inside)]


@dataclass(frozen=True)
class _View:
    """A split, and what of it is drawn."""

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
        """Up to ``count`` frames at even distances, the first and the last among them."""
        total = len(self.manifest.times)
        return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()

    @property
    def clock(self) -> tuple[np.ndarray, str]:
        """Times and their unit, hours or days instead of many seconds."""
        times, units = np.array(self.manifest.times), self.manifest.time_units
        for longer, seconds in (("days", 86400.0), ("h", 3600.0)):
            if units == "s" and times[-1] >= 4 * seconds:
                return times / seconds, longer
        return times, "" if units == "1" else units

    def time(self, frame: int) -> str:
        """The moment of a frame, in words."""
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
        """Values ``(sample, [frame,] *space)``; every ``step``-th node."""
        picked: dict[str, Any] = {"sample": samples}
        if frames is not None:
            picked["time"] = frames
        picked |= {dim: slice(None, None, step) for dim in self.grid.dims}
        return self.data[variable.name].isel(picked).values

    def census(self, variable: Variable) -> tuple[np.ndarray, list[str]]:
        """Values of some samples at the first, middle and last time, ``(sample, frame, *space)``,
        and the names of these frames."""
        frames = self.frames(3) if self.is_trajectory(variable) else None
        size = math.prod(self.grid.shape) * len(frames or [0])
        good = _good(self.data)[: min(_CENSUS, max(1, _VALUES // size))]
        values = self.read(variable, good.tolist(), frames)
        if frames is None:
            return values[:, None], [""]
        return values, [self.time(frame) for frame in frames]


def _view(path: Path, split: str | None, samples: Sequence[int] | None) -> _View:
    manifest = Manifest.read(path)
    split = next(iter(manifest.requested), "train") if split is None else split
    data, grid = open_dataset(path, split), manifest.grid
    if grid.ndim > 2:
        raise ValueError(
            f"{path} holds fields in {grid.ndim}-D; only 1-D and 2-D fields can be drawn"
        )
    return _View(data, manifest, grid, split, _picked(data, split, samples))


def _picked(data: xr.Dataset, split: str, samples: Sequence[int] | None) -> list[int]:
    """Those of ``samples`` that did not fail; the first four for None."""
    good, count = set(_good(data).tolist()), data.sizes["sample"]
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


def _good(data: xr.Dataset) -> np.ndarray:
    """Numbers of the samples that did not fail."""
    return np.flatnonzero(data[STATUS].values == 0)


def _blocks(data: xr.Dataset, name: str) -> Iterator[np.ndarray]:
    """The good samples of a variable in float64, as many at a time as memory should hold."""
    field, good = data[name], _good(data)
    length = max(1, _BLOCK // math.prod(field.shape[1:]))
    for start in range(0, len(good), length):
        block = field.isel(sample=good[start : start + length]).values.astype(np.float64)
        if not np.isfinite(block).all():
            raise ValueError(
                f"{name} holds values that are not finite in samples that count as solved; `sobolev verify` names them"
            )
        yield block


def _node_weights(grid: AbstractGrid) -> np.ndarray:
    """1 on average: areas on a sphere, else equal."""
    if isinstance(grid, SphereGrid):
        areas = grid.quadrature().numpy()
        return areas / areas.mean()
    return np.ones(grid.shape)


def _averaged(block: np.ndarray, weights: np.ndarray, space: tuple[int, ...]) -> np.ndarray:
    return (block * weights).mean(axis=space, keepdims=True) if space else block


@dataclass(frozen=True)
class _Scale:
    """Colours for a variable: diverging and symmetric about 0 where it takes both signs, logarithmic
    where it is positive over two decades or more, sequential otherwise."""

    low: float
    high: float
    kind: str
    clipped: bool = False

    @classmethod
    def of(cls, values: np.ndarray) -> _Scale:
        low, high = float(values.min()), float(values.max())
        if min(-low, high) > 0.01 * max(-low, high):
            bound = max(-low, high)
            usual = float(np.quantile(np.abs(values), 0.999))
            if usual < 0.75 * bound:  # a few vortex cores would bleach all the rest
                return cls(-usual, usual, "diverging", clipped=True)
            return cls(-bound, bound, "diverging")
        if low > 0 and high >= 100 * low:
            return cls(low, high, "logarithmic")
        return cls(low, high if high > low else low + 1, "sequential")

    @property
    def map(self) -> str:
        return "RdBu_r" if self.kind == "diverging" else "viridis"

    @property
    def colours(self) -> dict[str, Any]:
        norm = (LogNorm if self.kind == "logarithmic" else Normalize)(self.low, self.high)
        return {"norm": norm, "cmap": self.map}

    def bar(self, figure: Figure, panels: np.ndarray, label: str, *, shrink: float = 1.0) -> None:
        """A colour bar for a panel, a row or a figure of them."""
        rows = panels.flat[0].get_gridspec().nrows
        spanned = rows if panels.ndim == 2 else 1
        bar = figure.colorbar(
            ScalarMappable(**self.colours), ax=panels, extend="both" if self.clipped else "neither",
            aspect=20 * spanned, pad=0.015, fraction=0.05, shrink=shrink,
        )  # fmt: skip
        inches = float(figure.get_figheight()) * spanned / rows
        bar.set_label("\n".join(_wrapped(label, int(14 * inches))), fontsize=8)
        bar.ax.tick_params(labelsize=7)
        bar.ax.yaxis.get_offset_text().set_fontsize(7)


def _label(variable: Variable) -> str:
    """Long name and units, with exponents raised."""
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    units = re.sub(r"(?<=[A-Za-z])\^?(-?\d+)", lambda m: m[1].translate(raised), variable.units)
    text = variable.long_name if units in ("1", "") else f"{variable.long_name} ({units})"
    return text.replace("$", r"\$")


def _samples(view: _View, variables: list[Variable]) -> Figure:
    """A row per variable, a column per sample."""
    figure, panels = _panels(view.grid, len(variables), len(view.samples))
    for row, variable in zip(panels, variables, strict=True):
        fields = view.read(variable, view.samples)
        scale = _Scale.of(fields)
        for axes, field in zip(row, fields, strict=True):
            _draw(axes, field, view.grid, scale)
        if view.grid.ndim == 1:
            row[0].set_ylabel("\n".join(_wrapped(_label(variable), 28)), fontsize=8)
        else:
            scale.bar(figure, row, _label(variable))
    for axes, sample in zip(panels[0], view.samples, strict=True):
        axes.set_title(f"sample {sample}", fontsize=8)
    return figure


def _strip(view: _View, variable: Variable) -> Figure:
    """A row per sample, a column per time."""
    frames = view.frames(_STRIP)
    figure, panels = _panels(view.grid, len(view.samples), len(frames))
    fields = view.read(variable, view.samples, frames)
    scale = _Scale.of(fields)
    for row, trajectory, sample in zip(panels, fields, view.samples, strict=True):
        for axes, field in zip(row, trajectory, strict=True):
            _draw(axes, field, view.grid, scale)
        _name_row(row[0], f"sample {sample}", view.grid)
    for axes, frame in zip(panels[0], frames, strict=True):
        axes.set_title(view.time(frame), fontsize=8)
    scale.bar(figure, panels, _label(variable))
    return figure


def _space_time(view: _View, variable: Variable) -> Figure:
    """A panel per sample: x to the right, time upwards."""
    frames = view.frames(8 * _FRAMES)
    fields = view.read(variable, view.samples, frames)
    scale, (points,), (times, units) = _Scale.of(fields), view.grid.points(), view.clock
    figure = Figure(figsize=(1 + 2.2 * len(view.samples), 3), layout="constrained")
    panels = figure.subplots(1, len(view.samples), sharex=True, sharey=True, squeeze=False)
    for axes, field, sample in zip(panels[0], fields, view.samples, strict=True):
        axes.pcolormesh(points.numpy(), times[frames], field, shading="nearest", **scale.colours)
        axes.set_title(f"sample {sample}", fontsize=8)
        axes.set_xlabel(f"${view.grid.dims[0]}$", fontsize=8)
        axes.tick_params(labelsize=7)
    panels[0, 0].set_ylabel(_with_units("$t$", units), fontsize=8)
    scale.bar(figure, panels[0], _label(variable))
    return figure


def _animated(view: _View, variable: Variable, file: Path) -> Path:
    """The trajectories side by side, frame by frame."""
    frames, step = view.frames(_FRAMES), -(-max(view.grid.shape) // _NODES)
    fields = view.read(variable, view.samples, frames, step=step)
    grid, scale = view.grid, _Scale.of(fields)
    figure, panels = _panels(grid, 1, len(view.samples), heading=0.35)
    artists = [
        _draw(axes, field[0], grid, scale, step=step)
        for axes, field in zip(panels[0], fields, strict=True)
    ]
    for axes, sample in zip(panels[0], view.samples, strict=True):
        axes.set_title(f"sample {sample}", fontsize=8)
    title = figure.suptitle(view.time(frames[-1]), fontsize=9)
    if grid.ndim == 2:
        scale.bar(figure, panels[0], _label(variable))
    else:
        panels[0, 0].set_ylabel(_label(variable), fontsize=8)
        low, high = float(fields.min()), float(fields.max())
        room = 0.05 * (high - low) or 1.0
        panels[0, 0].set_ylim(low - room, high + room)

    def pictures() -> Iterator[None]:
        for frame, number in enumerate(frames):
            for artist, field in zip(artists, fields[:, frame], strict=True):
                _redraw(artist, field, grid, step=step)
            title.set_text(view.time(number))
            yield

    save = _save_gif if file.suffix == ".gif" else _save_mp4
    save(file, figure, pictures(), min(15, max(4, len(frames) // 6)), scale.map)
    return file


def _save_gif(
    file: Path, figure: Figure, pictures: Iterator[None], rate: int, colours: str
) -> None:
    """A GIF of the colours of one map and of greys: a palette of its own per frame would flicker, and
    one guessed from the frame is poor at the ends of the map."""
    shades = 255 * colormaps[colours](np.linspace(0, 1, 128))[:, :3]
    greys = np.linspace(0, 255, 40)[:, None].repeat(3, axis=1)
    blues = np.linspace((31, 119, 180), (255, 255, 255), 16)  # a line on paper
    palette = Image.new("P", (1, 1))
    mixed = [shades, 0.6 * shades[::2], greys, blues]  # thin lines darken what they cross
    palette.putpalette(np.concatenate(mixed).round().astype(np.uint8).tobytes())
    canvas, images = FigureCanvasAgg(figure), []
    figure.set_dpi(_ANIMATION_DPI)
    for _ in pictures:
        canvas.draw()
        figure.set_layout_engine("none")  # the first picture's holds for all
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        images.append(picture.quantize(palette=palette, dither=Image.Dither.NONE))
    # the last picture stays for a second
    durations = [1000 // rate] * (len(images) - 1) + [1000]
    images[0].save(file, save_all=True, append_images=images[1:], duration=durations, loop=0)


def _save_mp4(
    file: Path, figure: Figure, pictures: Iterator[None], rate: int, colours: str
) -> None:
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    # sizes and the pixel format that every player knows
    even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white", "-pix_fmt", "yuv420p"]
    writer = FFMpegWriter(fps=rate, codec="libx264", extra_args=even)
    with writer.saving(figure, str(file), dpi=1.5 * _ANIMATION_DPI):
        for _ in pictures:
            writer.grab_frame()


def _spectra(view: _View) -> Figure:
    """A panel per variable; for trajectories at the first, middle and last time."""
    columns = len(view.variables)
    figure = Figure(figsize=(3.4 * columns, 3.0), layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for axes, variable in zip(panels, view.variables, strict=True):
        fields, names = view.census(variable)
        spectra, count = Spectra.of(fields, view.grid), len(fields)
        _draw_spectra(axes, spectra, names, by_degree=isinstance(view.grid, SphereGrid))
        axes.set_title("\n".join(_wrapped(_label(variable), 44)), fontsize=8)
    panels[0].set_ylabel("squared L² norm per shell", fontsize=8)
    what = "mean and range over " if count > 1 else ""
    figure.suptitle(f"{view.split}: {what}{_count(count)}", fontsize=8)
    return figure


def _draw_spectra(axes: Axes, spectra: Spectra, names: list[str], *, by_degree: bool) -> None:
    """Mean over the samples as a line, their range as a band, for each frame; without the mean of
    the fields, whose wavenumber is 0."""
    k, cutoff = spectra.wavenumbers, spectra.cutoff
    if by_degree:
        k, cutoff = np.arange(len(k)), len(k) - 1.0
    shown, resolved = spectra.energy[..., 1:], k[1:] <= cutoff * (1 + 1e-9)
    for frame, (name, colour) in enumerate(zip(names, _TIMES[-len(names) :], strict=True)):
        energy = shown[:, frame]
        if not energy.any():  # of a field that is constant at first; its logarithm cannot be drawn
            continue
        axes.loglog(k[1:], energy.mean(axis=0), color=colour, lw=1.3, label=name)
        axes.fill_between(
            k[1:], energy.min(axis=0), energy.max(axis=0), color=colour, alpha=0.2, lw=0
        )
    axes.axvline(cutoff, color=_INK, lw=0.8, ls=":", zorder=0)
    axes.annotate(
        "grid cutoff", (cutoff, 0.98), xycoords=("data", "axes fraction"), rotation=90,
        xytext=(-2, 0), textcoords="offset points", ha="right", va="top", fontsize=6.5, color=_INK,
    )  # fmt: skip
    means = shown.mean(axis=0)[:, resolved]
    if means.any():
        top, bottom = float(shown.max()), float(means[means > 0].min())
        axes.set_ylim(max(bottom / 30, 1e-20 * top), 5 * top)
    axes.set_xlabel("degree $l$" if by_degree else "wavenumber", fontsize=8)
    _tidy(axes)
    if names != [""]:
        axes.legend(fontsize=7, frameon=False, loc="lower left")


def _statistics(view: _View, found: dict[str, Statistics]) -> Figure:
    """A row per variable: distribution, then moments over time or space."""
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
        for axes, (name, moment) in zip(row[1:], pair.items(), strict=True):
            scale, shrink = _Scale.of(moment), 0.5 if isinstance(view.grid, SphereGrid) else 0.9
            _draw(axes, moment, view.grid, scale)
            scale.bar(figure, np.array([axes]), name, shrink=shrink)
            _label_map(axes, view.grid)
    figure.suptitle("\n".join(_wrapped(_in_words(view), 48 * columns)), fontsize=8)
    return figure


def _histogram(axes: Axes, view: _View, variable: Variable) -> None:
    fields, names = view.census(variable)
    scale = _Scale.of(fields)
    low, high = float(fields.min()), float(fields.max())
    space = np.geomspace if scale.kind == "logarithmic" else np.linspace
    edges = space(low, high if high > low else low + 1, 81)
    weights = np.broadcast_to(_node_weights(view.grid), fields[:, 0].shape)
    for frame, (name, colour) in enumerate(zip(names, _TIMES[-len(names) :], strict=True)):
        density, _ = np.histogram(fields[:, frame], edges, weights=weights, density=True)
        axes.stairs(density, edges, color=colour, lw=1.1, label=name)
    axes.set_yscale("log")
    if scale.kind == "logarithmic":
        axes.set_xscale("log")
    axes.set_xlabel("\n".join(_wrapped(_label(variable), 40)), fontsize=8)
    axes.set_ylabel("probability density", fontsize=8)
    axes.set_title(_count(len(fields)), fontsize=8)
    _tidy(axes)
    if names != [""]:
        axes.legend(fontsize=7, frameon=False)


def _moment_lines(axes: Axes, view: _View, variable: Variable, moments: Statistics) -> None:
    """Mean and standard deviation over time, or over the nodes in 1-D."""
    if view.is_trajectory(variable):
        at, units = view.clock
        name = _with_units("$t$", units)
    else:
        at, name = view.grid.points()[0].numpy(), f"${view.grid.dims[0]}$"
    mean, deviation = moments.mean.ravel(), np.sqrt(moments.variance).ravel()
    axes.fill_between(at, mean - deviation, mean + deviation, color=_BLUE, alpha=0.2, lw=0)
    axes.plot(at, mean, color=_BLUE, lw=1.2)
    axes.set_title("mean ± standard deviation", fontsize=8)
    axes.set_xlabel(name, fontsize=8)
    axes.margins(x=0)
    _tidy(axes)


def _in_numbers(view: _View, found: dict[str, Statistics]) -> dict[str, Any]:
    """The content of ``statistics.json``."""
    status, errors = view.data[STATUS].values, view.data[ERROR].values.astype(np.float64)
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


def _panels(
    grid: AbstractGrid, rows: int, columns: int, heading: float = 0.3
) -> tuple[Figure, np.ndarray]:
    """A figure of equal panels in the proportions of the domain."""
    width, height = 2.2, 1.65
    if isinstance(grid, SphereGrid):
        width, height = 2.4, 1.2
    elif grid.ndim == 2:
        vertical, horizontal = _flat(grid).axes
        width = 1.6
        height = min(max(width * vertical.length / horizontal.length, 0.4), 6.0)
    size = (width * columns + 1.0, height * rows + heading + 0.3)
    layout: Any = "constrained" if grid.ndim == 1 else "compressed"
    figure = Figure(figsize=size, layout=layout)
    sharey: Any = "row" if grid.ndim == 1 else True
    panels = figure.subplots(rows, columns, sharex=True, sharey=sharey, squeeze=False)
    for (i, j), axes in np.ndenumerate(panels):
        if grid.ndim == 2:
            _label_map(axes, grid, x=i == rows - 1, y=j == 0)
            continue
        _tidy(axes)
        axes.margins(x=0)
        if i == rows - 1:
            axes.set_xlabel(f"${grid.dims[0]}$", fontsize=8)
    return figure, panels


def _label_map(axes: Axes, grid: AbstractGrid, *, x: bool = True, y: bool = True) -> None:
    """Names and ends of the axes of a map; a sphere has neither."""
    if isinstance(grid, SphereGrid):
        return
    axes.tick_params(labelsize=7, length=2.5)
    vertical, horizontal = _flat(grid).axes
    axes.set_xticks(*_ends(horizontal))
    axes.set_yticks(*_ends(vertical))
    if x:
        axes.set_xlabel(f"${horizontal.name}$", fontsize=8, labelpad=-6)
    if y:
        axes.set_ylabel(f"${vertical.name}$", fontsize=8, labelpad=-4)


def _ends(axis: Axis) -> tuple[list[float], list[str]]:
    """Where an axis begins and ends; 2π is called so."""
    ends = [axis.origin, axis.origin + axis.length]
    names = ["2π" if math.isclose(end, 2 * math.pi, rel_tol=1e-6) else f"{end:.4g}" for end in ends]
    return ends, names


def _name_row(axes: Axes, text: str, grid: AbstractGrid) -> None:
    """A name to the left of a row of maps."""
    if isinstance(grid, SphereGrid):
        place: Any = {"x": -0.02, "y": 0.5, "rotation": 90, "ha": "right", "va": "center"}
        axes.text(s=text, fontsize=8, transform=axes.transAxes, **place)
    else:
        axes.set_ylabel(f"{text}\n${grid.dims[0]}$", fontsize=8, labelpad=-4)


def _draw(
    axes: Axes, field: np.ndarray, grid: AbstractGrid, scale: _Scale, *, step: int = 1
) -> Artist:
    """Every ``step``-th node of a field as a line or a map; the artist can be redrawn."""
    image = _image(field, grid, step)
    if isinstance(grid, SphereGrid):
        _draw_graticule(axes)
        return axes.imshow(image, origin="lower", extent=(-2, 2, -1, 1), **scale.colours)
    starts, spacings = _nodes(grid, step)
    if grid.ndim == 1:
        return axes.plot(starts[0] + spacings[0] * np.arange(len(image)), image, color=_BLUE, lw=1)[
            0
        ]
    (bottom, left), (dy, dx), (rows, columns) = starts, spacings, image.shape
    extent = (
        left - dx / 2,
        left + (columns - 0.5) * dx,
        bottom - dy / 2,
        bottom + (rows - 0.5) * dy,
    )
    artist = axes.imshow(image, origin="lower", extent=extent, **scale.colours)
    (low, high), (first, last) = (_ends(axis)[0] for axis in _flat(grid).axes)
    axes.set(xlim=(first, last), ylim=(low, high))
    return artist


def _redraw(artist: Artist, field: np.ndarray, grid: AbstractGrid, *, step: int) -> None:
    image = _image(field, grid, step)
    if isinstance(artist, Line2D):
        artist.set_ydata(image)
    elif isinstance(artist, AxesImage):
        artist.set_data(image)


def _image(field: np.ndarray, grid: AbstractGrid, step: int) -> np.ndarray:
    """What is drawn of every ``step``-th node: periodic axes are closed, a sphere is projected."""
    if isinstance(grid, SphereGrid):
        rows, columns, outside = _mollweide(grid, step)
        return np.ma.masked_array(field[rows, columns], outside)
    return np.pad(
        field, [(0, int(axis.boundary == "periodic")) for axis in _flat(grid).axes], "wrap"
    )


def _nodes(grid: AbstractGrid, step: int) -> tuple[list[float], list[float]]:
    """The first of every ``step``-th node of each axis, and their distance."""
    axes = _flat(grid).axes
    return [float(axis.points()[0]) for axis in axes], [axis.spacing * step for axis in axes]


def _flat(grid: AbstractGrid) -> Grid:
    if not isinstance(grid, Grid):
        raise TypeError(f"cannot draw fields on a {type(grid).__name__}")
    return grid


def _draw_graticule(axes: Axes) -> None:
    """Outline, meridians every 90° and parallels every 30° of Mollweide's projection."""
    angle = np.linspace(-math.pi / 2, math.pi / 2, 91)
    for fraction in (-1.0, -0.5, 0.0, 0.5, 1.0):
        width = 0.8 if abs(fraction) == 1 else 0.25
        axes.plot(2 * fraction * np.cos(angle), np.sin(angle), color=_INK, lw=width, clip_on=False)
    latitudes = np.arcsin((2 * angle + np.sin(2 * angle)) / math.pi)
    for parallel in np.radians([-60, -30, 0, 30, 60]):
        height = math.sin(np.interp(parallel, latitudes, angle))
        width = 2 * math.sqrt(1 - height**2)
        axes.plot([-width, width], [height, height], color=_INK, lw=0.25)
    axes.set_axis_off()


@functools.lru_cache(maxsize=4)
def _mollweide(grid: SphereGrid, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each pixel of an image [−2, 2] × [−1, 1], 180° E in the middle: the nearest ring and node
    of every ``step``-th, and whether it lies outside of the ellipse."""
    height, width = (np.arange(240) + 0.5) / 120 - 1, (np.arange(480) + 0.5) / 120 - 2
    y, x = np.meshgrid(height, width, indexing="ij")
    angle = np.arcsin(y)
    latitude = np.arcsin((2 * angle + np.sin(2 * angle)) / math.pi)
    longitude = math.pi * (1 + x / (2 * np.cos(angle)))
    rings, nodes = (points.numpy()[::step] for points in grid.points())  # from north to south
    rows = np.searchsorted(-(rings[1:] + rings[:-1]) / 2, -latitude)
    columns = (longitude / (nodes[1] - nodes[0])).round().astype(int) % len(nodes)
    return rows, columns, x**2 / 4 + y**2 > 1


def _tidy(axes: Axes) -> None:
    axes.tick_params(which="both", labelsize=7)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_offset_text().set_fontsize(7)
        if axis.get_scale() == "log":
            axis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)


def _count(samples: int) -> str:
    return f"{samples} samples" if samples > 1 else "one sample"


def _with_units(name: str, units: str) -> str:
    return f"{name} ({units})" if units else name


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width) or [""]


def _saved(figure: Figure, file: Path) -> Path:
    figure.savefig(file, dpi=_DPI, bbox_inches="tight", pad_inches=0.05)
    return file
