"""Fields of an ``xr.Dataset`` as tensors, once they have proved to be what a surrogate takes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sobolev.datasets.recipes.base import Variable
from sobolev.grids import AbstractGrid, Axis, Grid, SphereGrid
from sobolev.grids.spherical_transform import KINDS

_NODES = {
    "periodic": "the end point left out",
    "dirichlet": "both end points included",
    "neumann": "cell centres",
}


def fields_of(
    dataset: xr.Dataset, variables: Sequence[Variable], grid: AbstractGrid
) -> tuple[Tensor, AbstractGrid, xr.DataArray | None]:
    """The variables as ``(sample, variable, *space)`` in float64, ``grid`` at the sizes they have,
    and the sample coordinate if there are samples.

    Raises:
        ValueError: for a missing variable or coordinate, another unit, nodes that lie elsewhere, or
            values that are not finite – each named.
    """
    missing = [v.name for v in variables if v.name not in dataset]
    if missing:
        raise ValueError(
            f"the dataset lacks {', '.join(missing)}; it holds {', '.join(map(str, dataset.data_vars)) or 'nothing'}"
        )
    found, names = grid_of(dataset, grid), list(grid.dims)
    arrays = [_array_of(dataset, variable, names) for variable in variables]
    batched = arrays[0].dims[: -len(names)]
    if any(a.dims[: -len(names)] != batched for a in arrays):
        raise ValueError(
            "the input variables need the same samples; beside the space dimensions "
            + ", ".join(
                f"{a.name} has {a.dims[0] if a.ndim > len(names) else 'none'}" for a in arrays
            )
        )
    values = np.stack(
        [np.asarray(a.values, dtype=np.float64) for a in arrays], axis=-len(names) - 1
    )
    fields = torch.from_numpy(values if batched else values[None])
    for i, variable in enumerate(variables):
        finite = fields[:, i].flatten(1).isfinite().all(dim=1)
        if not bool(finite.all()):
            first = int((~finite).nonzero()[0, 0])
            raise ValueError(
                f"{variable.name} holds NaN or infinite values (first in sample {first})"
            )
    if not batched:
        return fields, found, None
    name = str(batched[0])
    labels = (
        arrays[0][name]
        if name in arrays[0].coords
        else xr.DataArray(np.arange(len(fields)), dims=name)
    )
    return fields, found, labels.rename(name)


def _array_of(dataset: xr.Dataset, variable: Variable, space: Sequence[str]) -> xr.DataArray:
    """A variable with its space dimensions last, in the grid's order."""
    array = dataset[variable.name]
    units = array.attrs.get("units")
    if units is not None and units != variable.units:
        raise ValueError(
            f"{variable.name} is in units {units!r}; the surrogate was trained on {variable.units!r}"
        )
    extra = [dim for dim in array.dims if dim not in space]
    if len(extra) > 1 or len(array.dims) - len(extra) != len(space):
        raise ValueError(
            f"{variable.name} has dimensions {array.dims}; expected {', '.join(space)} and at most one more"
        )
    if array.dtype.kind not in "biuf" or not array.size:
        raise ValueError(
            "the input variables must be real numbers and hold at least one field; "
            f"{variable.name} has dtype {array.dtype} and dimensions {dict(array.sizes)}"
        )
    return array.transpose(*extra, *space)


def grid_of(dataset: xr.Dataset, grid: AbstractGrid) -> AbstractGrid:
    """``grid`` at the sizes that ``dataset`` has, after checking that its nodes lie where they
    should."""
    if isinstance(grid, SphereGrid):
        return _sphere_of(dataset, grid)
    if isinstance(grid, Grid):
        return Grid(*(_axis_of(dataset, axis) for axis in grid.axes))
    raise ValueError(f"fields live on a Grid or a SphereGrid, got {type(grid).__name__}")


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
        raise ValueError(
            f"axis {axis.name!r} is {kind} in the dataset; the surrogate was trained on {axis.boundary}"
        )
    nodes = np.asarray(coordinate.values, dtype=np.float64)
    sized = replace(axis, size=len(nodes))
    expected = sized.points().numpy()
    if not np.allclose(nodes, expected, rtol=0, atol=1e-3 * sized.spacing):
        raise ValueError(
            f"the {len(nodes)} nodes of {axis.name!r} run from {nodes[0]:.6g} to {nodes[-1]:.6g}; the surrogate "
            f"needs evenly spaced nodes from {expected[0]:.6g} to {expected[-1]:.6g} "
            f"({axis.boundary}: {_NODES[axis.boundary]})"
        )
    return sized


def _sphere_of(dataset: xr.Dataset, grid: SphereGrid) -> SphereGrid:
    latitude, longitude = (_coordinate(dataset, name) for name in grid.dims)
    kind, radius = latitude.attrs.get("grid", grid.kind), _radius(latitude, grid.radius)
    if kind != grid.kind:
        raise ValueError(f"the latitudes are {kind}; the surrogate was trained on {grid.kind}")
    if not math.isclose(radius, grid.radius, rel_tol=1e-6):
        raise ValueError(
            f"the dataset's sphere has radius {radius:g}; the surrogate was trained on radius {grid.radius:g}"
        )
    rings, nodes = _degrees(latitude, "north"), _degrees(longitude, "east")
    sized = grid.resized(len(rings), len(nodes))
    if not _lie_on(rings, sized, 0):
        raise ValueError(_wrong_latitudes(rings, sized))
    if not _lie_on(nodes, sized, 1):
        raise ValueError(
            f"the {len(nodes)} longitudes run from {nodes[0]:.6g}° to {nodes[-1]:.6g}°; the surrogate needs them "
            f"evenly spaced from 0° to {360 - 360 / len(nodes):.6g}°, eastward"
        )
    return sized


def _wrong_latitudes(rings: np.ndarray, grid: SphereGrid) -> str:
    needs = f"the surrogate needs them {grid.kind}, from north to south"
    if _lie_on(rings[::-1], grid, 0):
        remedy = 'dataset.sortby("lat", ascending=False) turns them'
        return f"the latitudes run from south to north; {needs}: {remedy}"
    others = [k for k in KINDS if k != grid.kind and _lie_on(rings, replace(grid, kind=k), 0)]
    if others:
        return f"the latitudes are {others[0]}; {needs}"
    first, last = np.degrees(grid.points()[0].numpy()[[0, -1]])
    return (
        f"the {len(rings)} latitudes run from {rings[0]:.6g}° to {rings[-1]:.6g}°; {needs}, {first:.6g}° to "
        f"{last:.6g}°"
    )


def _lie_on(nodes: np.ndarray, grid: SphereGrid, axis: int) -> bool:
    """Whether ``nodes``, in degrees, are those of an axis of ``grid``."""
    expected = np.degrees(grid.points()[axis].numpy())
    return np.allclose(nodes, expected, rtol=0, atol=0.18 / grid.shape[axis])


def _radius(latitude: xr.DataArray, default: float) -> float:
    radius = latitude.attrs.get("radius", default)
    try:
        return float(radius)
    except (TypeError, ValueError):
        raise ValueError(
            f"{latitude.name} has radius {radius!r}; expected a number, as the surrogate's {default:g}"
        ) from None


def _degrees(coordinate: xr.DataArray, direction: str) -> np.ndarray:
    """Angles in degrees, which is what CF takes them to be where no unit is given."""
    values = np.asarray(coordinate.values, dtype=np.float64)
    units = str(coordinate.attrs.get("units", "degrees"))
    if re.fullmatch(rf"degrees?(_?{direction}|_?{direction[0].upper()})?", units):
        return values
    if re.fullmatch("rad(ians?)?", units):
        return np.degrees(values)
    raise ValueError(
        f"{coordinate.name} is in units {units!r}; expected degrees_{direction}, degrees or radians"
    )
