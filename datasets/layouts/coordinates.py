"""Coordinates of a stranger's dataset: what each dimension is, and the grid that they make.

Names, units and directions are read as CF has them (https://cfconventions.org). Nodes are brought
into our order: ascending, latitudes from north to south, longitudes from 0 eastward, the end of a
circle once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Shaped
from scipy.interpolate import CubicSpline

from sobolev.datasets.layouts.foreign import UserWords, are_even, short
from sobolev.grids import AbstractGrid, Grid, SphereGrid
from sobolev.grids.roles import role
from sobolev.grids.spherical_transform import KINDS

Values = Shaped[np.ndarray, " *lead_and_space"]
"""Fields in a stranger's order of nodes."""
Other = Shaped[np.ndarray, " *lead_and_other_space"]
"""Fields in our order of nodes, or nearer to it."""
Step = Callable[[Values], Other]
"""A part of the way from their nodes to ours."""
Points = Float[np.ndarray, " node"]

_POLES = 2.0
"""Degrees of latitude that two rings of a globe may lie away from the poles, in spacings."""


@dataclass(frozen=True)
class GridWords(UserWords):
    """The user's words about coordinates."""

    radius: float = 1.0
    regrid: Mapping[str, int] = field(default_factory=dict)

    def check_heard(self, dataset: xr.Dataset, grid: AbstractGrid) -> None:
        """Refuse words about axes that are not there, and a radius of what is no sphere."""
        self.check("fields", grid)
        if absent := [dim for dim in self.regrid if dim not in dataset.sizes]:
            raise ValueError(
                f"regrid names the dimension {absent[0]!r}; there are {', '.join(map(str, dataset.sizes))}"
            )
        if self.radius != 1.0 and not isinstance(grid, SphereGrid):
            raise ValueError(
                f"radius is of a sphere, and these fields lie along {', '.join(grid.dims)}; leave it out"
            )


@dataclass(frozen=True)
class Space:
    """The dimensions of space, and the way from their nodes to those of the grid."""

    dims: tuple[str, ...]
    grid: AbstractGrid
    steps: tuple[Step, ...]

    def ordered(self, values: Values) -> Other:
        """Return fields ``(..., *space)`` at the grid's nodes, in its order."""
        for step in self.steps:
            values = step(values)
        return values


def space_of(
    dataset: xr.Dataset, dims: Sequence[str], words: GridWords, repeats: Callable[[str], bool]
) -> Space:
    """Return the grid that some dimensions make, and how fields are brought onto it.

    Args:
        dataset: has the coordinates.
        dims: of space, in the file's order, which is kept but on a globe.
        words: of the user; they override what the coordinates say.
        repeats: whether the fields have the same values at both ends of a dimension.

    Raises:
        ValueError: for a boundary or length that is not known, and for nodes that no grid has.
    """
    roles = {role(dataset, dim): dim for dim in dims}
    globe = [roles.get("latitude"), roles.get("longitude")]
    if len(dims) == 2 and all(globe) and not words.of_grid:
        latitude, longitude = (str(dim) for dim in globe)
        if _is_globe(_degrees(dataset, latitude), _degrees(dataset, longitude)):
            return _sphere(dataset, latitude, longitude, words)
    axes = []
    steps: list[Step] = []
    for i, dim in enumerate(dims):
        axis, way = _axis(dataset, dim, i - len(dims), words, repeats)
        axes.append(axis)
        steps += way
    return Space(tuple(dims), Grid(*axes), tuple(steps))


def _axis(
    dataset: xr.Dataset, dim: str, place: int, words: GridWords, repeats: Callable[[str], bool]
) -> tuple[Any, list[Step]]:
    """Return an axis of a flat grid; ``place`` counts from the last one, which is −1."""
    name = re.sub(r"\W", "_", dim, flags=re.ASCII)
    why = f"there is no coordinate {dim!r}"
    if dim not in dataset.coords:
        return words.axis(name, dataset.sizes[dim], None, None, why), []
    coordinate = dataset[dim]
    points = _numbers(coordinate)
    said = coordinate.attrs  # as sobolev's own files have it
    boundary = words.of_axis("boundary", name) or said.get("boundary")
    steps: list[Step] = []
    if points[-1] < points[0]:
        points = points[::-1]
        steps.append(partial(np.flip, axis=place))
    if boundary == "periodic" and len(points) > 2 and repeats(dim):
        points = points[:-1]
        steps.append(partial(_without_last, axis=place))
    if size := words.regrid.get(dim):
        around = words.of_axis("length", name) if boundary == "periodic" else None
        even = _evenly(points, size, around)
        steps.append(partial(_interpolated, axis=place, points=points, wanted=even, around=around))
        points = even
    if not are_even(points):
        raise ValueError(
            f"the coordinates of {dim!r} are not evenly spaced, {short(points)}; pass regrid={{{dim!r}: "
            f"{len(points)}}} (--regrid {dim}={len(points)}) to interpolate the fields onto nodes that are"
        )
    axis = words.measured(name, points, boundary, f"the coordinate {dim!r} does not say")
    return replace(axis, units=str(said.get("units", "1"))), steps


def _evenly(points: Points, size: int, around: float | None) -> Float[np.ndarray, " wanted"]:
    """Return evenly spaced nodes over the same extent: of a circle so long, or from end to end."""
    if around:
        return points[0] + around / size * np.arange(size)
    return np.linspace(points[0], points[-1], size)


def _interpolated(
    values: Values,
    *,
    axis: int,
    points: Points,
    wanted: Float[np.ndarray, " wanted"],
    around: float | None,
) -> Other:
    """Return the cubic spline through ``values`` at other points along an axis, maybe a circle so long."""
    values = values.astype(np.result_type(np.float32, values.dtype))
    ends = "not-a-knot"
    if around:
        values = np.concatenate([values, np.take(values, [0], axis=axis)], axis=axis)
        points = np.append(points, points[0] + around)
        ends = "periodic"
    spline = CubicSpline(points, values, axis=axis, bc_type=ends)
    return spline(wanted).astype(values.dtype)


def _without_last(values: Values, *, axis: int) -> Other:
    return np.take(values, range(values.shape[axis] - 1), axis=axis)


def _is_globe(
    latitudes: Float[np.ndarray, " ring"], longitudes: Float[np.ndarray, " node"]
) -> bool:
    """Return whether nodes go around the earth, and from pole to pole or nearly so."""
    rings = np.sort(latitudes)
    room = _POLES * np.diff(rings).max()
    around = np.diff(np.sort(longitudes % 360.0)).max(initial=0.0) * len(longitudes) < 2 * 360.0
    return bool(rings[0] - room <= -90.0 and rings[-1] + room >= 90.0 and around)


def _sphere(dataset: xr.Dataset, latitude: str, longitude: str, words: GridWords) -> Space:
    """Return the sphere that latitudes and longitudes make."""
    rings = _degrees(dataset, latitude)
    nodes = _degrees(dataset, longitude)
    steps: list[Step] = []
    if rings[0] < rings[-1]:
        rings = rings[::-1]
        steps.append(partial(np.flip, axis=-2))
    if math.isclose(abs(nodes[-1] - nodes[0]), 360.0, abs_tol=1e-3):
        nodes = nodes[:-1]
        steps.append(partial(_without_last, axis=-1))
    nodes = np.where(np.isclose(nodes % 360.0, 360.0, atol=1e-3), 0.0, nodes % 360.0)
    eastward = np.argsort(nodes, kind="stable")
    if (eastward != np.arange(len(nodes))).any():
        nodes = nodes[eastward]
        steps.append(partial(np.take, indices=eastward, axis=-1))
    sizes = [words.regrid.get(dim) for dim in (latitude, longitude)]
    if any(sizes):
        grid = SphereGrid(
            sizes[0] or len(rings), sizes[1] or len(nodes), "equiangular", words.radius
        )
        steps.append(partial(_on_globe, rings=rings, nodes=nodes, grid=grid))
        return Space((latitude, longitude), grid, tuple(steps))
    for kind in KINDS:
        grid = SphereGrid(len(rings), len(nodes), kind, words.radius)
        if _lie_on(grid, rings, nodes):
            return Space((latitude, longitude), grid, tuple(steps))
    raise ValueError(
        f"the nodes of {latitude!r} ({short(rings)}) and {longitude!r} ({short(nodes)}) go around the globe, but are "
        "neither Gauss latitudes nor evenly spaced ones with both poles, with longitudes from 0; pass "
        f"regrid={{{latitude!r}: {len(rings) + 1}, {longitude!r}: {len(nodes)}}} (--regrid {latitude}={len(rings) + 1} "
        f"--regrid {longitude}={len(nodes)}) to interpolate, or boundary= and length= for a flat box"
    )


def _lie_on(
    grid: SphereGrid, rings: Float[np.ndarray, " ring"], nodes: Float[np.ndarray, " node"]
) -> bool:
    """Return whether these are the grid's nodes but for rounding, in degrees."""
    pairs = zip(grid.points(), (rings, nodes), strict=True)
    return all(
        np.allclose(np.degrees(wanted.numpy()), there, rtol=0, atol=2.0 / max(grid.shape) ** 1.5)
        for wanted, there in pairs
    )


def _on_globe(
    values: Values,
    *,
    rings: Float[np.ndarray, " ring"],
    nodes: Float[np.ndarray, " node"],
    grid: SphereGrid,
) -> Other:
    """Return scalar fields at the nodes of ``grid`` by cubic splines along and across the rings.

    Beyond the last ring before a pole, the ring is followed by its mean at the pole.
    """
    wanted_rings, wanted_nodes = (np.degrees(points.numpy()) for points in grid.points())
    values = values.astype(np.float64)
    around = np.concatenate([nodes[-3:] - 360.0, nodes, nodes[:3] + 360.0])
    wrapped = np.concatenate([values[..., -3:], values, values[..., :3]], axis=-1)
    along = CubicSpline(around, wrapped, axis=-1)(wanted_nodes)
    for pole, end in ((90.0, 0), (-90.0, -1)):
        if abs(rings[end] - pole) > 1e-6:
            cap = np.broadcast_to(
                along[..., [end], :].mean(-1, keepdims=True), along[..., [end], :].shape
            )
            along = np.concatenate([cap, along] if end == 0 else [along, cap], axis=-2)
            rings = np.concatenate([[pole], rings] if end == 0 else [rings, [pole]])
    found = CubicSpline(rings[::-1], along[..., ::-1, :], axis=-2)(wanted_rings)
    return found.astype(np.result_type(np.float32, values.dtype))


def _degrees(dataset: xr.Dataset, dim: str) -> Points:
    """Return a coordinate in degrees, which is what CF takes it to be where no unit is given."""
    if dim not in dataset.coords:
        raise ValueError(
            f"there is no coordinate {dim!r} to say where its nodes lie; add one in degrees, or pass boundary= and "
            "length= for a flat box"
        )
    points = _numbers(dataset[dim])
    radians = re.fullmatch("rad(ians?)?", str(dataset[dim].attrs.get("units", "")))
    return np.degrees(points) if radians else points


def _numbers(coordinate: xr.DataArray) -> Points:
    """Return a coordinate of space as numbers.

    Raises:
        ValueError: for one that is none, or holds NaN.
    """
    values = coordinate.values
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all() or len(values) < 2:
        raise ValueError(
            f"the coordinate {coordinate.name!r} must be two or more finite numbers to say where nodes lie, got "
            f"{values.dtype} values {np.array2string(values, threshold=4, edgeitems=2)}; drop it "
            f"(drop_vars({coordinate.name!r})) and pass length= instead"
        )
    return values.astype(np.float64)


def times_of(dataset: xr.Dataset, dim: str) -> tuple[list[float], str]:
    """Return the times of the frames and their unit, which count from the first frame where they are dates.

    Dates of any calendar are taken, decoded or not: ``hours since 1900-01-01`` are hours.

    Raises:
        ValueError: for times that are not known.
    """
    if dim not in dataset.coords:
        raise ValueError(
            f"the times of the {dataset.sizes[dim]} frames along {dim!r} are not known: there is no coordinate of this "
            f"name; give it one by assign_coords({dim}=...) (--coordinates {dim}=FIRST:LAST)"
        )
    coordinate = dataset[dim]
    units = str(coordinate.attrs.get("units", "1"))
    if coordinate.dtype.kind in "MmO":
        return _since_the_first(coordinate.values)
    values = coordinate.values.astype(np.float64)
    if " since " in units:
        return (values - values[0]).tolist(), units.partition(" since ")[0].strip()
    return [float(str(value)) for value in coordinate.values], units


def _since_the_first(dates: Shaped[np.ndarray, " frame"]) -> tuple[list[float], str]:
    """Return dates as the numbers of the largest unit that divides all their distances.

    >>> _since_the_first(np.array(["2000-01-01T00", "2000-01-01T06"], "datetime64[h]"))
    ([0.0, 6.0], 'hours')
    """
    if dates.dtype.kind in "Mm":
        seconds = (dates - dates[0]) / np.timedelta64(1, "s")
    else:  # cftime's
        seconds = np.array([(date - dates[0]).total_seconds() for date in dates])
    for name, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if not (seconds % length).any():
            return (seconds / length).tolist(), name
    return seconds.tolist(), "seconds"


def on_other_nodes(space: Space, target: Space) -> Space:
    """Return the way of fields on the nodes of ``space`` to those of ``target``, another number of nodes of
    the same domain.

    Raises:
        ValueError: for another domain.
    """
    resized = space.grid.resized(*target.grid.shape)
    if _renamed(resized, target.grid.dims) != target.grid:
        raise ValueError(
            f"inputs along {', '.join(space.dims)} lie on {space.grid}, outputs along {', '.join(target.dims)} on "
            f"{target.grid}; fields are brought to other numbers of nodes, but of the same domain alone"
        )

    def resampled(values: Values) -> Other:
        fields = torch.from_numpy(np.array(values, np.float64))
        return space.grid.resample(fields, resized).numpy()

    return replace(space, grid=target.grid, steps=(*space.steps, resampled))


def _renamed(grid: AbstractGrid, names: Sequence[str]) -> AbstractGrid:
    """Return the grid with other names of its axes."""
    if not isinstance(grid, Grid) or len(names) != grid.ndim:
        return grid
    return Grid(*(replace(axis, name=name) for axis, name in zip(grid.axes, names, strict=True)))
