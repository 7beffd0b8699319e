"""What comes beside the fields of a sample: its numbers, and the domain that the fields are defined on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from sobolev.grids.variables import Parameter, Variable, same_units


def check_units(array: xr.DataArray, variable: Variable) -> None:
    """Refuse values in other units than those of the training data.

    Raises:
        ValueError: naming both.
    """
    units = array.attrs.get("units")
    if units is not None and not same_units(str(units), variable.units):
        raise ValueError(
            f"{variable.name} is in units {units!r}; the surrogate was trained on {variable.units!r}"
        )


def number_of(dataset: xr.Dataset, parameter: Parameter) -> xr.DataArray:
    """Return a number, or one for each sample; warn of those outside the range of the training data.

    Raises:
        ValueError: for fields, for what is not finite, and for other units.
    """
    array = dataset[parameter.name]
    check_units(array, parameter)
    values = array.values
    if array.ndim > 1 or values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise ValueError(
            f"{parameter.name} is a finite number, or one for each sample; got {values.dtype} values along "
            f"{array.dims or 'no dimension'}"
        )
    room = 1e-6 * max(abs(parameter.low), abs(parameter.high))  # as float32 rounds the ends
    every = np.atleast_1d(values)
    outside = every[(every < parameter.low - room) | (every > parameter.high + room)]
    if len(outside):
        warnings.warn(
            f"{parameter.name} is {outside[0]:g}, and the surrogate was trained from {parameter.low:g} to "
            f"{parameter.high:g}: {len(outside)} of {len(every)} predictions are guesses",
            stacklevel=2,
        )
    return array.drop_vars(list(array.coords))


def along_samples(
    numbers: Sequence[xr.DataArray], fields: Sequence[xr.DataArray], space: Sequence[str]
) -> list[xr.DataArray]:
    """Return numbers as constant fields before the fields; where either have samples, all have them.

    Raises:
        ValueError: for samples along several dimensions.
    """
    if not numbers:
        return list(fields)
    lines = {
        dim: size
        for array in (*numbers, *fields)
        for dim, size in array.sizes.items()
        if dim not in space
    }
    if len(lines) > 1:
        raise ValueError(
            f"numbers and fields need the same samples; they lie along {' and '.join(map(repr, lines))}"
        )
    sizes: dict[Any, int] = {**lines, **{dim: fields[0].sizes[dim] for dim in space}}
    return [
        array.expand_dims({d: n for d, n in sizes.items() if d not in array.dims}).transpose(*sizes)
        for array in (*numbers, *fields)
    ]


def in_domain(
    fields: Float[Tensor, "sample given *space"], place: int, *, has_mask: bool
) -> Float[Tensor, "sample inputs *space"]:
    """Return input channels with the mask in its place, and zeros outside the domain.

    Without a mask among them, the domain is where all fields are finite.

    Raises:
        ValueError: for a mask that has other values than 0 and 1, or leaves nothing.
    """
    numbers, rest = fields.tensor_split([place], dim=1)
    if has_mask:
        mask, rest = rest.tensor_split([1], dim=1)
    else:
        mask = rest.isfinite().all(dim=1, keepdim=True).to(fields.dtype)
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("a mask is 1 in the domain and 0 outside; it has other values")
    if not bool((mask.flatten(1).amax(dim=1) == 1).all()):
        raise ValueError("the mask covers all nodes of a sample; nothing is left to predict")
    return torch.cat([numbers, mask, torch.where(mask == 1, rest, 0.0)], dim=1)
