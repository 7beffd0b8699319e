"""Fields of an ``xr.Dataset`` as tensors, once they have proved to be what a surrogate takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sobolev.grids import AbstractGrid
from sobolev.grids.description import grid_of
from sobolev.grids.variables import Variable


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
