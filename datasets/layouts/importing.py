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

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import h5py

from sobolev.datasets.layouts.arrays import read_mat, read_neuralop
from sobolev.datasets.layouts.foreign import Foreign, UserWords
from sobolev.datasets.layouts.hdf5 import read_pdebench, read_well
from sobolev.datasets.layouts.opening import described
from sobolev.datasets.layouts.storing import Declared, Part, check_words, store
from sobolev.datasets.store.whole_files import file_digest

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
    symmetries: Sequence[str] = (),
    conserved: Mapping[str, str] | None = None,
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
        symmetries, conserved: what is known of the equation, as a recipe declares it (``Recipe``).
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
    files = _files(source, split)
    if splits is not None and (isinstance(source, Mapping) or Path(source).is_dir()):
        raise ValueError("splits divides a single file; this source has files for each split")
    check_words(splits, list(files), dtype)
    layout = layout or _recognised(next(iter(files.values()))[0])
    if layout not in _READERS:
        raise ValueError(f"layout must be one of {', '.join(_READERS)}, got {layout!r}")
    meaning = UserWords(boundary, length, list(without))
    alone = sum(map(len, files.values())) == 1
    with ExitStack() as stack:
        parts = [
            Part(
                name,
                file.name if alone else f"{name}/{file.name}",
                _read_foreign(layout, file, meaning, stack),
            )
            for name, those in files.items()
            for file in those
        ]
        digests = [file_digest(file) for those in files.values() for file in those]
        origin = {
            "source": parts[0].name if alone else [part.name for part in parts],
            "sha256": digests[0] if alone else digests,
            "layout": layout,
            **({"given": meaning.said} if meaning.said else {}),
        }
        declared = Declared(tuple(symmetries), dict(conserved or {}))
        store(
            path, parts, origin, declared=declared, splits=splits, dtype=dtype, overwrite=overwrite,
            progress=progress,
        )  # fmt: skip
    return path


def _files(source: str | Path | Mapping[str, str | Path], split: str) -> dict[str, list[Path]]:
    """Return the files of each split."""
    if isinstance(source, Mapping):
        files = {name: [Path(file)] for name, file in source.items()}
    elif (folder := Path(source)).is_dir():
        # a Mac leaves a ._NAME.hdf5 beside each file
        visible = (p for p in folder.glob("data/*/*") if not p.name.startswith("."))
        paths = sorted(p for p in visible if p.suffix in (".hdf5", ".h5"))
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
        with h5py.File(file, "r", locking=False) as opened:
            keys = list(opened)
    if "dimensions" in keys:
        return "well"
    if "tensor" in keys:
        return "pdebench"
    raise ValueError(
        f"{file} has none of the layouts {', '.join(_READERS)}; name its fields by --outputs and --inputs "
        f"(sobolev.datasets.store_fields). It holds {described(file)}"
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
