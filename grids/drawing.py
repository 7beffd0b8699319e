"""Fields as lines and maps, on matplotlib's figures but never on its global state."""

from __future__ import annotations

import functools
import math
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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

from sobolev.grids.axis import Axis
from sobolev.grids.grid import AbstractGrid, Grid
from sobolev.grids.sphere import SphereGrid
from sobolev.grids.variables import Variable

INK = "#222222"
BLUE = "#1f77b4"
TRUTH = INK
PREDICTION = BLUE
ERROR = "#d62728"
_DPI = 150
_ANIMATION_DPI = 100


@dataclass(frozen=True)
class Scale:
    """Colours for a variable: diverging and symmetric about 0 where it takes both signs, logarithmic
    where it is positive over two decades or more, sequential otherwise."""

    low: float
    high: float
    kind: str
    clipped: bool = False

    @classmethod
    def of(cls, values: np.ndarray) -> Scale:
        values = values[np.isfinite(values)]  # fields have gaps outside their domain
        values = values if values.size else np.zeros(1)
        low = float(values.min())
        high = float(values.max())
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
        """Draw a colour bar for a panel, a row or a figure of them."""
        rows = panels.flat[0].get_gridspec().nrows
        spanned = rows if panels.ndim == 2 else 1
        bar = figure.colorbar(
            ScalarMappable(**self.colours), ax=panels, extend="both" if self.clipped else "neither",
            aspect=20 * spanned, pad=0.015, fraction=0.05, shrink=shrink,
        )  # fmt: skip
        inches = float(figure.get_figheight()) * spanned / rows
        bar.set_label("\n".join(wrap(label, int(14 * inches))), fontsize=8)
        bar.ax.tick_params(labelsize=7)
        bar.ax.yaxis.get_offset_text().set_fontsize(7)


def label_of(variable: Variable) -> str:
    """Return long name and units, with exponents raised."""
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    units = re.sub(r"(?<=[A-Za-z])\^?(-?\d+)", lambda m: m[1].translate(raised), variable.units)
    text = variable.long_name if units in ("1", "") else f"{variable.long_name} ({units})"
    return text.replace("$", r"\$")


def panels_of(
    grid: AbstractGrid, rows: int, columns: int, heading: float = 0.3
) -> tuple[Figure, np.ndarray]:
    """Return a figure of equal panels in the proportions of the domain."""
    width = 2.2
    height = 1.65
    if isinstance(grid, SphereGrid):
        width = 2.4
        height = 1.2
    elif grid.ndim == 2:
        vertical, horizontal = drawable_grid(grid).axes
        width = 1.6
        height = min(max(width * vertical.length / horizontal.length, 0.4), 6.0)
    size = (width * columns + 1.0, height * rows + heading + 0.3)
    layout: Any = "constrained" if grid.ndim == 1 else "compressed"
    figure = Figure(figsize=size, layout=layout)
    sharey: Any = "row" if grid.ndim == 1 else True
    panels = figure.subplots(rows, columns, sharex=True, sharey=sharey, squeeze=False)
    for (i, j), axes in np.ndenumerate(panels):
        if grid.ndim == 2:
            label_map(axes, grid, x=i == rows - 1, y=j == 0)
            continue
        tidy(axes)
        axes.margins(x=0)
        if i == rows - 1:
            axes.set_xlabel(f"${grid.dims[0]}$", fontsize=8)
    return figure, panels


def label_map(axes: Axes, grid: AbstractGrid, *, x: bool = True, y: bool = True) -> None:
    """Write names and ends at the axes of a map; a sphere has neither."""
    if isinstance(grid, SphereGrid):
        return
    axes.tick_params(labelsize=7, length=2.5)
    vertical, horizontal = drawable_grid(grid).axes
    axes.set_xticks(*_ends(horizontal))
    axes.set_yticks(*_ends(vertical))
    if x:
        axes.set_xlabel(f"${horizontal.name}$", fontsize=8, labelpad=-6)
    if y:
        axes.set_ylabel(f"${vertical.name}$", fontsize=8, labelpad=-4)


def _ends(axis: Axis) -> tuple[list[float], list[str]]:
    """Return the two ends of an axis, and their names; 2π is called so."""
    ends = [axis.origin, axis.origin + axis.length]
    names = ["2π" if math.isclose(end, 2 * math.pi, rel_tol=1e-6) else f"{end:.4g}" for end in ends]
    return ends, names


def name_row(axes: Axes, text: str, grid: AbstractGrid) -> None:
    """Write a name to the left of a row of maps."""
    if isinstance(grid, SphereGrid):
        place: Any = {"x": -0.02, "y": 0.5, "rotation": 90, "ha": "right", "va": "center"}
        axes.text(s=text, fontsize=8, transform=axes.transAxes, **place)
    else:
        axes.set_ylabel(f"{text}\n${grid.dims[0]}$", fontsize=8, labelpad=-4)


def draw_field(
    axes: Axes, field: np.ndarray, grid: AbstractGrid, scale: Scale, *, step: int = 1
) -> Artist:
    """Draw every ``step``-th node of a field as a line or a map; the artist can be redrawn."""
    image = _image(field, grid, step)
    if isinstance(grid, SphereGrid):
        _draw_graticule(axes)
        return axes.imshow(image, origin="lower", extent=(-2, 2, -1, 1), **scale.colours)
    starts, spacings = _nodes(grid, step)
    if grid.ndim == 1:
        x = starts[0] + spacings[0] * np.arange(len(image))
        return axes.plot(x, image, color=BLUE, lw=1)[0]
    bottom, left = starts
    dy, dx = spacings
    rows, columns = image.shape
    extent = (
        left - dx / 2,
        left + (columns - 0.5) * dx,
        bottom - dy / 2,
        bottom + (rows - 0.5) * dy,
    )
    artist = axes.imshow(image, origin="lower", extent=extent, **scale.colours)
    (low, high), (first, last) = (_ends(axis)[0] for axis in drawable_grid(grid).axes)
    axes.set(xlim=(first, last), ylim=(low, high))
    return artist


def redraw_field(artist: Artist, field: np.ndarray, grid: AbstractGrid, *, step: int) -> None:
    image = _image(field, grid, step)
    if isinstance(artist, Line2D):
        artist.set_ydata(image)
    elif isinstance(artist, AxesImage):
        artist.set_data(image)


def _image(field: np.ndarray, grid: AbstractGrid, step: int) -> np.ndarray:
    """Return the picture of every ``step``-th node: periodic axes are closed, a sphere is projected."""
    if isinstance(grid, SphereGrid):
        rows, columns, outside = _mollweide(grid, step)
        return np.ma.masked_array(field[rows, columns], outside)
    return np.pad(
        field, [(0, int(axis.boundary == "periodic")) for axis in drawable_grid(grid).axes], "wrap"
    )


def _nodes(grid: AbstractGrid, step: int) -> tuple[list[float], list[float]]:
    """Return the first of every ``step``-th node of each axis, and their distance."""
    axes = drawable_grid(grid).axes
    return [float(axis.points()[0]) for axis in axes], [axis.spacing * step for axis in axes]


def drawable_grid(grid: AbstractGrid) -> Grid:
    if not isinstance(grid, Grid):
        raise TypeError(f"cannot draw fields on a {type(grid).__name__}")
    return grid


def _draw_graticule(axes: Axes) -> None:
    """Draw outline, meridians every 90° and parallels every 30° of Mollweide's projection."""
    angle = np.linspace(-math.pi / 2, math.pi / 2, 91)
    for fraction in (-1.0, -0.5, 0.0, 0.5, 1.0):
        width = 0.8 if abs(fraction) == 1 else 0.25
        axes.plot(2 * fraction * np.cos(angle), np.sin(angle), color=INK, lw=width, clip_on=False)
    latitudes = np.arcsin((2 * angle + np.sin(2 * angle)) / math.pi)
    for parallel in np.radians([-60, -30, 0, 30, 60]):
        height = math.sin(np.interp(parallel, latitudes, angle))
        width = 2 * math.sqrt(1 - height**2)
        axes.plot([-width, width], [height, height], color=INK, lw=0.25)
    axes.set_axis_off()


@functools.lru_cache(maxsize=4)
def _mollweide(grid: SphereGrid, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each pixel of an image [−2, 2] × [−1, 1], 180° E in the middle, the nearest ring and node
    of every ``step``-th, and whether it lies outside of the ellipse."""
    height = (np.arange(240) + 0.5) / 120 - 1
    width = (np.arange(480) + 0.5) / 120 - 2
    y, x = np.meshgrid(height, width, indexing="ij")
    angle = np.arcsin(y)
    latitude = np.arcsin((2 * angle + np.sin(2 * angle)) / math.pi)
    longitude = math.pi * (1 + x / (2 * np.cos(angle)))
    rings, nodes = (points.numpy()[::step] for points in grid.points())  # from north to south
    rows = np.searchsorted(-(rings[1:] + rings[:-1]) / 2, -latitude)
    columns = (longitude / (nodes[1] - nodes[0])).round().astype(int) % len(nodes)
    return rows, columns, x**2 / 4 + y**2 > 1


def tidy(axes: Axes) -> None:
    axes.tick_params(which="both", labelsize=7)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_offset_text().set_fontsize(7)
        if axis.get_scale() == "log":
            axis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)


def with_units(name: str, units: str) -> str:
    return f"{name} ({units})" if units else name


def wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width) or [""]


def save_figure(figure: Figure, file: Path) -> Path:
    figure.savefig(file, dpi=_DPI, bbox_inches="tight", pad_inches=0.05)
    return file


def save_gif(file: Path, figure: Figure, pictures: Iterator[None], rate: int, colours: str) -> None:
    """Write a GIF of the colours of one map and of greys: a palette of its own per frame would flicker, and
    one guessed from the frame is poor at the ends of the map."""
    shades = 255 * colormaps[colours](np.linspace(0, 1, 128))[:, :3]
    greys = np.linspace(0, 255, 40)[:, None].repeat(3, axis=1)
    blues = np.linspace((31, 119, 180), (255, 255, 255), 16)  # a line on paper
    palette = Image.new("P", (1, 1))
    mixed = [shades, 0.6 * shades[::2], greys, blues]  # thin lines darken what they cross
    palette.putpalette(np.concatenate(mixed).round().astype(np.uint8).tobytes())
    canvas = FigureCanvasAgg(figure)
    images = []
    figure.set_dpi(_ANIMATION_DPI)
    for _ in pictures:
        canvas.draw()
        figure.set_layout_engine("none")  # the first picture's holds for all
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        images.append(picture.quantize(palette=palette, dither=Image.Dither.NONE))
    # the last picture stays for a second
    durations = [1000 // rate] * (len(images) - 1) + [1000]
    images[0].save(file, save_all=True, append_images=images[1:], duration=durations, loop=0)


def save_mp4(file: Path, figure: Figure, pictures: Iterator[None], rate: int, colours: str) -> None:
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    # sizes and the pixel format that every player knows
    even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white", "-pix_fmt", "yuv420p"]
    writer = FFMpegWriter(fps=rate, codec="libx264", extra_args=even)
    with writer.saving(figure, str(file), dpi=1.5 * _ANIMATION_DPI):
        for _ in pictures:
            writer.grab_frame()
