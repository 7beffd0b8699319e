"""Fields that follow from the stored ones: velocity from vorticity, wind and depth from a
shallow-water state."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sobolev.datasets.recipes.base import Recipe
from sobolev.datasets.recipes.flows import NavierStokesRecipe, ShallowWaterRecipe
from sobolev.datasets.recipes.presets import recipe_from
from sobolev.grids.variables import Variable
from sobolev.solvers import ShallowWater
from sobolev.solvers.navier_stokes.states import stream_function, velocity


def diagnostics(dataset: xr.Dataset) -> xr.Dataset:
    """What follows from the fields of ``dataset``, with names and units, on its coordinates.

    Vorticity on the torus gives ``velocity_x``, ``velocity_y`` and ``stream_function``; a
    shallow-water state ``eastward_wind``, ``northward_wind`` (m s-1) and ``depth`` (m).

    Args:
        dataset: all or some samples and times of what ``open_dataset`` returns; its values are read.

    Raises:
        ValueError: for a data set of which nothing follows.

    >>> diagnostics(open_dataset("data/swe").isel(sample=[0], time=[-1])).depth  # doctest: +SKIP
    """
    recipe = _recipe_of(dataset)
    names = [v.name for v in recipe.outputs]
    space = [str(dim) for dim in dataset[names[0]].dims[-2:]]
    grid = recipe.grid(dataset.sizes[space[0]])
    if grid.shape != tuple(dataset.sizes[dim] for dim in space):
        raise ValueError(
            f"diagnostics need whole fields of shape {tuple(grid.shape)}, got {dict(dataset.sizes)}"
        )
    state = torch.from_numpy(np.stack([dataset[n].values for n in names], axis=-3)).double()
    lost = ~state.isfinite().flatten(-3).all(dim=-1)[..., None, None]  # samples that failed
    state = torch.where(lost[..., None], _rest(recipe), state)
    if isinstance(recipe, NavierStokesRecipe):
        state = state - state.mean(dim=(-2, -1), keepdim=True)  # rounding, or folded modes
    derive = _FLOW if isinstance(recipe, NavierStokesRecipe) else _LAYER
    dims, like = dataset[names[0]].dims, dataset[names[0]].dtype
    fields = {}
    for v, derived in derive:
        values = torch.where(lost, torch.nan, derived(state, grid)).numpy().astype(like)
        fields[v.name] = xr.Variable(dims, values, {"long_name": v.long_name, "units": v.units})
    return xr.Dataset(fields, dataset.coords, dataset.attrs)


def _rest(recipe: Recipe) -> Tensor:
    """A state at rest, ``(channel, 1, 1)``, to compute with where a sample is lost."""
    rest = torch.zeros(len(recipe.outputs), 1, 1, dtype=torch.float64)
    if isinstance(recipe, ShallowWaterRecipe):
        rest[2] = 1.0
    return rest


def _recipe_of(dataset: xr.Dataset) -> Recipe:
    configuration = json.loads(dataset.attrs.get("recipe", "{}"))
    if "class" in configuration and configuration["class"] != "Imported":
        recipe = recipe_from(configuration)
        if isinstance(recipe, (NavierStokesRecipe, ShallowWaterRecipe)):
            return recipe
    raise ValueError(
        "diagnostics are known for Navier–Stokes and shallow-water data that sobolev drew; these have "
        f"the recipe {configuration.get('class', 'unknown')!r}"
    )


Diagnostic = tuple[Variable, Callable[[Tensor, Any], Tensor]]


def _flow_velocity(component: int) -> Callable[[Tensor, Any], Tensor]:
    return lambda state, grid: velocity(state[..., 0, :, :], grid)[..., component, :, :]


def _wind(component: int) -> Callable[[Tensor, Any], Tensor]:
    return lambda state, grid: ShallowWater().velocity(state, grid)[..., component, :, :]


_FLOW: tuple[Diagnostic, ...] = (
    (Variable("velocity_x", "velocity along x", "1"), _flow_velocity(0)),
    (Variable("velocity_y", "velocity along y", "1"), _flow_velocity(1)),
    (
        Variable("stream_function", "stream function", "1"),
        lambda state, grid: stream_function(state[..., 0, :, :], grid),
    ),
)
_LAYER: tuple[Diagnostic, ...] = (
    (Variable("eastward_wind", "eastward wind", "m s-1"), _wind(0)),
    (Variable("northward_wind", "northward wind", "m s-1"), _wind(1)),
    (
        Variable("depth", "depth of the layer", "m"),
        lambda state, grid: ShallowWater().height(state, grid),
    ),
)
