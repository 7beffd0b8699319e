"""Samples read from shards: each file is verified once and then mapped into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sobolev.datasets.store.manifest import (
    ERROR,
    MANIFEST,
    STATUS,
    DamagedDataError,
    Manifest,
    Shard,
)
from sobolev.datasets.store.whole_files import file_digest


def check_shard(path: Path, shard: Shard, *, content: bool = True) -> None:
    """Compare a shard with the manifest.

    Raises:
        DamagedDataError: naming the file and the samples in it.
    """
    file = path / shard.file
    if not file.is_file():
        raise DamagedDataError(f"{file} ({shard.samples}) is missing")
    if (size := file.stat().st_size) != shard.bytes:
        raise DamagedDataError(
            f"{file} ({shard.samples}) has {size} bytes instead of {shard.bytes}: truncated or altered"
        )
    if content and file_digest(file) != shard.sha256:
        raise DamagedDataError(
            f"{file} ({shard.samples}) is damaged: its SHA-256 is not the one in {MANIFEST}; delete the file and "
            f"{Manifest.read(path).remedy}"
        )


class ShardReader:
    """A reader of a split's samples, through memory maps of its shards; it verifies each file once.

    Few maps are kept at a time. A reader that is sent to another process leaves its maps behind and
    makes new ones there.
    """

    KEPT = 64

    def __init__(self, path: Path, manifest: Manifest, split: str, *, content: bool = True) -> None:
        self.path = path
        self.manifest = manifest
        self.content = content
        self.shards = manifest.shards(split)
        self.starts = np.array([shard.first for shard in self.shards])
        self._maps: dict[int, dict[str, np.ndarray]] = {}
        self._verified: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_maps": {}}

    def read(self, name: str, samples: np.ndarray, rest: tuple[Any, ...] = ()) -> np.ndarray:
        """Return the values of ``name`` at sorted or unsorted sample numbers; ``rest`` indexes the other
        axes, each on its own."""
        owner = np.searchsorted(self.starts, samples, side="right") - 1
        first = self.mapped(name, int(owner[0]) if len(owner) else 0)
        result = np.empty((len(samples), *_outer(first[:1], rest).shape[1:]), first.dtype)
        for number in np.unique(owner):
            where = np.flatnonzero(owner == number)
            rows = samples[where] - self.starts[number]
            if len(rows) > 1 and (np.diff(rows) == 1).all():
                rows = slice(int(rows[0]), int(rows[-1]) + 1)
            result[where] = _outer(self.mapped(name, int(number)), rest, rows)
        return result

    def mapped(self, name: str, number: int) -> np.ndarray:
        """Return all values of ``name`` in one shard, mapped and not yet read."""
        if number not in self._maps:
            shard = self.shards[number]
            if self.content and shard.file not in self._verified:
                check_shard(self.path, shard)
                self._verified.add(shard.file)
            while len(self._maps) >= self.KEPT:  # the oldest goes
                del self._maps[next(iter(self._maps))]
            self._maps[number] = self._map(shard)
        return self._maps[number][name]

    def _map(self, shard: Shard) -> dict[str, np.ndarray]:
        """Return views of one map of the file, each of the type and shape that the manifest promises.

        A stranger's file is not believed about itself.
        """
        file = self.path / shard.file
        whole = np.memmap(file, np.uint8, "r")
        views = {}
        try:
            with h5py.File(file, "r", locking=False) as opened:  # a shard never changes
                for name, (dtype, shape) in self._promised(shard).items():
                    offset = _block(opened, name, dtype, shape)
                    views[name] = np.ndarray(shape, dtype, buffer=whole, offset=offset)
        except (OSError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the system's: the file may be sound
            raise DamagedDataError(f"{file} ({shard.samples}) cannot be read: {error}") from error
        return views

    def _promised(self, shard: Shard) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        """Return the type and shape of each variable of a shard."""
        sizes = self.manifest.sizes
        fields = np.dtype(self.manifest.dtype)
        shapes = {
            name: (fields, (shard.count, *(sizes[dim] for dim in dims[1:])))
            for name, dims in self.manifest.dims.items()
        }
        count = (shard.count,)
        return {
            **shapes,
            STATUS: (np.dtype(np.int8), count),
            ERROR: (np.dtype(np.float32), count),
        }


def _block(opened: h5py.File, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> int:
    """Return the place in a file where the values of a variable begin.

    Raises:
        ValueError: if they are not one block of this type and shape in this very file.
    """
    link = opened.get(name, getlink=True)
    values = opened[name] if isinstance(link, h5py.HardLink) else None
    if (
        not isinstance(values, h5py.Dataset)
        or (values.dtype, values.shape) != (dtype, shape)
        or values.external is not None
        or values.is_virtual
        or values.id.get_offset() is None
    ):
        raise ValueError(f"{name} is not one block of {dtype} values of shape {shape}")
    return values.id.get_offset()


def _outer(values: np.ndarray, rest: tuple[Any, ...], rows: Any = slice(None)) -> np.ndarray:
    """Return ``values[rows, rest…]``, indexed one axis at a time; slices first, since they copy nothing."""
    keys = [rows, *rest]
    values = values[tuple(key if isinstance(key, slice) else slice(None) for key in keys)]
    for axis, key in enumerate(keys):
        if not isinstance(key, slice):
            values = values[(slice(None),) * axis + (key,)]
    return values
