"""Fields that follow from the stored ones: velocity from vorticity, wind and depth from a
shallow-water state."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from sobolev.datasets.recipes.base import Recipe
from sobolev.datasets.recipes.capabilities import WithDiagnostics
from sobolev.datasets.recipes.presets import class_of, recipe_from
from sobolev.grids import AbstractGrid
from sobolev.grids.description import grid_of
from sobolev.grids.variables import Variable


def diagnostics(dataset: xr.Dataset, *, recipes: Sequence[type[Recipe]] = ()) -> xr.Dataset:
    """Return the fields that follow from those of ``dataset``, with names and units, on its coordinates.

    Vorticity on the torus gives ``velocity_x``, ``velocity_y`` and ``stream_function``; a
    shallow-water state ``eastward_wind``, ``northward_wind`` (m s-1) and ``depth`` (m).

    Args:
        dataset: all or some samples and times of what ``open_dataset`` returns; its values are read.
            Dimensions and nodes may come in any order, but all nodes have to be there.
        recipes: classes from outside the package that may have drawn the data.

    Raises:
        ValueError: for a data set of which nothing follows; for missing variables, nodes that lie
            elsewhere, other units, and values that are no real numbers – each named.

    >>> diagnostics(open_dataset("data/swe").isel(sample=[0], time=[-1])).depth  # doctest: +SKIP
    """
    recipe = _recipe_of(dataset, recipes)
    if missing := [v.name for v in recipe.outputs if v.name not in dataset]:
        raise ValueError(f"diagnostics need {', '.join(missing)}, which the dataset lacks")
    whole = recipe.grid(recipe.solver_resolution)
    positions = _in_order(dataset, whole)
    ordered = dataset.isel(positions)
    grid = grid_of(ordered, whole)
    first = dataset[recipe.outputs[0].name]
    lead = [dim for dim in first.dims if dim not in grid.dims]
    state = torch.stack([_values(ordered, v, lead, grid) for v in recipe.outputs], dim=-3)
    lost = ~state.isfinite().flatten(-3).all(dim=-1)[..., None, None]  # samples that failed
    state = torch.where(lost[..., None], recipe.rest()[:, None, None], state)
    back = {dim: np.argsort(order) for dim, order in positions.items()}
    dtype = np.result_type(first.dtype, np.float32)
    fields = {}
    for v, derived in recipe.diagnostics(state, grid).items():
        values = torch.where(lost, torch.nan, derived).numpy().astype(dtype)
        field = xr.Variable((*lead, *grid.dims), values, v.attributes)
        fields[v.name] = field.isel(back).transpose(*first.dims)
    return xr.Dataset(fields, dataset.coords, dataset.attrs)


def _recipe_of(dataset: xr.Dataset, recipes: Sequence[type[Recipe]]) -> Any:
    """Return the recipe of a data set, which has to have diagnostics."""
    configuration = json.loads(dataset.attrs.get("recipe", "{}"))
    known = class_of(configuration, recipes) is not None
    recipe = recipe_from(configuration, recipes) if known else None
    if recipe is None or not isinstance(recipe, WithDiagnostics):
        raise ValueError(
            "diagnostics are known for Navier–Stokes and shallow-water data that sobolev drew; these have "
            f"the recipe {configuration.get('class', 'unknown')!r}"
        )
    return recipe


def _in_order(dataset: xr.Dataset, grid: AbstractGrid) -> dict[str, np.ndarray]:
    """Return where the nodes are that come first, second, … on ``grid``; those of axes without one number
    for each node are left for ``grid_of`` to refuse."""
    positions = {}
    for dim, points in zip(grid.dims, grid.points(), strict=True):
        nodes = dataset.coords.get(dim)
        if nodes is None or nodes.dims != (dim,) or nodes.dtype.kind not in "iuf":
            continue
        descending = len(points) > 1 and bool(points[1] < points[0])
        order = np.argsort(nodes.values, kind="stable")
        positions[dim] = order[::-1] if descending else order
    return positions


def _values(
    dataset: xr.Dataset, variable: Variable, lead: Sequence[Any], grid: AbstractGrid
) -> Float[Tensor, "*lead y x"]:
    """Return a variable in float64, with the dimensions ``lead`` before those of space."""
    array = dataset[variable.name]
    units = array.attrs.get("units")
    if units is not None and units != variable.units:
        raise ValueError(f"{variable.name} is in units {units!r}; expected {variable.units!r}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{variable.name} has dtype {array.dtype}; expected real numbers")
    dims = (*lead, *grid.dims)
    if set(array.dims) != set(dims):
        raise ValueError(
            f"{variable.name} has dimensions {array.dims}; expected {', '.join(map(str, dims))} in any order"
        )
    return torch.from_numpy(array.transpose(*dims).values.astype(np.float64))
