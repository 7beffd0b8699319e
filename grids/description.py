"""Grids as JSON, and as the coordinates of an ``xr.Dataset``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import xarray as xr

from sobolev.grids.axis import Axis
from sobolev.grids.grid import AbstractGrid, Grid
from sobolev.grids.sphere import SphereGrid
from sobolev.grids.spherical_transform import KINDS

_NODES_IN_WORDS = {
    "periodic": "the end point left out",
    "dirichlet": "both end points included",
    "neumann": "cell centres",
}


def describe_grid(grid: AbstractGrid) -> dict[str, Any]:
    """Return a grid as JSON.

    >>> describe_grid(Grid.periodic(8))["axes"][0]["size"]
    8

    Raises:
        ValueError: for a grid that is neither a ``Grid`` nor a ``SphereGrid``.
    """
    if isinstance(grid, Grid):
        return {"axes": [_description_of(axis) for axis in grid.axes]}
    if isinstance(grid, SphereGrid):
        return {"sphere": asdict(grid)}
    raise _unknown(grid)


def _description_of(axis: Axis) -> dict[str, Any]:
    """Return an axis as JSON, its units only where it has some."""
    found = asdict(axis)
    return found if axis.units != "1" else {k: v for k, v in found.items() if k != "units"}


def grid_from(description: Mapping[str, Any]) -> AbstractGrid:
    """Return the grid that ``describe_grid`` described.

    >>> grid_from(describe_grid(SphereGrid(8, 16))) == SphereGrid(8, 16)
    True
    """
    if "sphere" in description:
        return SphereGrid(**description["sphere"])
    return Grid(*(Axis(**axis) for axis in description["axes"]))


def axis_coords(grid: AbstractGrid) -> dict[str, xr.Variable]:
    """Return the coordinates that say where each node lies and how its axis ends, with CF attributes."""
    if isinstance(grid, Grid):
        return {axis.name: _coordinate_of(axis) for axis in grid.axes}
    if not isinstance(grid, SphereGrid):
        raise _unknown(grid)
    latitudes, longitudes = (np.degrees(points.numpy()) for points in grid.points())
    north = {"axis": "Y", "units": "degrees_north", "standard_name": "latitude"}
    east = {"axis": "X", "units": "degrees_east", "standard_name": "longitude"}
    sphere = {"grid": grid.kind, "radius": grid.radius}
    return {
        "lat": xr.Variable("lat", latitudes, {**north, **sphere}),
        "lon": xr.Variable("lon", longitudes, east),
    }


def in_words(grid: AbstractGrid, *, sizes: bool = True) -> str:
    """Return nodes, boundaries and extents as a person says them; without ``sizes`` the domain alone.

    >>> in_words(Grid.dirichlet(5, 9))
    'y: 5 nodes, dirichlet, [0, 1]; x: 9 nodes, dirichlet, [0, 1]'
    >>> in_words(SphereGrid(8, 16), sizes=False)
    'a sphere (legendre-gauss, radius 1)'
    """
    if isinstance(grid, SphereGrid):
        if not sizes:
            return f"a sphere ({grid.kind}, radius {grid.radius:.9g})"
        return f"{by(grid.shape)} {grid.kind} nodes on a sphere of radius {grid.radius:g}"
    if not isinstance(grid, Grid):
        raise _unknown(grid)
    if not sizes:
        return ", ".join(
            f"{a.name} ({a.boundary}, {a.origin:.9g} to {a.origin + a.length:.9g})"
            for a in grid.axes
        )
    return "; ".join(
        f"{a.name}: {a.size} nodes, {a.boundary}, [{a.origin:g}, {a.origin + a.length:.6g}]"
        for a in grid.axes
    )


def by(sizes: Iterable[int]) -> str:
    """Return sizes as a person says them.

    >>> by((64, 128))
    '64 × 128'
    """
    return " × ".join(map(str, sizes))


def grid_of(dataset: xr.Dataset, grid: AbstractGrid) -> AbstractGrid:
    """Return ``grid`` at the sizes that ``dataset`` has, once its nodes have proved to lie where they
    should.

    Raises:
        ValueError: for a missing coordinate, or nodes that lie elsewhere, saying where they should.
    """
    if isinstance(grid, SphereGrid):
        return _sphere_of(dataset, grid)
    if isinstance(grid, Grid):
        return Grid(*(_axis_of(dataset, axis) for axis in grid.axes))
    raise _unknown(grid)


def _unknown(grid: object) -> ValueError:
    return ValueError(f"fields live on a Grid or a SphereGrid, got {type(grid).__name__}")


def _coordinate_of(axis: Axis) -> xr.Variable:
    extent = {"boundary": axis.boundary, "origin": axis.origin, "length": axis.length}
    about = {"axis": axis.name.upper(), "units": axis.units, **extent}
    return xr.Variable(axis.name, axis.points().numpy(), about)


def _coordinate(dataset: xr.Dataset, name: str) -> xr.DataArray:
    if name not in dataset.coords:
        raise ValueError(f"the dataset has no coordinate {name!r} to say where its nodes lie")
    coordinate = dataset[name]
    if coordinate.dims != (name,) or coordinate.dtype.kind not in "iuf":
        along = f"dimensions ({', '.join(map(str, coordinate.dims))})"
        raise ValueError(
            f"coordinate {name!r} has {along} and dtype {coordinate.dtype}; expected one number for each node along "
            f"the dimension {name!r}"
        )
    return coordinate


def _axis_of(dataset: xr.Dataset, axis: Axis) -> Axis:
    coordinate = _coordinate(dataset, axis.name)
    kind = coordinate.attrs.get("boundary", axis.boundary)
    if kind != axis.boundary:
        raise ValueError(f"axis {axis.name!r} is {kind} in the dataset; expected {axis.boundary}")
    nodes = np.asarray(coordinate.values, dtype=np.float64)
    sized = replace(axis, size=len(nodes))
    expected = sized.points().numpy()
    if not np.allclose(nodes, expected, rtol=0, atol=1e-3 * sized.spacing):
        raise ValueError(
            f"the {len(nodes)} nodes of {axis.name!r} run from {nodes[0]:.6g} to {nodes[-1]:.6g}; expected "
            f"evenly spaced nodes from {expected[0]:.6g} to {expected[-1]:.6g} "
            f"({axis.boundary}: {_NODES_IN_WORDS[axis.boundary]})"
        )
    return sized


def _sphere_of(dataset: xr.Dataset, grid: SphereGrid) -> SphereGrid:
    latitude, longitude = (_coordinate(dataset, name) for name in grid.dims)
    kind = latitude.attrs.get("grid", grid.kind)
    radius = _radius(latitude, grid.radius)
    if kind != grid.kind:
        raise ValueError(f"the latitudes are {kind}; expected {grid.kind}")
    if not math.isclose(radius, grid.radius, rel_tol=1e-6):
        raise ValueError(f"the dataset's sphere has radius {radius:g}; expected {grid.radius:g}")
    rings = _degrees(latitude, "north")
    nodes = _degrees(longitude, "east")
    sized = grid.resized(len(rings), len(nodes))
    if not _are_nodes_of(rings, sized, 0):
        raise ValueError(_wrong_latitudes(rings, sized))
    if not _are_nodes_of(nodes, sized, 1):
        raise ValueError(
            f"the {len(nodes)} longitudes run from {nodes[0]:.6g}° to {nodes[-1]:.6g}°; expected them "
            f"evenly spaced from 0° to {360 - 360 / len(nodes):.6g}°, eastward"
        )
    return sized


def _wrong_latitudes(rings: np.ndarray, grid: SphereGrid) -> str:
    needs = f"expected them {grid.kind}, from north to south"
    others = [k for k in KINDS if k != grid.kind and _are_nodes_of(rings, replace(grid, kind=k), 0)]
    if others:
        return f"the latitudes are {others[0]}; {needs}"
    first, last = np.degrees(grid.points()[0].numpy()[[0, -1]])
    return (
        f"the {len(rings)} latitudes run from {rings[0]:.6g}° to {rings[-1]:.6g}°; {needs}, {first:.6g}° to "
        f"{last:.6g}°"
    )


def _are_nodes_of(nodes: np.ndarray, grid: SphereGrid, axis: int) -> bool:
    """Return true if ``nodes``, in degrees, are those of an axis of ``grid``."""
    expected = np.degrees(grid.points()[axis].numpy())
    return np.allclose(nodes, expected, rtol=0, atol=0.18 / grid.shape[axis])


def _radius(latitude: xr.DataArray, default: float) -> float:
    radius = latitude.attrs.get("radius", default)
    try:
        return float(radius)
    except (TypeError, ValueError):
        raise ValueError(
            f"{latitude.name} has radius {radius!r}; expected a number, such as {default:g}"
        ) from None


def _degrees(coordinate: xr.DataArray, direction: str) -> np.ndarray:
    """Return angles in degrees, which is what CF takes them to be where no unit is given."""
    values = np.asarray(coordinate.values, dtype=np.float64)
    units = str(coordinate.attrs.get("units", "degrees"))
    if re.fullmatch(rf"degrees?(_?{direction}|_?{direction[0].upper()})?", units):
        return values
    if re.fullmatch("rad(ians?)?", units):
        return np.degrees(values)
    raise ValueError(
        f"{coordinate.name} is in units {units!r}; expected degrees_{direction}, degrees or radians"
    )
