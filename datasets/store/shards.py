"""Data sets on disk: NetCDF-4 shards beside a manifest.

::

    data/burgers/
        manifest.json           recipe, seed, resolution; per shard samples, size, SHA-256, versions
        train/00000.nc  …       plain NetCDF-4 (CF attributes), each opened by xr.open_dataset
        test/00000.nc   …

A shard is written beside its place, synced and renamed, so that it is whole or absent; the manifest
follows in the same manner. A shard's bytes are hashed before it is first read, and the manifest
carries a hash of itself: a flipped bit anywhere is found and named. Opening runs no code from the
files.

Within a shard every variable is one contiguous block, without chunks or filters: it is mapped into
memory and read at the speed of a copy, whole trajectories and short windows alike.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from sobolev.datasets.store.manifest import (
    ERROR,
    MANIFEST,
    STATUS,
    DamagedDataError,
    Manifest,
    Shard,
)
from sobolev.datasets.store.whole_files import file_digest, replacing, sync
from sobolev.grids.description import axis_coords
from sobolev.solvers import SolutionError


def write_shard(path: Path, file: str, dataset: xr.Dataset, versions: dict[str, str]) -> Shard:
    """Write one shard durably and describe it."""
    target = path / file
    target.parent.mkdir(parents=True, exist_ok=True)
    encoding: dict[str, Any] = {str(name): {"_FillValue": None} for name in dataset.variables}
    with replacing(target) as part:
        with _without_dask():
            dataset.to_netcdf(part, engine="h5netcdf", encoding=encoding)
        # the disk is slow, and so is SHA-256
        with concurrent.futures.ThreadPoolExecutor(1) as other:
            synced = other.submit(sync, part)
            digest = file_digest(part)
            synced.result()
    sample = dataset["sample"].values
    errors = dataset[ERROR].values
    return Shard(
        file, int(sample[0]), len(sample), target.stat().st_size, digest, versions,
        failed=int((dataset[STATUS].values != 0).sum()),
        error=float(np.nanmax(errors)) if np.isfinite(errors).any() else None,
    )  # fmt: skip


def write_netcdf(dataset: xr.Dataset, path: Path, encoding: dict[str, Any] | None = None) -> None:
    """Write a NetCDF-4 file that is whole or absent."""
    with replacing(path) as part, _without_dask():
        dataset.to_netcdf(part, engine="h5netcdf", encoding=encoding or {})


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


def open_dataset(path: str | Path, split: str = "train", *, content: bool = True) -> xr.Dataset:
    """Open a split as one lazy ``xr.Dataset``: values are read from the shards when they are asked for.

    Every shard's presence and size are checked now, its SHA-256 before its first values are read
    (``content=False`` leaves that out, for shards that have just been checked).

    Raises:
        FileNotFoundError: if there is no data set at ``path``.
        DamagedDataError: for a missing, truncated or altered file, naming it and its samples.
        ValueError: for an unknown or unfinished split.
    """
    path = Path(path)
    manifest = Manifest.read(path)
    shards = manifest.shards(split)
    for shard in shards:
        check_shard(path, shard, content=False)
    reader = ShardReader(path, manifest, split, content=content)
    count = manifest.count(split)
    sizes = manifest.sizes

    def lazy(name: str, dims: tuple[str, ...], dtype: str, attrs: dict[str, Any]) -> xr.Variable:
        shape = (count, *(sizes[dim] for dim in dims[1:]))
        field = _LazyField(reader, name, shape, np.dtype(dtype))
        return xr.Variable(dims, indexing.LazilyIndexedArray(field), attrs)

    dims = manifest.dims
    variables = {
        v.name: lazy(v.name, dims[v.name], manifest.dtype, v.attributes) for v in manifest.variables
    }
    quality = {
        STATUS: lazy(STATUS, ("sample",), "int8", STATUS_ATTRIBUTES),
        ERROR: lazy(ERROR, ("sample",), "float32", ERROR_ATTRIBUTES),
    }
    return xr.Dataset(
        variables,
        {**coords(manifest, np.arange(count)), **quality},
        attributes(manifest, split, shards[0].versions),
    )


STATUS_ATTRIBUTES = {
    "long_name": "outcome of the solve; fields of a failed sample are NaN from the failure on",
    "flag_values": np.arange(len(SolutionError.STATUS), dtype=np.int8),
    "flag_meanings": " ".join(SolutionError.STATUS),
}
ERROR_ATTRIBUTES = {
    "long_name": "relative L2 difference from a solve in half the steps on a grid of twice the cells; "
    "NaN where none was made",
    "units": "1",
}


def coords(manifest: Manifest, samples: np.ndarray) -> dict[str, xr.Variable]:
    """Return ``axis_coords``, the times of the frames if there are any, and the numbers of the samples."""
    number = {"long_name": "index within the split"}
    found = {"sample": xr.Variable("sample", samples.astype(np.int64), number)}
    if manifest.times:
        attrs = {
            "axis": "T",
            "long_name": "time since the first frame",
            "units": manifest.time_units,
        }
        found["time"] = xr.Variable("time", np.array(manifest.times), attrs)
    return {**found, **axis_coords(manifest.grid)}


def attributes(manifest: Manifest, split: str, versions: dict[str, str]) -> dict[str, Any]:
    """Return the global attributes: what the fields are and how to make them again.

    They hold no clock, so that equal runs give equal bytes.
    """
    return {
        "Conventions": "CF-1.11",
        "title": manifest.title,
        "references": manifest.references,
        "source": f"sobolev {versions['sobolev']}, recipe {manifest.preset or manifest.recipe['class']}",
        "split": split,
        "seed": manifest.seed,
        "recipe": json.dumps(manifest.recipe, sort_keys=True),
        "versions": json.dumps(versions, sort_keys=True),
        "inputs": " ".join(v["name"] for v in manifest.inputs),
        "outputs": " ".join(v["name"] for v in manifest.outputs),
    }


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
            with h5py.File(file, "r") as opened:
                for name, (dtype, shape) in self._promised(shard).items():
                    offset = _block(opened, name, dtype, shape)
                    views[name] = np.ndarray(shape, dtype, buffer=whole, offset=offset)
        except (OSError, KeyError, TypeError, ValueError) as error:
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


class _LazyField(BackendArray):
    """One variable of a split, in xarray's lazy-loading protocol."""

    def __init__(
        self, reader: ShardReader, name: str, shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self.reader = reader
        self.name = name
        self.shape = shape
        self.dtype = dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._take
        )

    def _take(self, key: tuple[Any, ...]) -> np.ndarray:
        first, *rest = key
        samples = np.arange(self.shape[0])[first]
        # scalars stay axes of length 1 until the end, so that positions keep their meaning
        kept = tuple(k if isinstance(k, slice) else np.atleast_1d(k) for k in rest)
        values = self.reader.read(self.name, np.atleast_1d(samples), kept)
        scalar = [
            np.ndim(samples) == 0,
            *(not isinstance(k, slice) and np.ndim(k) == 0 for k in rest),
        ]
        return values.squeeze(axis=tuple(i for i, dropped in enumerate(scalar) if dropped))


@contextlib.contextmanager
def _without_dask() -> Iterator[None]:
    """Keep xarray from taking a lock of a whole Dask cluster, which a killed worker may hold for ever.

    Every file here has a writer of its own.
    """
    dask = sys.modules.get("dask")
    with contextlib.nullcontext() if dask is None else dask.config.set(scheduler="synchronous"):
        yield
