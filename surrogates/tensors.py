"""Fields of an ``xr.Dataset`` as tensors, once they have proved to be what a surrogate takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from sobolev.datasets.store.manifest import ERROR, STATUS
from sobolev.grids import AbstractGrid
from sobolev.grids.description import grid_of
from sobolev.grids.variables import Variable
from sobolev.surrogates.arrangement import Arrangement
from sobolev.surrogates.meaning import Meaning
from sobolev.surrogates.numbers import along_samples, check_units, in_domain, number_of
from sobolev.surrogates.times import time_after_fields, times_after, times_after_each


@dataclass(frozen=True)
class Given:
    """The fields that a surrogate is given, in float64, with their grid.

    ``samples`` is the dimension that they lie along, None for a single field; ``labels`` are the
    coordinates that what is made of them has from its samples.
    """

    fields: Float[Tensor, "sample variable ..."]
    grid: AbstractGrid
    samples: str | None
    labels: xr.Coordinates
    domain: Float[Tensor, " sample *space"] | None = None
    """1 in the domain of the fields and 0 outside, where it is a part of the grid's box."""
    arrangement: Arrangement = field(default_factory=Arrangement)
    """How they were given, and what is made of them is returned."""

    @property
    def sample_dim(self) -> str:
        """The dimension that the samples lie along, or would."""
        return "sample" if self.samples is None else self.samples

    def refuse_names(self, names: Iterable[str], what: str) -> None:
        """Refuse samples whose dimension or labels are called like one of ``names``.

        Raises:
            ValueError: if they are.
        """
        taken = set(names)
        if self.sample_dim in taken:
            raise ValueError(
                f"the samples lie along {self.sample_dim!r}, which is {what}'s name; rename the dimension"
            )
        for label in self.labels:
            if label in taken:
                raise ValueError(
                    f"the samples have a coordinate {label!r}, which is {what}'s name; rename the coordinate or drop it"
                )


def given_inputs(dataset: xr.Dataset, meaning: Meaning) -> Given:
    """Return the fields that ``Surrogate.predict`` takes from a dataset: the inputs by their names, or
    frames.

    Raises:
        ValueError: for what is no dataset, samples with a name of an output, and as ``given_fields``
            and ``given_frames``.
    """
    if not isinstance(dataset, xr.Dataset):
        raise ValueError(f"predict takes an xr.Dataset, got {type(dataset).__name__}")
    arrangement = Arrangement.of(dataset, meaning.grid)
    dataset = arrangement.ours(dataset)
    if not are_frames(dataset, meaning):
        given = _fields(dataset, meaning)
        moment = time_after_fields(dataset, meaning)
    elif _are_single_frames(dataset, meaning):
        moment = times_after_each(dataset, meaning)
        given = _fields(_with_static_frames(dataset, meaning), meaning)
    else:
        times = times_after(dataset, meaning, meaning.in_time.horizon)
        given = _frames(dataset, meaning)
        moment = times[0] if len(times) == 1 else None
    given = replace(given, arrangement=arrangement)
    if moment is not None:
        given = replace(given, labels=given.labels.assign(time=moment))
    given.refuse_names([v.name for v in meaning.outputs], "an output")
    return given


def given_fields(dataset: xr.Dataset, meaning: Meaning) -> Given:
    """Return the inputs of a surrogate, by their names.

    Raises:
        ValueError: for a missing variable or coordinate, another unit, nodes that lie elsewhere, or
            values that are not finite – each named.
    """
    arrangement = Arrangement.of(dataset, meaning.grid)
    return replace(_fields(arrangement.ours(dataset), meaning), arrangement=arrangement)


def _fields(dataset: xr.Dataset, meaning: Meaning) -> Given:
    """Return inputs by their names, from a dataset with the grid's own names and order of nodes."""
    derived = meaning.mask not in dataset  # from gaps in the fields
    variables = [v for v in meaning.inputs if not (derived and v.name == meaning.mask)]
    if missing := [v.name for v in variables if v.name not in dataset]:
        raise ValueError(
            f"the dataset lacks {', '.join(missing)}; it holds {', '.join(map(str, dataset.data_vars)) or 'nothing'}"
        )
    grid = grid_of(dataset, meaning.grid)
    count = len(meaning.parameters)
    arrays = along_samples(
        [number_of(dataset, parameter) for parameter in meaning.parameters],
        [_array_of(dataset, v, grid.dims) for v in variables[count:]],
        grid.dims,
    )
    fields = _stacked(arrays, grid.ndim)
    if meaning.mask is not None:
        fields = in_domain(fields, count, has_mask=not derived)
    for i, variable in enumerate(meaning.inputs):
        _check_finite(fields[:, i], variable)
    samples = None if arrays[0].ndim == grid.ndim else str(arrays[0].dims[0])
    domain = None if meaning.mask is None else fields[:, count]
    return Given(fields, grid, samples, _labels(dataset, samples, meaning), domain)


def given_frames(dataset: xr.Dataset, meaning: Meaning) -> Given:
    """Return the inputs of a surrogate in time, from frames along ``time`` and static inputs without it.

    Raises:
        ValueError: as ``given_fields``, and for quantities without time.
    """
    arrangement = Arrangement.of(dataset, meaning.grid)
    return replace(_frames(arrangement.ours(dataset), meaning), arrangement=arrangement)


def _frames(dataset: xr.Dataset, meaning: Meaning) -> Given:
    """Return frames, from a dataset with the grid's own names and order of nodes."""
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
    return _fields(dataset.drop_vars(names).assign(frames), meaning)


def are_frames(dataset: xr.Dataset, meaning: Meaning) -> bool:
    """Return whether a dataset holds frames along ``time`` rather than the inputs by their names."""
    if meaning.window is None:
        return False
    names = [v.name for v in meaning.quantities]
    return all(name in dataset and "time" in dataset[name].dims for name in names)


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


def _labels(dataset: xr.Dataset, samples: str | None, meaning: Meaning) -> xr.Coordinates:
    """Return the coordinates along the samples alone, their numbers where they have no coordinate.

    What a data set says of its own solves is left out, and of frames the time, which is not that of
    a prediction.
    """
    in_time = meaning.window is not None or meaning.lead_time is not None
    of_the_input = {STATUS, ERROR, "time"} if in_time else {STATUS, ERROR}
    coords = dataset.coords.to_dataset()
    if samples is not None and samples not in coords:
        coords = coords.assign_coords({samples: np.arange(dataset.sizes[samples])})
    others = [n for n, c in coords.coords.items() if c.dims != (samples,) or n in of_the_input]
    return coords.drop_vars(others).compute().coords


def _are_single_frames(dataset: xr.Dataset, meaning: Meaning) -> bool:
    """Return whether frames of one trajectory are inputs one by one, their times being the samples."""
    window = meaning.in_time
    if (window.history, window.horizon) != (1, 1):
        return False
    dims = {"time", *meaning.grid.dims}
    return all(set(dataset[v.name].dims) == dims for v in meaning.quantities)


def _with_static_frames(dataset: xr.Dataset, meaning: Meaning) -> xr.Dataset:
    """Return the dataset with its static inputs at every frame."""
    count = dataset.sizes["time"]
    static = [v.name for v in meaning.inputs if v.name in dataset]
    static = [name for name in static if set(dataset[name].dims) == set(meaning.grid.dims)]
    return dataset.assign({name: dataset[name].expand_dims(time=count) for name in static})


def _array_of(dataset: xr.Dataset, variable: Variable, space: Sequence[str]) -> xr.DataArray:
    """Return a variable with its space dimensions last, in the grid's order."""
    array = dataset[variable.name]
    check_units(array, variable)
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
