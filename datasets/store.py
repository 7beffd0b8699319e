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
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from sobolev.datasets.recipes import Recipe, Variable, is_known, recipe_from
from sobolev.solvers import Axis, Grid

MANIFEST = "manifest.json"
SCHEMA = 1


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
    axes: list[dict[str, Any]]
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
        _refuse_foreign_paths(content, file)
        if schema != SCHEMA:
            raise ValueError(
                f"{file} has schema {schema}; this version of sobolev reads schema {SCHEMA}"
            )
        content["splits"] = {
            split: [Shard(**shard) for shard in shards]
            for split, shards in content["splits"].items()
        }
        return cls(**content)

    def write(self, path: Path) -> None:
        """Replace the manifest in one step."""
        content = {"schema": SCHEMA, **self._plain()}
        text = json.dumps({**content, "sha256": _digest(content)}, indent=1)
        with _replacing(path / MANIFEST) as part:
            part.write_text(text + "\n")

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
    def grid(self) -> Grid:
        return Grid(*(Axis(**axis) for axis in self.axes))

    @property
    def variables(self) -> list[Variable]:
        """Inputs, then outputs."""
        return [Variable(**v) for v in [*self.inputs, *self.outputs]]

    @property
    def can_be_drawn_again(self) -> bool:
        """Whether the recipe is one of this package's."""
        return is_known(self.recipe)

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
                f"split {split!r} is unfinished: {self.count(split)} of {self.requested[split]} samples; run "
                "`sobolev generate` again with --resume to complete it"
            )
        return self.splits[split]

    def build_recipe(self) -> Recipe:
        """The recipe, ready to draw the same samples again."""
        return recipe_from(self.recipe)


def write_shard(path: Path, file: str, dataset: xr.Dataset, versions: dict[str, str]) -> Shard:
    """Write one shard durably and describe it."""
    target = path / file
    target.parent.mkdir(parents=True, exist_ok=True)
    encoding: dict[str, dict[str, Any]] = {
        str(name): {"fletcher32": True, "chunksizes": (1, *variable.shape[1:]), "_FillValue": None}
        for name, variable in dataset.data_vars.items()
    }
    write_netcdf(dataset, target, encoding)
    sample = dataset["sample"].values
    return Shard(
        file, int(sample[0]), len(sample), target.stat().st_size, _file_digest(target), versions
    )


def write_netcdf(dataset: xr.Dataset, path: Path, encoding: dict[str, Any] | None = None) -> None:
    """Write a NetCDF-4 file that is whole or absent."""
    with _replacing(path) as part:
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
    if content and _file_digest(file) != shard.sha256:
        raise DamagedDataError(
            f"{file} ({shard.samples}) is damaged: its SHA-256 is not the one in {MANIFEST}; "
            "delete it and run `sobolev generate` with --resume to draw it again"
        )


def open_dataset(path: str | Path, split: str = "train") -> xr.Dataset:
    """A split as one lazy ``xr.Dataset``: values are read from the shards when they are asked for.

    Every shard's presence and size are checked now, its SHA-256 before its first values are read.

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
    reader = _ShardReader(path, shards)
    dims = ("sample", *(axis.name for axis in manifest.grid.axes))
    shape = (manifest.count(split), *manifest.grid.shape)
    variables = {
        variable.name: xr.Variable(
            dims,
            indexing.LazilyIndexedArray(
                _LazyField(reader, variable.name, shape, np.dtype(manifest.dtype))
            ),
            describe(variable),
        )
        for variable in manifest.variables
    }
    return xr.Dataset(
        variables,
        coords(manifest.grid, np.arange(shape[0])),
        attributes(manifest, split, shards[0].versions),
    )


def describe(variable: Variable) -> dict[str, str]:
    """CF attributes of a variable."""
    return {"long_name": variable.long_name, "units": variable.units}


def axis_coords(grid: Grid) -> dict[str, xr.Variable]:
    """Coordinates that say where each node lies and how the axis ends."""
    return {
        axis.name: xr.Variable(
            axis.name, axis.points().numpy(),
            {"axis": axis.name.upper(), "units": "1", "boundary": axis.boundary, "origin": axis.origin,
             "length": axis.length},
        )
        for axis in grid.axes
    }  # fmt: skip


def coords(grid: Grid, samples: np.ndarray) -> dict[str, xr.Variable]:
    """``axis_coords`` and the numbers of the samples."""
    number = xr.Variable(
        "sample", samples.astype(np.int64), {"long_name": "index within the split"}
    )
    return {"sample": number, **axis_coords(grid)}


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


class _ShardReader:
    """Reads samples from shards, verifying each file once."""

    def __init__(self, path: Path, shards: list[Shard]) -> None:
        self.path, self.shards, self.verified = path, shards, set[str]()
        self.starts = np.array([shard.first for shard in shards])

    def read(self, name: str, samples: np.ndarray, rest: tuple[Any, ...]) -> np.ndarray:
        """Values of ``name`` at sorted or unsorted sample numbers."""
        owner = np.searchsorted(self.starts, samples, side="right") - 1
        pieces: list[np.ndarray] = []
        order: list[np.ndarray] = []
        for number in np.unique(owner):
            where = np.flatnonzero(owner == number)
            unique, inverse = np.unique(samples[where] - self.starts[number], return_inverse=True)
            pieces.append(self._read_one(self.shards[number], name, unique, rest)[inverse])
            order.append(where)
        values = (
            np.concatenate(pieces)
            if pieces
            else self._read_one(self.shards[0], name, np.arange(0), rest)
        )
        return values[np.argsort(np.concatenate(order))] if order else values

    def _read_one(
        self, shard: Shard, name: str, rows: np.ndarray, rest: tuple[Any, ...]
    ) -> np.ndarray:
        if shard.file not in self.verified:
            check_shard(self.path, shard)
            self.verified.add(shard.file)
        try:
            with h5py.File(self.path / shard.file, "r") as file:
                consecutive = len(rows) > 0 and rows[-1] - rows[0] == len(rows) - 1
                values = file[name][slice(int(rows[0]), int(rows[-1]) + 1) if consecutive else rows]
        except (OSError, KeyError) as error:
            raise DamagedDataError(
                f"{self.path / shard.file} ({shard.samples}) cannot be read: {error}"
            ) from error
        for axis, key in enumerate(rest, 1):
            values = values[(slice(None),) * axis + (key,)]
        return values


class _LazyField(BackendArray):
    """One variable of a split, as xarray's lazy-loading protocol wants it."""

    def __init__(
        self, reader: _ShardReader, name: str, shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self.reader, self.name, self.shape, self.dtype = reader, name, shape, dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._take
        )

    def _take(self, key: tuple[Any, ...]) -> np.ndarray:
        first, *rest = key
        samples = np.arange(self.shape[0])[first]
        # whole axes first, scalars last, so that positions keep their meaning while indexing one axis at a time
        kept = [
            np.atleast_1d(np.arange(n)[k]) if np.ndim(k) or isinstance(k, slice) else k
            for k, n in zip(rest, self.shape[1:], strict=True)
        ]
        values = self.reader.read(
            self.name, np.atleast_1d(samples), tuple(np.atleast_1d(k) for k in kept)
        )
        drop = tuple(i for i, k in enumerate([samples, *kept]) if np.ndim(k) == 0)
        return values.squeeze(axis=drop)


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A path to write to; what was written is synced and takes ``target``'s place, or vanishes on
    an error."""
    part = target.with_name(target.name + ".part")
    try:
        yield part
        with part.open("rb+") as handle:
            os.fsync(handle.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _refuse_foreign_paths(content: dict[str, Any], file: Path) -> None:
    """A manifest may come from a stranger: its shards lie in its own folder, under plain names."""
    for split, shards in content["splits"].items():
        for number, shard in enumerate(shards):
            if not split.isidentifier() or shard["file"] != f"{split}/{number:05d}.nc":
                raise DamagedDataError(
                    f"{file} names the file {shard['file']!r}, which is none of a data set's"
                )
    if not all(split.isidentifier() for split in content["requested"]):
        raise DamagedDataError(f"{file} names a split that is no plain word")


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _file_digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
