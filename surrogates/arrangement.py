"""Names and order of a dataset's nodes, as ``store_fields`` takes them, and the way back."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from sobolev.grids import AbstractGrid, SphereGrid
from sobolev.grids.roles import role


@dataclass(frozen=True)
class Arrangement:
    """What a dataset's space dimensions are called, and where the nodes lie that come first, second, …

    Latitudes may rise, longitudes run from −180° or close their circle, coordinates of a box fall.
    Nothing is said here of whether the nodes are those of the grid, which ``grid_of`` checks.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    """Theirs, by ours, where they differ."""
    places: Mapping[str, Int[np.ndarray, " _"]] = field(default_factory=dict)
    """By our name, for each of our nodes the place that it has there, where any is another."""
    coords: Mapping[str, xr.Variable] = field(default_factory=dict)
    """The coordinates of rearranged axes, by our name, as they were given."""
    circle: float | None = None
    """What a longitude grows by once around, on a sphere."""

    @classmethod
    def of(cls, dataset: xr.Dataset, grid: AbstractGrid) -> Arrangement:
        """Return how a dataset is arranged."""
        names = _names(dataset, grid)
        found = dataset.rename({theirs: ours for ours, theirs in names.items()})
        circle = _circle(found) if isinstance(grid, SphereGrid) else None
        places = {dim: _places(found, dim, circle) for dim in grid.dims if _is_line(found, dim)}
        moved = {
            dim: order
            for dim, order in places.items()
            if not np.array_equal(order, np.arange(found.sizes[dim]))
        }
        return cls(names, moved, {dim: found[dim].variable for dim in moved}, circle)

    def ours(self, dataset: xr.Dataset) -> xr.Dataset:
        """Return a dataset of theirs with the grid's names, in its order."""
        renamed = dataset.rename({theirs: ours for ours, theirs in self.names.items()})
        moved = renamed.isel(self.places)
        if self.circle is None or "lon" not in self.places:
            return moved
        east = xr.Variable("lon", _eastward(moved.lon.values, self.circle), moved.lon.attrs)
        return moved.assign_coords(lon=east)

    def theirs(self, dataset: xr.Dataset) -> xr.Dataset:
        """Return a dataset of ours with their names and, if it has as many nodes, in their order."""
        for dim, order in self.places.items():
            if dataset.sizes[dim] == len(order):
                back = np.zeros(
                    len(self.coords[dim]), dtype=int
                )  # the end of a circle is its first node
                back[order] = np.arange(len(order))
                dataset = dataset.isel({dim: back}).assign_coords({dim: self.coords[dim]})
        return dataset.rename({k: v for k, v in self.names.items() if k in dataset.dims})


def _names(dataset: xr.Dataset, grid: AbstractGrid) -> dict[str, str]:
    """Return their names of our dimensions, where they are others and can be told."""
    missing = [dim for dim in grid.dims if dim not in dataset.dims and dim not in dataset.coords]
    found = {}
    for dim in missing:
        meant = [other for other in map(str, dataset.dims) if _means(dataset, other, dim, grid)]
        if len(meant) == 1:
            found[dim] = meant[0]
    return found


def _means(dataset: xr.Dataset, other: str, dim: str, grid: AbstractGrid) -> bool:
    """Return whether a dimension of another name is one of the grid's."""
    if isinstance(grid, SphereGrid):
        return role(dataset, other) == {"lat": "latitude", "lon": "longitude"}[dim]
    return re.sub(r"\W", "_", other, flags=re.ASCII) == dim  # as store_fields made a word of it


def _is_line(dataset: xr.Dataset, dim: str) -> bool:
    """Return whether a dimension has a number for each of its nodes, two of them or more."""
    nodes = dataset.coords.get(dim)
    return (
        nodes is not None and nodes.dims == (dim,) and nodes.dtype.kind in "iuf" and nodes.size > 1
    )


def _circle(dataset: xr.Dataset) -> float | None:
    """Return the longitude of the whole circle, in the coordinate's units."""
    if not _is_line(dataset, "lon"):
        return None
    return 2 * math.pi if str(dataset.lon.attrs.get("units", "")).startswith("rad") else 360.0


def _places(dataset: xr.Dataset, dim: str, circle: float | None) -> Int[np.ndarray, " _"]:
    """Return for each node of the grid, in its order, the place that it has there."""
    nodes = dataset[dim].values.astype(np.float64)
    whole = np.arange(len(nodes))
    if circle is None or dim == "lat":
        falls = bool(nodes[-1] < nodes[0])
        should_fall = circle is not None  # of all coordinates only a sphere's latitudes
        return whole if falls == should_fall else whole[::-1]
    if np.isclose(abs(nodes[-1] - nodes[0]), circle, rtol=1e-5):
        whole = whole[:-1]
    return whole[np.argsort(_eastward(nodes[whole], circle), kind="stable")]


def _eastward(nodes: Float[np.ndarray, " _"], circle: float) -> Float[np.ndarray, " _"]:
    """Return longitudes from 0 to a circle, without its end."""
    east = nodes % circle
    return np.where(np.isclose(east, circle, rtol=1e-5), 0.0, east)
