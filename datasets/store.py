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
import json
import os
import sys
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from sobolev.datasets.base import Recipe, Variable
from sobolev.datasets.recipes import is_known, recipe_from
from sobolev.solvers import AbstractGrid, Axis, Grid, SolutionError, SphereGrid

MANIFEST = "manifest.json"
SCHEMA = 2
STATUS, ERROR = "status", "error_estimate"
IMPORTED = "Imported"
"""Class of the "recipe" of data that sobolev did not draw."""


class DamagedDataError(OSError):
    """A file of a data set is missing, truncated or altered."""


@dataclass(frozen=True)
class Shard:
    """Some consecutive samples of a split, in one file."""

    file: str
    first: int
    count: int
    bytes: int
    sha256: str
    versions: dict[str, str]  # of the packages that drew it
    failed: int = 0  # samples whose status is not 0
    error: float | None = None  # the largest error estimate

    @property
    def samples(self) -> str:
        return f"samples {self.first} to {self.first + self.count - 1}"


@dataclass
class Manifest:
    """What a data set holds and how it was made."""

    recipe: dict[str, Any]
    preset: str | None
    title: str
    references: str
    inputs: list[dict[str, str]]
    outputs: list[dict[str, str]]
    equation: str
    measure: str
    nodes: dict[str, Any]
    times: list[float]
    time_units: str
    symmetries: list[str]
    resolution: int
    seed: int
    dtype: str
    shard_size: int
    requested: dict[str, int] = field(default_factory=dict)
    splits: dict[str, list[Shard]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """The manifest of the data set at ``path``.

        Raises:
            FileNotFoundError: if there is none.
            DamagedDataError: if it was truncated or altered.
        """
        file = path / MANIFEST
        if not file.is_file():
            raise FileNotFoundError(f"{path} holds no sobolev data set ({MANIFEST} is missing)")
        try:
            content = json.loads(file.read_text())
            stated = content.pop("sha256")
            schema = content.pop("schema")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedDataError(f"{file} is damaged: {error}") from error
        if stated != _digest({**content, "schema": schema}):
            raise DamagedDataError(
                f"{file} is damaged or was edited: its checksum does not match its content"
            )
        if schema != SCHEMA:
            raise ValueError(
                f"{file} has schema {schema}; this version of sobolev reads schema {SCHEMA}"
            )
        try:
            content["splits"] = {
                split: [Shard(**shard) for shard in shards]
                for split, shards in content["splits"].items()
            }
            manifest = cls(**content)
            _refuse_foreign_paths(manifest, file)
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedDataError(f"{file} does not describe a data set: {error}") from error
        return manifest

    def write(self, path: Path) -> None:
        """Replace the manifest in one step."""
        content = {"schema": SCHEMA, **self._plain()}
        text = json.dumps({**content, "sha256": _digest(content)}, indent=1)
        with replacing(path / MANIFEST) as part:
            part.write_text(text + "\n")

    @property
    def digest(self) -> str:
        """SHA-256 of everything the manifest says."""
        return _digest({"schema": SCHEMA, **self._plain()})

    def _plain(self) -> dict[str, Any]:
        splits = {split: [vars(shard) for shard in shards] for split, shards in self.splits.items()}
        return {**vars(self), "splits": splits}

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for a run to continue this data set."""
        return {
            name: getattr(self, name)
            for name in ("recipe", "resolution", "seed", "dtype", "shard_size")
        }

    @property
    def grid(self) -> AbstractGrid:
        return grid_from(self.nodes)

    @property
    def variables(self) -> list[Variable]:
        """Inputs, then outputs."""
        return [Variable(**v) for v in [*self.inputs, *self.outputs]]

    @property
    def can_be_drawn_again(self) -> bool:
        """Whether the recipe is one of this package's."""
        return is_known(self.recipe)

    @property
    def remedy(self) -> str:
        """What brings back the samples that are missing."""
        if self.recipe.get("class") == IMPORTED:
            return "import the data set again with --overwrite"
        return "run `sobolev generate` again with --resume"

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Dimensions of each variable."""
        space = self.grid.dims
        trajectory = ("sample", *(("time",) if self.times else ()), *space)
        return {
            **{v["name"]: ("sample", *space) for v in self.inputs},
            **{v["name"]: trajectory for v in self.outputs},
        }

    @property
    def sizes(self) -> dict[str, int]:
        """Nodes per space axis, and frames where there are any."""
        time = {"time": len(self.times)} if self.times else {}
        return {**time, **dict(zip(self.grid.dims, self.grid.shape, strict=True))}

    def add(self, split: str, shard: Shard) -> None:
        """Enter a finished shard, in the place of one with the same first sample."""
        others = [s for s in self.splits.get(split, []) if s.first != shard.first]
        self.splits[split] = sorted([*others, shard], key=lambda s: s.first)

    def count(self, split: str) -> int:
        """Finished samples of a split."""
        return sum(shard.count for shard in self.splits.get(split, []))

    def shards(self, split: str) -> list[Shard]:
        """The shards of a split, all of them.

        Raises:
            ValueError: if the data set has no such split, or it was never finished.
        """
        if not self.splits.get(split):
            raise ValueError(
                f"no split {split!r} here; there are: {', '.join(self.splits) or 'none yet'}"
            )
        if self.count(split) < self.requested[split]:
            raise ValueError(
                f"split {split!r} is unfinished: {self.count(split)} of {self.requested[split]} samples; {self.remedy}"
            )
        return self.splits[split]

    def build_recipe(self) -> Recipe:
        """The recipe, ready to draw the same samples again."""
        return recipe_from(self.recipe)


def write_shard(path: Path, file: str, dataset: xr.Dataset, versions: dict[str, str]) -> Shard:
    """Write one shard durably and describe it."""
    target = path / file
    target.parent.mkdir(parents=True, exist_ok=True)
    encoding: dict[str, Any] = {str(name): {"_FillValue": None} for name in dataset.variables}
    with replacing(target) as part:
        with _without_dask():
            dataset.to_netcdf(part, engine="h5netcdf", encoding=encoding)
        with concurrent.futures.ThreadPoolExecutor(
            1
        ) as other:  # the disk is slow, and so is SHA-256
            synced = other.submit(_sync, part)
            digest = file_digest(part)
            synced.result()
    sample, errors = dataset["sample"].values, dataset[ERROR].values
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
    """A split as one lazy ``xr.Dataset``: values are read from the shards when they are asked for.

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
    count, sizes = manifest.count(split), manifest.sizes

    def lazy(name: str, dims: tuple[str, ...], dtype: str, attrs: dict[str, Any]) -> xr.Variable:
        shape = (count, *(sizes[dim] for dim in dims[1:]))
        field = _LazyField(reader, name, shape, np.dtype(dtype))
        return xr.Variable(dims, indexing.LazilyIndexedArray(field), attrs)

    dims = manifest.dims
    variables = {
        v.name: lazy(v.name, dims[v.name], manifest.dtype, describe(v)) for v in manifest.variables
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


def describe(variable: Variable) -> dict[str, str]:
    """CF attributes of a variable."""
    return {"long_name": variable.long_name, "units": variable.units}


def describe_grid(grid: AbstractGrid) -> dict[str, Any]:
    """A grid as JSON."""
    if isinstance(grid, Grid):
        return {"axes": [asdict(axis) for axis in grid.axes]}
    if isinstance(grid, SphereGrid):
        return {"sphere": asdict(grid)}
    raise ValueError(f"a data set lives on a Grid or a SphereGrid, got {type(grid).__name__}")


def grid_from(description: dict[str, Any]) -> AbstractGrid:
    """The grid that ``describe_grid`` described."""
    if "sphere" in description:
        return SphereGrid(**description["sphere"])
    return Grid(*(Axis(**axis) for axis in description["axes"]))


def axis_coords(grid: AbstractGrid) -> dict[str, xr.Variable]:
    """Coordinates that say where each node lies and how the axis ends."""
    if isinstance(grid, SphereGrid):
        attrs = {"axis": "Y", "units": "degrees_north", "standard_name": "latitude"}
        lat, lon = (np.degrees(points.numpy()) for points in grid.points())
        return {
            "lat": xr.Variable("lat", lat, {**attrs, "grid": grid.kind, "radius": grid.radius}),
            "lon": xr.Variable(
                "lon", lon, {"axis": "X", "units": "degrees_east", "standard_name": "longitude"}
            ),
        }
    if not isinstance(grid, Grid):
        raise ValueError(f"a data set lives on a Grid or a SphereGrid, got {type(grid).__name__}")
    return {
        axis.name: xr.Variable(
            axis.name, axis.points().numpy(),
            {"axis": axis.name.upper(), "units": "1", "boundary": axis.boundary, "origin": axis.origin,
             "length": axis.length},
        )
        for axis in grid.axes
    }  # fmt: skip


def coords(manifest: Manifest, samples: np.ndarray) -> dict[str, xr.Variable]:
    """``axis_coords``, the times of the frames if there are any, and the numbers of the samples."""
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
    """Global attributes: what the fields are and how to make them again. No clock, so that equal
    runs give equal bytes."""
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
    """Reads samples of a split from its shards through memory maps, verifying each file once.

    Few maps are kept at a time. A reader that is sent to another process leaves its maps behind and
    makes new ones there.
    """

    KEPT = 64

    def __init__(self, path: Path, manifest: Manifest, split: str, *, content: bool = True) -> None:
        self.path, self.manifest, self.content = path, manifest, content
        self.shards = manifest.shards(split)
        self.starts = np.array([shard.first for shard in self.shards])
        self._maps: dict[int, dict[str, np.ndarray]] = {}
        self._verified: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_maps": {}}

    def read(self, name: str, samples: np.ndarray, rest: tuple[Any, ...] = ()) -> np.ndarray:
        """Values of ``name`` at sorted or unsorted sample numbers; ``rest`` indexes the other axes,
        each on its own."""
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
        """All values of ``name`` in one shard, mapped and not yet read."""
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
        """Views of one map of the file, each of the type and shape that the manifest promises: what
        a stranger's file says of itself is not believed."""
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
        sizes, fields = self.manifest.sizes, np.dtype(self.manifest.dtype)
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
    """Where the values of a variable begin in its file.

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
    """``values[rows, rest…]``, indexing one axis at a time; slices first, since they copy nothing."""
    keys = [rows, *rest]
    values = values[tuple(key if isinstance(key, slice) else slice(None) for key in keys)]
    for axis, key in enumerate(keys):
        if not isinstance(key, slice):
            values = values[(slice(None),) * axis + (key,)]
    return values


class _LazyField(BackendArray):
    """One variable of a split, as xarray's lazy-loading protocol wants it."""

    def __init__(
        self, reader: ShardReader, name: str, shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self.reader, self.name, self.shape, self.dtype = reader, name, shape, dtype

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
def replacing(target: Path) -> Iterator[Path]:
    """A path to write to; what was written is synced and takes ``target``'s place, or vanishes on
    an error."""
    # a name of its own: a worker that was given up for lost may still be writing the same shard
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield part
        _sync(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _without_dask() -> Iterator[None]:
    """Where a Dask client or worker is about, xarray would take a lock of the whole cluster, which a
    killed worker may hold for ever; every file here has a writer of its own."""
    dask = sys.modules.get("dask")
    with contextlib.nullcontext() if dask is None else dask.config.set(scheduler="synchronous"):
        yield


def _sync(file: Path) -> None:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def _refuse_foreign_paths(manifest: Manifest, file: Path) -> None:
    """A manifest may come from a stranger: its shards lie in its own folder, under plain names, in
    order and without overlap."""
    for split, shards in manifest.splits.items():
        if split not in manifest.requested or not split.isidentifier():
            raise DamagedDataError(f"{file} names the split {split!r}, which it does not have")
        firsts = [shard.first for shard in shards]
        if firsts != sorted(set(firsts)):
            raise DamagedDataError(f"{file} lists the shards of {split!r} out of order")
        for shard in shards:
            number, rest = divmod(shard.first, manifest.shard_size)
            fits = rest == 0 <= number and 1 <= shard.count <= manifest.shard_size
            if not fits or shard.file != f"{split}/{number:05d}.nc":
                raise DamagedDataError(
                    f"{file} names the file {shard.file!r}, which is none of a data set's"
                )
    if not all(split.isidentifier() for split in manifest.requested):
        raise DamagedDataError(f"{file} names a split that is no plain word")


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
