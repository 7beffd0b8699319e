"""Fields that follow from the stored ones: velocity from vorticity, wind and depth from a
shallow-water state."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from sobolev.datasets.recipes.base import Recipe
from sobolev.datasets.recipes.capabilities import WithDiagnostics
from sobolev.datasets.recipes.presets import class_of, recipe_from


def diagnostics(dataset: xr.Dataset, *, recipes: Sequence[type[Recipe]] = ()) -> xr.Dataset:
    """Return the fields that follow from those of ``dataset``, with names and units, on its coordinates.

    Vorticity on the torus gives ``velocity_x``, ``velocity_y`` and ``stream_function``; a
    shallow-water state ``eastward_wind``, ``northward_wind`` (m s-1) and ``depth`` (m).

    Args:
        dataset: all or some samples and times of what ``open_dataset`` returns; its values are read.
        recipes: classes from outside the package that may have drawn the data.

    Raises:
        ValueError: for a data set of which nothing follows.

    >>> diagnostics(open_dataset("data/swe").isel(sample=[0], time=[-1])).depth  # doctest: +SKIP
    """
    configuration = json.loads(dataset.attrs.get("recipe", "{}"))
    known = class_of(configuration, recipes) is not None
    recipe = recipe_from(configuration, recipes) if known else None
    if recipe is None or not isinstance(recipe, WithDiagnostics):
        raise ValueError(
            "diagnostics are known for Navier–Stokes and shallow-water data that sobolev drew; these have "
            f"the recipe {configuration.get('class', 'unknown')!r}"
        )
    names = [v.name for v in recipe.outputs]
    first = dataset[names[0]]
    space = [str(dim) for dim in first.dims[-2:]]
    grid = recipe.grid(dataset.sizes[space[0]])
    if grid.shape != tuple(dataset.sizes[dim] for dim in space):
        raise ValueError(
            f"diagnostics need whole fields of shape {tuple(grid.shape)}, got {dict(dataset.sizes)}"
        )
    state = torch.from_numpy(np.stack([dataset[n].values for n in names], axis=-3)).double()
    lost = ~state.isfinite().flatten(-3).all(dim=-1)[..., None, None]  # samples that failed
    state = torch.where(lost[..., None], recipe.rest()[:, None, None], state)
    fields = {}
    for v, derived in recipe.diagnostics(state, grid).items():
        values = torch.where(lost, torch.nan, derived).numpy().astype(first.dtype)
        fields[v.name] = xr.Variable(first.dims, values, v.attributes)
    return xr.Dataset(fields, dataset.coords, dataset.attrs)
