"""Fields of an ``xr.Dataset`` as tensors, once they have proved to be what a surrogate takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from sobolev.grids import AbstractGrid
from sobolev.grids.description import grid_of
from sobolev.grids.variables import Variable
from sobolev.surrogates.meaning import Meaning


@dataclass(frozen=True)
class Given:
    """The fields that a surrogate is given, in float64, with their grid, and their samples if any."""

    fields: Float[Tensor, "sample variable ..."]
    grid: AbstractGrid
    samples: xr.DataArray | None

    @property
    def sample_dim(self) -> str:
        """The dimension that the samples lie along."""
        return "sample" if self.samples is None else str(self.samples.name)

    def refuse_names(self, names: Sequence[str], what: str) -> None:
        """Refuse samples that lie along a dimension that is called like one of ``names``.

        Raises:
            ValueError: if they do.
        """
        if self.sample_dim in names:
            raise ValueError(
                f"the samples lie along {self.sample_dim!r}, which is {what}'s name; rename the dimension"
            )


def given_inputs(dataset: xr.Dataset, meaning: Meaning) -> Given:
    """Return the fields that ``Surrogate.predict`` takes from a dataset: the inputs by their names, or
    frames.

    Raises:
        ValueError: for what is no dataset, samples that are called like an output, and as
            ``given_fields`` and ``given_frames``.
    """
    if not isinstance(dataset, xr.Dataset):
        raise ValueError(f"predict takes an xr.Dataset, got {type(dataset).__name__}")
    if are_frames(dataset, meaning):
        times_after(dataset, meaning, meaning.in_time.horizon)  # refuses other times
        given = given_frames(dataset, meaning)
    else:
        given = given_fields(dataset, meaning)
    given.refuse_names([v.name for v in meaning.outputs], "an output")
    return given


def given_fields(dataset: xr.Dataset, meaning: Meaning) -> Given:
    """Return the inputs of a surrogate, by their names.

    Raises:
        ValueError: for a missing variable or coordinate, another unit, nodes that lie elsewhere, or
            values that are not finite – each named.
    """
    variables = meaning.inputs
    if missing := [v.name for v in variables if v.name not in dataset]:
        raise ValueError(
            f"the dataset lacks {', '.join(missing)}; it holds {', '.join(map(str, dataset.data_vars)) or 'nothing'}"
        )
    grid = grid_of(dataset, meaning.grid)
    arrays = [_array_of(dataset, variable, grid.dims) for variable in variables]
    fields = _stacked(arrays, grid.ndim)
    for i, variable in enumerate(variables):
        _check_finite(fields[:, i], variable)
    return Given(fields, grid, _samples(arrays[0], grid.ndim))


def given_frames(dataset: xr.Dataset, meaning: Meaning) -> Given:
    """Return the inputs of a surrogate in time, from frames along ``time`` and static inputs without it.

    Raises:
        ValueError: as ``given_fields``, and for quantities without time.
    """
    names = [v.name for v in meaning.quantities]
    for name in names:
        if name not in dataset or "time" not in dataset[name].dims:
            raise ValueError(
                f"a rollout starts from frames of {', '.join(names)} along time; the dataset has "
                + (f"{name} along {dataset[name].dims}" if name in dataset else f"no {name}")
            )
    frames = {}
    for i, channel in enumerate(meaning.in_time.inputs(meaning.quantities)):
        time, number = divmod(i, len(names))
        frames[channel.name] = dataset[names[number]].isel(time=time, drop=True)
    return given_fields(dataset.drop_vars(names).assign(frames), meaning)


def are_frames(dataset: xr.Dataset, meaning: Meaning) -> bool:
    """Return whether a dataset holds frames along ``time`` rather than the inputs by their names."""
    if meaning.window is None:
        return False
    names = [v.name for v in meaning.quantities]
    return all(name in dataset and "time" in dataset[name].dims for name in names)


def times_after(dataset: xr.Dataset, meaning: Meaning, frames: int) -> xr.Variable:
    """Return the times of the ``frames`` that follow those given.

    Raises:
        ValueError: if they cannot be known, or the given ones are not as far apart as in training.
    """
    window = meaning.in_time
    interval = meaning.provenance.data.interval
    if interval is None:
        raise ValueError(
            "the surrogate does not know when its frames are: the training data had no evenly spaced times, or it was "
            "saved by an older version of sobolev; sobolev.surrogates.rollout.rollout goes from tensors to tensors"
        )
    if "time" not in dataset.coords or dataset["time"].dtype.kind not in "iuf":
        raise ValueError(
            "the dataset has no coordinate 'time' of numbers to say when its frames are"
        )
    time = dataset["time"]
    units = time.attrs.get("units")
    trained = meaning.provenance.data.time_units
    if units is not None and trained is not None and units != trained:
        raise ValueError(f"time is in units {units!r}; the surrogate was trained on {trained!r}")
    times = np.atleast_1d(np.asarray(time.values, dtype=np.float64))
    evenly = np.allclose(np.diff(times), interval, rtol=1e-4, atol=0.0)
    if len(times) != window.history or not evenly:
        end = window.history * window.stride
        step = f", {window.stride}" if window.stride > 1 else ""
        raise ValueError(
            f"the surrogate takes {window.history} frames, {interval:g} apart; the dataset's times are "
            f"{np.array2string(times, threshold=6, precision=6)}. From data stored like those of training, "
            f"isel(time=slice(0, {end}{step})) takes the first"
        )
    return xr.Variable("time", times[-1] + interval * np.arange(1, frames + 1), time.attrs)


def _stacked(arrays: Sequence[xr.DataArray], ndim: int) -> Float[Tensor, "sample variable *space"]:
    """Return arrays of one shape as channels."""
    if any(a.dims[:-ndim] != arrays[0].dims[:-ndim] for a in arrays):
        raise ValueError(
            "the input variables need the same samples; beside the space dimensions "
            + ", ".join(f"{a.name} has {a.dims[0] if a.ndim > ndim else 'none'}" for a in arrays)
        )
    values = np.stack([np.asarray(a.values, dtype=np.float64) for a in arrays], axis=-ndim - 1)
    return torch.from_numpy(values if arrays[0].ndim > ndim else values[None])


def _check_finite(fields: Float[Tensor, "sample ..."], variable: Variable) -> None:
    finite = fields.flatten(1).isfinite().all(dim=1)
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0, 0])
        raise ValueError(f"{variable.name} holds NaN or infinite values (first in sample {first})")


def _samples(array: xr.DataArray, ndim: int) -> xr.DataArray | None:
    """Return the coordinate of the samples, or their numbers where there is none."""
    if array.ndim == ndim:
        return None
    name = str(array.dims[0])
    if name in array.coords:
        return array[name].rename(name)
    return xr.DataArray(np.arange(array.sizes[name]), dims=name).rename(name)


def _array_of(dataset: xr.Dataset, variable: Variable, space: Sequence[str]) -> xr.DataArray:
    """Return a variable with its space dimensions last, in the grid's order."""
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
