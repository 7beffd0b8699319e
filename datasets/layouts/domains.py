"""Fields that fill a part of their box: holes, coasts, whatever a mask says."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sobolev.datasets.layouts.dimensions import Dimensions
from sobolev.datasets.layouts.foreign import Foreign, Lazy
from sobolev.grids.variables import MASK


def masked(foreign: Foreign, layout: Dimensions, mask: str) -> Foreign:
    """Return fields that are 0 outside their domain, with its mask as the first input field.

    Args:
        foreign: the fields.
        layout: has the mask, if it is a variable.
        mask: the name of a variable that is 1 in the domain and 0 outside, or ``"nan"`` for the nodes at
            which all fields have values, at some time at least.

    Raises:
        ValueError: for a mask that is not there or has other values, and for fields that were interpolated.
    """
    if layout.words.regrid:
        raise ValueError("fields with a mask cannot be interpolated; leave regrid out")
    if MASK.name in foreign.names:
        raise ValueError(f"a field is called {MASK.name!r}, which is the name of masks; rename it")
    fields = [v.name for v in (*foreign.inputs, *foreign.outputs)]
    find = _by_gaps(foreign, fields) if mask == "nan" else _by_variable(layout, mask)

    @functools.lru_cache(maxsize=1)  # every field of a shard asks for the same samples
    def domain(start: int, stop: int) -> np.ndarray:
        found = find(slice(start, stop))
        empty = np.flatnonzero(~found.any(axis=tuple(range(1, found.ndim))))
        if len(empty):
            raise ValueError(
                f"the mask covers all nodes of sample {start + int(empty[0])}; nothing is left to predict"
            )
        return found

    def read(samples: slice) -> np.ndarray:
        return domain(samples.start, samples.stop).astype(np.float32)

    inside = {name: _inside(foreign.fields[name], domain) for name in fields}
    mine = Lazy((foreign.count,), np.dtype(np.float32), read)
    return replace(
        foreign,
        fields={**foreign.fields, MASK.name: mine, **inside},
        inputs=[MASK, *foreign.inputs],
        mask=MASK.name,
    )


def _inside(lazy: Lazy, domain: Callable[[int, int], np.ndarray]) -> Lazy:
    """Return a field that is 0 outside the domain."""

    def read(samples: slice) -> np.ndarray:
        values = lazy.read(samples)
        there = domain(samples.start, samples.stop)
        lead = values.ndim - there.ndim
        return np.where(there.reshape(len(there), *[1] * lead, *there.shape[1:]), values, 0)

    return replace(lazy, read=read)


def _by_gaps(foreign: Foreign, fields: list[str]) -> Callable[[slice], np.ndarray]:
    """Return the nodes at which all fields have values."""

    def find(samples: slice) -> np.ndarray:
        found = []
        for name in fields:
            finite = np.isfinite(foreign.fields[name].read(samples))
            frames = tuple(range(1, finite.ndim - foreign.grid.ndim))
            found.append(finite.any(axis=frames) if frames else finite)
        return np.logical_and.reduce(found)

    return find


def _by_variable(layout: Dimensions, mask: str) -> Callable[[slice], np.ndarray]:
    """Return the nodes at which a variable is 1."""
    if mask not in layout.dataset:
        known = ", ".join(str(name) for name in layout.dataset.data_vars)
        raise ValueError(
            f"there is no variable {mask!r} for a mask; there are {known}, or 'nan' for gaps"
        )
    lazy = layout.lazy(mask, output=False)

    def find(samples: slice) -> np.ndarray:
        values = lazy.read(samples)
        if not np.isin(values, (0, 1)).all():
            raise ValueError(f"the mask {mask!r} has other values than 0 and 1")
        return values == 1

    return find
