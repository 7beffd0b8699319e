"""Dimensions of a stranger's dataset told apart: those of samples, of time and of space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Shaped

from sobolev.datasets.layouts.coordinates import GridWords, Space, on_other_nodes, space_of
from sobolev.datasets.layouts.foreign import Lazy
from sobolev.grids.checks import did_you_mean
from sobolev.grids.roles import role

LOOKED_AT = 8
"""Samples that are read to see what fields are like at their ends."""


@dataclass(frozen=True)
class FieldWords(GridWords):
    """The user's words about a dataset."""

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    sample: tuple[str, ...] = ()
    time: str | None = None
    mask: str | None = None


@dataclass(frozen=True)
class Dimensions:
    """The dimensions of a dataset: those of samples, of time and of space."""

    dataset: xr.Dataset
    sample: tuple[str, ...]
    time: str | None
    space: Space
    words: FieldWords

    @classmethod
    def of(cls, dataset: xr.Dataset, words: FieldWords) -> Dimensions:
        """Tell the dimensions apart, by the user's words, by CF, and by their names."""
        dims = [str(dim) for dim in dataset[words.outputs[0]].dims]
        everywhere = {
            str(dim) for name in (*words.inputs, *words.outputs) for dim in dataset[name].dims
        }
        roles = {dim: role(dataset, dim) for dim in [*dims, *sorted(everywhere - set(dims))]}
        for what, named in (
            ("sample", words.sample),
            ("time", (words.time,) if words.time else ()),
        ):
            if absent := [dim for dim in named if dim not in roles]:
                raise ValueError(
                    f"{what} names the dimension {absent[0]!r}, which none of the fields has; they have "
                    f"{', '.join(map(repr, roles))}. {did_you_mean(absent[0], roles)}".strip()
                )
        time = words.time
        if time is None:
            moving = [d for d in roles if roles[d] == "time" and d not in words.sample]
            if len(moving) > 1:
                raise ValueError(
                    f"{' and '.join(map(repr, moving))} look like time; pass time={moving[-1]!r} (--time {moving[-1]}) "
                    "for the one of the frames, and the others count samples"
                )
            time = moving[0] if moving else None
        sample = words.sample or tuple(
            dim for dim in roles if roles[dim] in ("sample", "time") and dim != time
        )
        lines = [dim for dim in dims if dim not in (*sample, time)]
        _check_lines(dataset, lines, roles, words)
        output = dataset[words.outputs[0]]

        def repeats(dim: str) -> bool:
            return _repeats(output, dim, sample)

        return cls(dataset, sample, time, space_of(dataset, lines, words, repeats), words)

    @property
    def counts(self) -> tuple[int, ...]:
        """The sizes of the dimensions of samples."""
        return tuple(self.dataset.sizes[dim] for dim in self.sample)

    def lazy(self, name: str, *, output: bool) -> Lazy:
        """Return a variable as ``(sample, [time,] *space)``, read some samples at a time.

        Raises:
            ValueError: for dimensions that it should not have, or lacks.
        """
        array = self.dataset[name]
        dims = {str(dim) for dim in array.dims}
        time = [self.time] if output and self.time is not None else []
        space = self._space_of(array, dims - {*self.sample, *time}, output)
        if missing := [dim for dim in (*time, *(space.dims if output else ())) if dim not in dims]:
            raise ValueError(
                f"the output {name!r} has no dimension {missing[0]!r}, which others have: it has {array.dims}"
            )
        own = [dim for dim in self.sample if dim in dims]
        if output and len(own) < len(self.sample):
            raise ValueError(
                f"the output {name!r} has no dimension {(set(self.sample) - set(own)).pop()!r} of samples: it has "
                f"{array.dims}"
            )
        there = [dim for dim in space.dims if dim in dims]
        array = array.transpose(*own, *time, *there)
        full = [self.dataset.sizes[dim] for dim in space.dims]
        absent = [i - len(full) for i, dim in enumerate(space.dims) if dim not in dims]

        def read(samples: slice) -> np.ndarray:
            values = np.asarray(self._picked(array, own, samples))
            for axis in absent:  # a profile is the same across
                values = np.expand_dims(values, values.ndim + axis + 1)
            values = np.broadcast_to(values, (*values.shape[: values.ndim - len(full)], *full))
            return space.ordered(_plain_numbers(values))

        return Lazy((math.prod(self.counts),), _plain_type(array.dtype), read)

    def is_number(self, name: str) -> bool:
        """Return whether a variable is a number of each sample, rather than a field."""
        dims = {str(dim) for dim in self.dataset[name].dims}
        return bool(dims) and dims <= set(self.sample)

    def numbers(self, name: str) -> Lazy:
        """Return a number of each sample, as ``(sample,)``."""
        array = self.dataset[name]
        own = [dim for dim in self.sample if dim in array.dims]
        array = array.transpose(*own)

        def read(samples: slice) -> np.ndarray:
            return _plain_numbers(np.asarray(self._picked(array, own, samples)))

        return Lazy((math.prod(self.counts),), _plain_type(array.dtype), read)

    def _picked(self, array: xr.DataArray, own: Sequence[str], samples: slice) -> Any:
        """Return samples by their numbers, which count through all dimensions of samples, the last one
        fastest."""
        count = samples.stop - samples.start
        if not own:
            return np.broadcast_to(array.values, (count, *array.shape))
        if len(self.sample) == 1:
            return array.isel({own[0]: samples}).values
        places = np.unravel_index(np.arange(samples.start, samples.stop), self.counts)
        chosen = {
            dim: xr.DataArray(place, dims="_sample")
            for dim, place in zip(self.sample, places, strict=True)
            if dim in own
        }
        return array.isel(chosen).transpose("_sample", ...).values

    def _space_of(self, array: xr.DataArray, dims: set[str], output: bool) -> Space:
        """Return the space that a variable lives on, and the way to that of the outputs."""
        if self.time in dims:
            raise ValueError(
                f"the input {array.name!r} moves along {self.time!r}; inputs beside trajectories are the same at all "
                "times: make it an output, or choose one of its times"
            )
        if dims <= set(self.space.dims):
            return self.space
        if output or len(dims) != len(self.space.dims):
            raise ValueError(
                f"{array.name!r} has the dimensions {array.dims}; expected those of samples "
                f"({', '.join(self.sample) or 'none'}), of time ({self.time or 'none'}) and of space "
                f"({', '.join(self.space.dims)}). Name those of samples by sample= (--sample), or choose one place by "
                "isel (--select)"
            )
        lines = [str(dim) for dim in array.dims if str(dim) in dims]

        def repeats(dim: str) -> bool:
            return _repeats(array, dim, self.sample)

        words = replace(self.words, **self._words_by_place(lines))
        return on_other_nodes(space_of(self.dataset, lines, words, repeats), self.space)

    def _words_by_place(self, lines: Sequence[str]) -> dict[str, Any]:
        """Return boundary and length under the names of other dimensions in the same order."""
        pairs = list(zip(lines, self.space.dims, strict=True))
        return {
            what: {line: self.words.of_axis(what, dim) for line, dim in pairs}
            if isinstance(getattr(self.words, what), Mapping)
            else getattr(self.words, what)
            for what in ("boundary", "length")
        }


def _check_lines(
    dataset: xr.Dataset, lines: Sequence[str], roles: Mapping[str, str | None], words: FieldWords
) -> None:
    """Refuse dimensions of space of which there are none, or too many."""
    if not lines:
        raise ValueError(
            f"{words.outputs[0]!r} has no dimension of space: it has {dataset[words.outputs[0]].dims}"
        )
    if times := [dim for dim in lines if roles[dim] == "time"]:
        raise ValueError(
            f"{times[0]!r} looks like time, but is neither the time of the frames nor among the samples; pass "
            f"sample={[*words.sample, times[0]]} (--sample {','.join([*words.sample, times[0]])}), or choose one place "
            f"by isel (--select {times[0]}=0)"
        )
    if len(lines) > 3:
        odd = [dim for dim in lines if roles[dim] is None] or lines
        raise ValueError(
            f"{words.outputs[0]!r} would have {len(lines)} dimensions of space, {', '.join(lines)}; which are samples? "
            f"pass sample={odd[0]!r} (--sample {odd[0]}), or choose one place by isel (--select {odd[0]}=0)"
        )
    strange = [dim for dim in lines if roles[dim] is None and dim not in dataset.coords]
    if strange and not words.sample and any(roles[dim] not in (None, "time") for dim in lines):
        raise ValueError(
            f"is {strange[0]!r} ({dataset.sizes[strange[0]]}) a dimension of space or of samples? nothing tells; pass "
            f"sample={strange[0]!r} (--sample {strange[0]}), or give it a coordinate"
        )


def _repeats(array: xr.DataArray, dim: str, sample: Sequence[str]) -> bool:
    """Return whether an array has the same values at both ends of a dimension, and is not constant there."""
    few = {d: slice(0, LOOKED_AT) for d in sample if d in array.dims}
    first, second, last = array.isel(few).isel({dim: [0, 1, -1]}).transpose(dim, ...).values
    there = np.isfinite(first) & np.isfinite(last) & np.isfinite(second)  # fields may have gaps
    if not there.any():
        return False
    room = 1e-6 * np.abs(first[there]).max()
    same = np.abs(first - last)[there].max() <= room
    return bool(same and np.abs(first - second)[there].max() > room)


def _plain_type(dtype: np.dtype) -> np.dtype:
    """Return the native type of values, float32 of halves, and that of a part of complex ones."""
    if dtype.kind == "c":
        return np.dtype(f"f{dtype.itemsize // 2}")
    return np.dtype(np.float32) if dtype == np.float16 else dtype.newbyteorder("=")


def _plain_numbers(values: Shaped[np.ndarray, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
    """Return values that may be bytes in another order, or halves, in a type to compute in."""
    if values.dtype.kind == "c":
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    return values.astype(_plain_type(values.dtype), copy=False)
