"""Tensors as an ``xr.Dataset`` with names, units and coordinates."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from sobolev.grids import AbstractGrid
from sobolev.grids.description import axis_coords
from sobolev.grids.variables import Variable
from sobolev.surrogates.provenance import Provenance
from sobolev.surrogates.tensors import Given


def dataset_of(
    fields: Mapping[Variable, Float[Tensor, " sample *time_and_space"]],
    given: Given,
    *,
    source: str,
    provenance: Provenance,
    grid: AbstractGrid | None = None,
    times: xr.Variable | None = None,
    extra: Mapping[str, xr.Variable] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Return fields that were made of given ones as a dataset of the same samples, with their labels.

    Args:
        fields: ``(sample, [time,] *space)`` of each variable, on the CPU.
        given: the fields that they were made of.
        source: says in words what made them.
        provenance: of the surrogate that made them.
        grid: of ``fields``, if other than that given.
        times: of the frames, if there are any.
        extra: further variables along the samples.
        attributes: further global attributes.
    """
    grid = given.grid if grid is None else grid
    dims = (given.sample_dim, *(() if times is None else ("time",)), *grid.dims)
    variables = {
        v.name: xr.Variable(dims, _with_gaps(u, given.domain).numpy(), v.attributes)
        for v, u in fields.items()
    }
    result = xr.Dataset(
        {**variables, **(extra or {})},
        {**({} if times is None else {"time": times}), **axis_coords(grid)},
        {
            "Conventions": "CF-1.11",
            "source": f"sobolev {importlib.metadata.version('sobolev')} {source}",
            "provenance": json.dumps(provenance.to_json(), sort_keys=True),
            **(attributes or {}),
        },
    )
    if given.samples is None:
        result = result.isel({given.sample_dim: 0})
    return given.arrangement.theirs(result.assign_coords(given.labels))


def _with_gaps(
    field: Float[Tensor, " sample *time_and_space"], domain: Float[Tensor, " sample *space"] | None
) -> Float[Tensor, " sample *time_and_space"]:
    """Return a field that is NaN outside its domain."""
    if domain is None:
        return field
    lead = field.ndim - domain.ndim
    shaped = domain.reshape(len(domain), *[1] * lead, *domain.shape[1:])
    return field.masked_fill(shaped == 0, torch.nan)
