"""Data sets of others into our store: The Well, PDEBench, neuralop, and the FNO papers' MATLAB files.

========  ===================================================  ====================================
layout    what is read                                         grid
========  ===================================================  ====================================
well      an HDF5 file, or a folder with data/SPLIT/*.hdf5     the file's coordinates and boundary
                                                               types; what a wall is must be given
pdebench  ``tensor`` (sample, time, x[, y]), maybe ``nu``      1-D: periodic, as all of PDEBench's;
          (sample, x[, y])                                     Darcy: the unit square; else given
neuralop  a .pt dictionary of ``x`` and ``y``                  must be given: the file has none
fno-mat   Burgers: ``a``, ``u`` (sample, x)                    periodic; its length must be given
fno-mat   Darcy: ``coeff``, ``sol`` (sample, x, y)             cell centres of the unit square
fno-mat   Navier–Stokes: ``a`` (sample, x, y), ``u`` (sample,  the unit torus
          x, y, time), ``t``
========  ===================================================  ====================================

Space has x first in all of them and last in ours; the axes are swapped. Nothing from a file is
executed: a .pt file that holds more than tensors is refused. MATLAB files before version 7.3 and .pt
files older than torch 1.6 are read as a whole, the others 64 samples at a time.

The published Darcy fields were solved for on nodes, interpolated to the cell centres (i + ½)/421
and transposed, so that their pressure does not vanish on the border. They are imported as what they
are, on cell centres (``neumann``); ``boundary="dirichlet"`` takes them for nodes from wall to wall,
as most training scripts do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import xarray as xr

from sobolev.datasets.generating.generation import (
    SHARD_SIZE,
    begin,
    disk_trouble,
    locked,
    versions_of_data,
)
from sobolev.datasets.layouts.arrays import read_mat, read_neuralop
from sobolev.datasets.layouts.exporting import tracked
from sobolev.datasets.layouts.foreign import Foreign, UserWords
from sobolev.datasets.layouts.hdf5 import read_pdebench, read_well
from sobolev.datasets.store.cards import write_card
from sobolev.datasets.store.manifest import ERROR, IMPORTED, STATUS, Manifest
from sobolev.datasets.store.shards import (
    ERROR_ATTRIBUTES,
    STATUS_ATTRIBUTES,
    attributes,
    coords,
    write_shard,
)
from sobolev.datasets.store.whole_files import file_digest
from sobolev.grids.description import describe_grid
from sobolev.grids.restriction import resolution_of
from sobolev.solvers import SolutionError

_READERS: dict[str, Callable[[Path, UserWords, ExitStack], Foreign]] = {
    "well": read_well,
    "pdebench": read_pdebench,
    "neuralop": read_neuralop,
    "fno-mat": read_mat,
}


def import_data(
    source: str | Path | Mapping[str, str | Path],
    path: str | Path,
    layout: str | None = None,
    *,
    split: str = "train",
    splits: Mapping[str, int | float] | None = None,
    boundary: str | Mapping[str, str] | None = None,
    length: float | Mapping[str, float] | None = None,
    without: Sequence[str] = (),
    dtype: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Make a data set of files that another toolkit wrote.

    Samples that hold values that are not finite are kept and flagged in ``status``. What the file
    says of its origin is kept in the manifest's recipe under ``stated``, and not checked.

    Args:
        source: a file; a Well folder with data/SPLIT/*.hdf5; or a file for each split.
        path: folder of the data set to make.
        layout: ``"well"``, ``"pdebench"``, ``"neuralop"`` or ``"fno-mat"``; recognised by what the
            file holds if left out.
        split: the split that the samples of a single file go to.
        splits: how many samples of a single file go to each split, in its order, as whole numbers
            or as fractions; those of ``test`` are its last.
        boundary: ``"periodic"``, ``"dirichlet"`` (nodes from border to border) or ``"neumann"``
            (cell centres), for all axes or by name; overrides what the file says.
        length: of all axes or by name; overrides what the file says.
        without: fields and scalars to leave out.
        dtype: ``"float32"`` or ``"float64"`` on disk; float64 if the file has any, by default.
        overwrite: replace a data set that is there.
        progress: show a progress bar on a terminal.

    Returns:
        ``path``.

    Raises:
        ValueError: for a file of another layout, saying what was found and what was expected; for a
            grid that is not known; for splits that do not fit.
        FileExistsError: if the folder holds something else and ``overwrite`` is not set.
        OSError: if a file cannot be read or the data set not be written.
    """
    path = Path(path).resolve()
    parts = _files(source, split)
    if splits is not None and (isinstance(source, Mapping) or Path(source).is_dir()):
        raise ValueError("splits divides a single file; this source has files for each split")
    if wrong := [name for name in [*parts, *(splits or ())] if not name.isidentifier()]:
        raise ValueError(f"a split's name is a plain word like 'train', got {', '.join(wrong)}")
    if dtype not in (None, "float32", "float64"):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    files = [(name, file) for name, those in parts.items() for file in those]
    layout = layout or _recognised(files[0][1])
    if layout not in _READERS:
        raise ValueError(f"layout must be one of {', '.join(_READERS)}, got {layout!r}")
    meaning = UserWords(boundary, length, list(without))
    with ExitStack() as stack:
        found = {
            name: [_read_foreign(layout, file, meaning, stack) for file in those]
            for name, those in parts.items()
        }
        shares = {name: range(sum(one.count for one in those)) for name, those in found.items()}
        manifest = _manifest_of_files(
            files, [one for those in found.values() for one in those], dtype
        )
        manifest.recipe |= {"layout": layout, **({"given": meaning.said} if meaning.said else {})}
        if splits is not None:
            (those,) = found.values()
            shares = _shares(splits, those[0].count)
            found = dict.fromkeys(shares, those)
            manifest.recipe["samples"] = {k: [r.start, r.stop] for k, r in shares.items()}
        with locked(path):
            manifest = begin(path, manifest, overwrite)
            manifest.requested = {name: len(share) for name, share in shares.items()}
            manifest.write(path)
            for name, share in shares.items():
                _write_split(path, manifest, name, found[name], share, progress)
            write_card(path, manifest)
    return path


def _files(source: str | Path | Mapping[str, str | Path], split: str) -> dict[str, list[Path]]:
    """Return the files of each split."""
    if isinstance(source, Mapping):
        files = {name: [Path(file)] for name, file in source.items()}
    elif (folder := Path(source)).is_dir():
        paths = sorted(p for p in folder.glob("data/*/*") if p.suffix in (".hdf5", ".h5"))
        names = sorted({p.parent.name for p in paths}, key=lambda name: (name != "train", name))
        files = {name: [p for p in paths if p.parent.name == name] for name in names}
        if not files:
            found = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
            raise ValueError(
                f"{folder} is a folder; expected data/SPLIT/*.hdf5 in it as in The Well, found {found}"
            )
    else:
        files = {split: [Path(source)]}
    if not files:
        raise ValueError("source names no file")
    if missing := [str(file) for those in files.values() for file in those if not file.is_file()]:
        raise FileNotFoundError(f"there is no file {', '.join(missing)}")
    return files


def _recognised(file: Path) -> str:
    if file.suffix in (".pt", ".pth"):
        return "neuralop"
    if file.suffix == ".mat":
        return "fno-mat"
    keys: list[str] = []
    if h5py.is_hdf5(file):
        with h5py.File(file, "r") as opened:
            keys = list(opened)
    if "dimensions" in keys:
        return "well"
    if "tensor" in keys:
        return "pdebench"
    raise ValueError(
        f"{file} is none of the layouts {', '.join(_READERS)}: expected a .pt or .mat file, or HDF5 with a group "
        f"dimensions (The Well) or an array tensor (PDEBench), found {', '.join(keys) or 'no HDF5'}"
    )


def _read_foreign(layout: str, file: Path, meaning: UserWords, stack: ExitStack) -> Foreign:
    try:
        found = _READERS[layout](file, meaning, stack)
    except KeyError as error:
        raise ValueError(f"{file} does not have the layout {layout}: {error.args[0]}") from error
    except OSError as error:
        raise OSError(f"{file} cannot be read: {error}") from error
    meaning.check(layout, found.grid)
    if len(set(names := found.names)) < len(names):
        raise ValueError(f"{file}: two fields have one name, {names}; leave one out with without=")
    types = {f.dtype for f in found.fields.values()}
    if odd := [str(t) for t in types if t.kind not in "biuf" or t.itemsize > 8]:
        raise ValueError(f"{file} holds {', '.join(odd)} values; expected real numbers")
    if not found.count:
        raise ValueError(f"{file} holds no sample")
    return found


def _shares(splits: Mapping[str, int | float], total: int) -> dict[str, range]:
    """Return the samples of each split: in order from the first, those of ``test`` the last."""
    counts = {k: n if isinstance(n, int) else int(total * n + 1e-9) for k, n in splits.items()}
    fractions = all(isinstance(n, float) for n in splits.values())
    if fractions and math.isclose(sum(splits.values()), 1.0):
        counts[next(iter(counts))] += total - sum(counts.values())  # what rounding left over
    if not counts or min(counts.values()) < 1 or sum(counts.values()) > total:
        raise ValueError(
            f"splits must have at least 1 sample each and the file's {total} in all, got {dict(splits)}"
        )
    shares = {}
    start = 0
    for name, count in counts.items():
        first = total - count if name == "test" else start
        shares[name] = range(first, first + count)
        start += count if name != "test" else 0
    return shares


def _manifest_of_files(
    files: list[tuple[str, Path]], found: list[Foreign], dtype: str | None
) -> Manifest:
    first = found[0]
    alone = len(files) == 1
    for (_, file), one in zip(files, found, strict=True):
        if differing := [part for part, value in one.kind.items() if value != first.kind[part]]:
            raise ValueError(
                f"{file} differs from {files[0][1]} in its {', '.join(differing)}; a data set has one of each: import "
                "them one by one"
            )
    names = [file.name if alone else f"{split}/{file.name}" for split, file in files]
    digests = [file_digest(file) for _, file in files]
    origin = (names[0], digests[0]) if alone else (names, digests)
    return Manifest(
        recipe={"class": IMPORTED, **dict(zip(("source", "sha256"), origin, strict=True)), **first.facts},
        preset=None, title=f"Imported from {names[0]}" + ("" if alone else f" and {len(names) - 1} more"),
        references=first.references, equation="not known: imported", measure="not known: imported",
        inputs=[asdict(v) for v in first.inputs], outputs=[asdict(v) for v in first.outputs],
        nodes=describe_grid(first.grid), times=list(first.times), time_units=first.time_units, symmetries=[],
        resolution=resolution_of(first.grid), seed=0, shard_size=SHARD_SIZE,
        dtype=dtype or str(np.result_type(*(one.dtype for one in found))),
    )  # fmt: skip


def _write_split(
    path: Path, manifest: Manifest, split: str, those: list[Foreign], samples: range, progress: bool
) -> None:
    size = manifest.shard_size
    with closing(tracked(range(0, len(samples), size), f"importing {split}", progress)) as starts:
        for first in starts:
            wanted = samples[first : first + size]
            values = {name: _read_across(those, name, wanted) for name in those[0].names}
            dataset = _assembled(manifest, split, first, values)
            with disk_trouble(path / split):
                shard = write_shard(
                    path, f"{split}/{first // size:05d}.nc", dataset, versions_of_data()
                )
                manifest.add(split, shard)
                manifest.write(path)


def _read_across(those: list[Foreign], name: str, wanted: range) -> np.ndarray:
    """Return samples that are numbered through several files."""
    pieces = []
    start = 0
    for one in those:
        here = slice(max(wanted.start - start, 0), min(wanted.stop - start, one.count))
        if here.start < here.stop:
            pieces.append(one.fields[name].read(here))
        start += one.count
    return np.concatenate(pieces)


def _assembled(
    manifest: Manifest, split: str, first: int, values: dict[str, np.ndarray]
) -> xr.Dataset:
    """Return one shard; flag samples that are not finite."""
    with np.errstate(over="ignore"):  # flagged below
        values = {name: v.astype(manifest.dtype) for name, v in values.items()}
    good = np.all(
        [np.isfinite(v).all(axis=tuple(range(1, v.ndim))) for v in values.values()], axis=0
    )
    status = np.where(good, 0, SolutionError.STATUS.index("blown_up")).astype(np.int8)
    errors = np.full(len(good), np.nan, np.float32)
    dims = manifest.dims
    fields = {
        v.name: xr.Variable(dims[v.name], values[v.name], v.attributes) for v in manifest.variables
    }
    quality = {
        STATUS: xr.Variable("sample", status, STATUS_ATTRIBUTES),
        ERROR: xr.Variable("sample", errors, ERROR_ATTRIBUTES),
    }
    return xr.Dataset(
        {**fields, **quality},
        coords(manifest, np.arange(first, first + len(good))),
        attributes(manifest, split, versions_of_data()),
    )
