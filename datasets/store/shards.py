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
import hashlib
import io
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import xarray as xr
from xarray.backends import BackendArray, H5NetCDFStore
from xarray.core import indexing

from sobolev.datasets.store.manifest import ERROR, STATUS, Manifest, Shard
from sobolev.datasets.store.reading import ShardReader, check_shard
from sobolev.datasets.store.whole_files import replacing
from sobolev.grids.description import axis_coords
from sobolev.solvers import SolutionError

_ONE_FILE = threading.Lock()
"""Held while HDF5 makes a file, so that no other is made between its calls."""


def write_shard(path: Path, file: str, dataset: xr.Dataset, versions: dict[str, str]) -> Shard:
    """Write one shard durably and describe it."""
    target = path / file
    target.parent.mkdir(parents=True, exist_ok=True)
    encoding = {str(name): {"_FillValue": None} for name in dataset.variables}
    # the disk is slow, and so is SHA-256
    with concurrent.futures.ThreadPoolExecutor(1) as other, replacing(target) as part:
        _write(dataset, part, encoding)
        hashed = other.submit(_digest, part.open("rb"))
        size = part.stat().st_size
    sample = dataset["sample"].values
    errors = dataset[ERROR].values
    return Shard(
        file, int(sample[0]), len(sample), size, hashed.result(), versions,
        failed=int((dataset[STATUS].values != 0).sum()),
        error=float(np.nanmax(errors)) if np.isfinite(errors).any() else None,
    )  # fmt: skip


def _digest(file: io.BufferedReader) -> str:
    """Return the SHA-256 of an open file, which may be renamed meanwhile, and close it."""
    with file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_netcdf(dataset: xr.Dataset, path: Path, encoding: dict[str, Any] | None = None) -> None:
    """Write a NetCDF-4 file that is whole or absent.

    Raises:
        OSError: if it cannot be written.
    """
    with replacing(path) as part:
        _write(dataset, part, encoding or {})


def _write(dataset: xr.Dataset, path: Path, encoding: dict[str, Any]) -> None:
    """Write a NetCDF-4 file.

    HDF5 keeps what a full disk did not take, and the interpreter dies of it at its end (HDF5 2.0): it is
    told that all is well, and what went wrong is raised afterwards.
    """
    with _Disk(path) as disk:
        try:
            with _ONE_FILE, _without_dask(), _Held(disk, "w", track_order=True) as file:
                with h5netcdf.File(file, "w") as netcdf:
                    dataset.compute().dump_to_store(H5NetCDFStore(netcdf), encoding=encoding)
                file.flush()
        finally:
            disk.check()


class _Disk(io.FileIO):
    """A file that takes whatever it is given, and keeps the first error.

    After one it takes everything and writes nothing.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        """Write all of ``content`` and return its bytes."""
        left = memoryview(content).cast("B")
        size = len(left)
        while left and self.error is None:
            try:
                left = left[super().write(left) :]
            except OSError as error:
                self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Cut or lengthen the file."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def check(self) -> None:
        """Raise the first error, if there was one.

        Raises:
            OSError: which.
        """
        if self.error is not None:
            raise self.error


class _Held(h5py.File):
    """A file whose arrays stay open until it is closed.

    HDF5 lays out what is still open otherwise than what was closed, and when Python lets go of an array
    may hang on what else goes on: equal content would now and then have other bytes.
    """

    def __init__(self, disk: _Disk, mode: str, **options: Any) -> None:
        super().__init__(disk, mode, **options)
        self.held: list[h5py.Dataset] = []

    def __getitem__(self, name: Any) -> Any:
        return self if name == "/" else super().__getitem__(name)

    def create_dataset(self, *arguments: Any, **options: Any) -> h5py.Dataset:
        self.held.append(super().create_dataset(*arguments, **options))
        return self.held[-1]


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
        v.name: lazy(v.name, dims[v.name], manifest.dtype, v.attributes) for v in manifest.stored
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
        **(
            {"parameters": " ".join(v["name"] for v in manifest.parameters)}
            if manifest.parameters
            else {}
        ),
        "inputs": " ".join(v["name"] for v in manifest.inputs),
        "outputs": " ".join(v["name"] for v in manifest.outputs),
    }


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
