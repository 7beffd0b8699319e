"""Files of others as one ``xr.Dataset``, lazily where the format allows it.

========================  ================================================================================
format                    what is read
========================  ================================================================================
NetCDF-3, NetCDF-4        the file as xarray opens it
Zarr                      a folder; needs the extra ``sobolev[zarr]``
HDF5                      every array in it, by its path; dimensions from scales where it has some
.npz, .npy                arrays; a .npy file's is called like the file
.mat                      arrays (version 7.3 is HDF5 with the axes in the other order)
.pt, .pth                 a dictionary of tensors, or one tensor, called like the file
========================  ================================================================================

Arrays without names of dimensions get them from arrays of coordinates beside them (``x``, ``t`` …), by
their lengths; the rest is ``sample, [time,] [[z,] y,] x``. What cannot be told is asked for. Nothing from
a file is executed: pickles are refused, in Zarr's filters as well.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import torch
import xarray as xr
from jaxtyping import Shaped
from xarray.backends import BackendArray
from xarray.core import indexing

from sobolev.datasets.layouts.foreign import array as array_in
from sobolev.datasets.layouts.foreign import as_array, tensors_in, unknown

Arrays = dict[str, Any]
"""Arrays by name, lazy ones among them: NumPy's, or h5py's."""
COORDINATES = {
    "x": "x", "y": "y", "z": "z", "t": "time", "tt": "time", "time": "time", "lat": "lat", "latitude": "lat",
    "lon": "lon", "longitude": "lon", "theta": "theta", "phi": "phi", "r": "r",
}  # fmt: skip
"""Names of arrays that are coordinates, and of the dimensions that they belong to."""

_CONNECTIONS = (
    "triang", "triangles", "edge_index", "edges", "faces", "cells", "elements", "connectivity", "simplices",
)  # fmt: skip


def open_fields(
    source: str | Path | Sequence[str | Path],
    stack: ExitStack,
    *,
    fields: Sequence[str] = (),
    dims: Mapping[str, Sequence[str]] | None = None,
    coordinates: Mapping[str, Sequence[float]] | None = None,
) -> list[xr.Dataset]:
    """Open files as datasets: one of all their variables, or, where they have the same ones, one for each
    file.

    Args:
        source: a file or a Zarr folder, or several.
        stack: closes the files at its end.
        fields: names of the arrays that are fields, even if they are called like coordinates.
        dims: names of the dimensions of arrays that have none; axes of length 1 may be left out.
        coordinates: of dimensions that have none: a number for each place, or the first and the last.

    Raises:
        ValueError: for files that are none of these formats, damaged, or hold Python objects; and for
            dimensions that cannot be told apart.
        FileNotFoundError: if one is missing.
    """
    files = [Path(one) for one in ([source] if isinstance(source, (str, Path)) else source)]
    if missing := [str(file) for file in files if not file.exists()]:
        raise FileNotFoundError(f"there is no file {', '.join(missing)}")
    found = [_contents(file, stack) for file in files]
    moving = "time" in (coordinates or {})
    plain = [one for one in found if not isinstance(one, xr.Dataset)]
    if len(plain) == len(found) and not _same_names([set(one) for one in plain]):
        merged = {name: values for one in plain for name, values in one.items()}
        return [
            _located(named(merged, fields, dims or {}, files[0].name, moving), coordinates or {})
        ]
    datasets = [
        one if isinstance(one, xr.Dataset) else named(one, fields, dims or {}, file.name, moving)
        for one, file in zip(found, files, strict=True)
    ]
    if not _same_names([{str(name) for name in one.data_vars} for one in datasets]):
        datasets = [_merged(datasets, files)]
    return [_located(one, coordinates or {}) for one in datasets]


def _merged(datasets: Sequence[xr.Dataset], files: Sequence[Path]) -> xr.Dataset:
    """Return the variables of several files in one dataset."""
    try:
        return xr.merge(
            datasets, compat="no_conflicts", join="exact", combine_attrs="drop_conflicts"
        )
    except ValueError as error:
        raise ValueError(
            f"the files {', '.join(file.name for file in files)} do not fit together: {error}"
        ) from error


def _located(dataset: xr.Dataset, coordinates: Mapping[str, Sequence[float]]) -> xr.Dataset:
    """Return the dataset with the coordinates that the user knows."""
    for dim, given in coordinates.items():
        if dim not in dataset.sizes:
            raise ValueError(
                f"there is no dimension {dim!r} to have coordinates; there are {', '.join(map(str, dataset.sizes))}"
            )
        count = dataset.sizes[dim]
        points = np.asarray(given, np.float64)
        if len(points) == 2 < count:  # the first and the last
            points = np.linspace(points[0], points[1], count)
        if len(points) != count:
            raise ValueError(
                f"{dim!r} has {count} places, got {len(points)} coordinates; give one for each, or the first and the "
                "last"
            )
        dataset = dataset.assign_coords({dim: (dim, points)})
    return dataset


def _same_names(names: Sequence[set[str]]) -> bool:
    """Return whether all files have the same variables."""
    return all(one == names[0] for one in names)


def _contents(file: Path, stack: ExitStack) -> xr.Dataset | Arrays:
    """Return what is in one file: a dataset where the format has names of dimensions, else arrays."""
    if file.is_dir():
        return _zarr(file, stack)
    with file.open("rb") as handle:
        magic = handle.read(4)
    if magic[:3] == b"CDF":
        return _netcdf(file, "scipy", stack)
    if file.suffix == ".npy":
        return {file.name.split(".")[0]: _numpy(file)}
    if file.suffix == ".npz":
        return _numpy(file)
    if file.suffix in (".pt", ".pth"):
        return _tensors(file)
    if h5py.is_hdf5(file):
        with h5py.File(file, "r", locking=False) as opened:
            scaled = _has_scales(opened)
        if scaled:
            return _netcdf(file, "h5netcdf", stack)
        opened = stack.enter_context(h5py.File(file, "r", locking=False))
        return _arrays_in(opened, reverse=file.suffix == ".mat")
    if file.suffix == ".mat":
        return _matlab(file)
    table = ""
    if file.suffix in (".csv", ".tsv", ".txt", ".dat"):
        table = (
            "; a table with a column for each dimension becomes a dataset by "
            "pandas.read_csv(file).set_index([dimensions]).to_xarray()"
        )
    raise ValueError(
        f"{file} is none of the formats NetCDF, Zarr, HDF5, .npz, .npy, .mat or .pt; it begins with {magic!r}{table}"
    )


def _netcdf(file: Path, engine: Any, stack: ExitStack) -> xr.Dataset:
    try:
        # files that never change are read without locks, which some mounts lack
        options: dict[str, Any] = (
            {"driver_kwds": {"locking": False}} if engine == "h5netcdf" else {}
        )
        opened = xr.open_dataset(file, engine=engine, decode_times=False, **options)
    except Exception as error:  # whatever a damaged file leads the reader to
        raise ValueError(f"{file} cannot be read as NetCDF: {error}") from error
    return stack.enter_context(opened)


def _zarr(folder: Path, stack: ExitStack) -> xr.Dataset:
    described = [
        p for p in folder.rglob("*") if p.name in (".zgroup", ".zarray", ".zmetadata", "zarr.json")
    ]
    if not described:
        raise ValueError(
            f"{folder} is a folder, but no Zarr store; give a file, or a folder with zarr.json"
        )
    for file in described:
        if "pickle" in file.read_text():
            raise ValueError(
                f"{file} says that values are pickled Python objects, which can run code; refused"
            )
    if importlib.util.find_spec("zarr") is None:
        raise ImportError(f"{folder} is a Zarr store; pip install 'sobolev[zarr]' reads those")
    try:
        opened = xr.open_dataset(folder, engine="zarr", decode_times=False, chunks=None)
    except Exception as error:  # whatever a damaged store leads the reader to
        raise ValueError(f"{folder} cannot be read as Zarr: {error}") from error
    return stack.enter_context(opened)


def _numpy(file: Path) -> Any:
    """Return the array of a .npy file, mapped, or those of a .npz file by their names."""
    try:
        if file.suffix == ".npy":
            return np.load(file, allow_pickle=False, mmap_mode="r")
        with np.load(file, allow_pickle=False) as opened:
            return dict(opened)
    except Exception as error:  # whatever a damaged or hostile file leads NumPy to
        raise ValueError(f"{file} holds no plain arrays, or is damaged: {error}") from error


def _tensors(file: Path) -> Arrays:
    content = tensors_in(file)
    tensors = {name: t for name, t in content.items() if isinstance(t, torch.Tensor)}
    if not tensors:
        raise ValueError(f"{file} holds no tensor, but {', '.join(map(str, content)) or 'nothing'}")
    if list(tensors) == [torch.Tensor.__name__]:  # the file is a single tensor, called like it
        tensors = {file.name.split(".")[0]: tensors.popitem()[1]}
    return {str(name): as_array(t) for name, t in tensors.items()}


def _matlab(file: Path) -> Arrays:
    try:
        content = scipy.io.loadmat(file)
    except Exception as error:  # whatever a damaged file leads scipy to
        raise ValueError(f"{file} cannot be read as a MATLAB file: {error}") from error
    return {k: v for k, v in content.items() if not k.startswith("__") and v.dtype.kind in "biufc"}


def _has_scales(opened: h5py.File) -> bool:
    """Return whether an HDF5 file names the dimensions of its arrays, as NetCDF-4 does."""
    found = (value for value in opened.values() if isinstance(value, h5py.Dataset))
    return "_NCProperties" in opened.attrs or any(value.is_scale for value in found)


def _arrays_in(opened: h5py.File, *, reverse: bool) -> Arrays:
    """Return every array of numbers in the file itself, by its path."""
    found: Arrays = {}

    def visit(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "biufc" and item.shape is not None:
            found[path] = _InFile(array_in(opened, path), reverse=reverse)

    opened.visititems(visit)
    if not found:
        raise ValueError(
            f"{opened.filename} holds no array of numbers, but {', '.join(opened) or 'nothing'}"
        )
    return found


class _InFile(BackendArray):
    """An array in an HDF5 file, in xarray's lazy-loading protocol; MATLAB's have their axes reversed."""

    def __init__(self, data: h5py.Dataset, *, reverse: bool) -> None:
        self.data = data
        self.reverse = reverse
        self.shape = data.shape[::-1] if reverse else data.shape
        self.dtype = data.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Shaped[np.ndarray, " ..."]:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER_1VECTOR, self._take
        )

    def _take(self, key: tuple[Any, ...]) -> Shaped[np.ndarray, " ..."]:
        return self.data[key[::-1]].T if self.reverse else self.data[key]


def named(
    arrays: Arrays,
    fields: Sequence[str],
    dims: Mapping[str, Sequence[str]],
    where: str,
    moving: bool,
) -> xr.Dataset:
    """Return arrays without names of dimensions as a dataset, under the names that the store gives them.

    Args:
        arrays: by their names.
        fields: which of them are fields; all but coordinates if left out.
        dims: the dimensions of some, which the user knows.
        where: the file's name.
        moving: whether the fields have a time.

    Raises:
        ValueError: for dimensions that cannot be told apart.
    """
    _refuse_mesh(arrays, fields, where)
    lines = {
        name: values
        for name, values in arrays.items()
        if name in COORDINATES
        and name not in fields
        and max(values.shape, default=0) == np.prod(values.shape)
    }
    coordinates = {COORDINATES[n]: np.asarray(_loaded(v)).ravel() for n, v in lines.items()}
    chosen = [name for name in (fields or arrays) if name in arrays and name not in lines]
    ranks = [len(arrays[name].shape) for name in chosen if arrays[name].shape]
    space = min((rank for rank in ranks if rank > 1), default=2) - 1
    space = max(ranks, default=3) - 2 if moving else space
    found: dict[str, xr.Variable] = {}
    for name, values in arrays.items():
        if name in lines:
            continue
        if name in dims:
            its = list(dims[name])
            if len(its) < len(values.shape) and 1 in values.shape:
                values = np.squeeze(_loaded(values))
            if len(its) != len(values.shape):
                raise ValueError(
                    f"{name} of {where} has shape {tuple(values.shape)}, but {len(its)} dimensions were given: "
                    f"{', '.join(its)}"
                )
        elif name in chosen:
            its = _guessed(name, tuple(values.shape), coordinates, space, where)
        else:  # nobody asked for it: its dimensions do not matter
            its = [f"{name}_{i}" for i in range(len(values.shape))]
        (plain,) = unknown([name], where)
        found[plain.name] = xr.Variable(its, _lazily(values))
    dataset = xr.Dataset(found)
    there = {
        dim: points for dim, points in coordinates.items() if dataset.sizes.get(dim) == len(points)
    }
    dataset = dataset.assign_coords({dim: (dim, points) for dim, points in there.items()})
    dataset.encoding["source"] = where
    return dataset


def _refuse_mesh(arrays: Arrays, fields: Sequence[str], where: str) -> None:
    """Refuse nodes that lie on no grid: connections between them, or coordinates of each one."""
    connections = [name for name in arrays if name.lower() in _CONNECTIONS]
    if connections:
        raise ValueError(
            f"{where} holds an unstructured mesh ({', '.join(connections)}), and sobolev's fields lie on grids; "
            "sobolev.datasets.scattered_to_grid interpolates them onto one, for store_fields to take"
        )


def _guessed(
    name: str, shape: tuple[int, ...], coordinates: Mapping[str, Any], space: int, where: str
) -> list[str]:
    """Return names of dimensions: those of coordinates by their lengths, or by their order where there are
    none."""
    asked = f"pass dims={{{name!r}: [...]}} (--dims {name}=sample,time,y,x or the like)"
    if not coordinates:
        lead = ["sample", "time"][: len(shape) - space]
        if len(lead) + space != len(shape) or space > 3:
            raise ValueError(
                f"the dimensions of {name} {shape} of {where} cannot be told apart; {asked}"
            )
        return [*lead, *("z", "y", "x")[3 - space :]]
    fits = [[dim for dim, points in coordinates.items() if len(points) == n] for n in shape]
    certain = [one[0] for one in fits if len(one) == 1]
    unsure = any(len(one) > 1 for one in fits) or len(set(certain)) < len(certain)
    rest = [i for i, one in enumerate(fits) if not one]
    if unsure or rest not in ([], [0]):
        lengths = ", ".join(f"{dim} ({len(points)})" for dim, points in coordinates.items())
        raise ValueError(
            f"the dimensions of {name} {shape} of {where} cannot be told apart by the coordinates {lengths}; {asked}"
        )
    return [*("sample" for _ in rest), *certain]


def _loaded(values: Any) -> Shaped[np.ndarray, " ..."]:
    return values.data[()] if isinstance(values, _InFile) else values


def _lazily(values: Any) -> Any:
    return indexing.LazilyIndexedArray(values) if isinstance(values, _InFile) else values


def described(source: str | Path) -> str:
    """Return the arrays of a file with their shapes, as a person reads them.

    Raises:
        ValueError: as ``open_fields``.
    """
    with ExitStack() as stack:
        found = _contents(Path(source), stack)
        listed = found.variables.items() if isinstance(found, xr.Dataset) else found.items()
        return ", ".join(f"{name} {tuple(values.shape)}" for name, values in listed)
