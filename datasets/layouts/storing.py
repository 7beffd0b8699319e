"""Foreign fields written into our store, shard by shard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sobolev.datasets.generating.generation import (
    SHARD_SIZE,
    begin,
    disk_trouble,
    versions_of_data,
)
from sobolev.datasets.layouts.exporting import tracked
from sobolev.datasets.layouts.foreign import Foreign
from sobolev.datasets.store.cards import write_card
from sobolev.datasets.store.locks import locked
from sobolev.datasets.store.manifest import ERROR, IMPORTED, STATUS, Manifest
from sobolev.datasets.store.shards import (
    ERROR_ATTRIBUTES,
    STATUS_ATTRIBUTES,
    attributes,
    coords,
    write_shard,
)
from sobolev.grids.checks import is_whole
from sobolev.grids.description import describe_grid
from sobolev.grids.restriction import resolution_of
from sobolev.grids.symmetries import check_symmetries
from sobolev.solvers import SolutionError

BYTES = 2**28
"""Bytes of a shard up to which it holds ``SHARD_SIZE`` samples; larger samples get shards of fewer."""


@dataclass(frozen=True)
class Declared:
    """The user's words about the equation behind the fields, as a recipe has them."""

    symmetries: tuple[str, ...] = ()
    conserved: Mapping[str, str] = field(default_factory=dict)

    def check(self, foreign: Foreign) -> None:
        """Refuse symmetries that the grid does not have, and names that no field has.

        Raises:
            ValueError: naming the first.
        """
        check_symmetries(self.symmetries, foreign.grid)
        outputs = [v.name for v in foreign.outputs]
        sources = outputs if foreign.times else [v.name for v in foreign.inputs]
        for output, source in self.conserved.items():
            if output not in outputs or source not in sources:
                raise ValueError(
                    f"the integral of {output!r} cannot be that of {source!r}: the outputs are {', '.join(outputs)}, "
                    f"the fields that they start from {', '.join(sources) or 'none'}"
                )


@dataclass(frozen=True)
class Part:
    """The fields of one file, and the words for where they come from."""

    split: str
    name: str
    foreign: Foreign


def check_words(
    splits: Mapping[str, int | float] | None, names: Sequence[str], dtype: str | None
) -> None:
    """Refuse names of splits that are no plain words, and other types than floats."""
    if wrong := [name for name in [*names, *(splits or ())] if not name.isidentifier()]:
        raise ValueError(f"a split's name is a plain word like 'train', got {', '.join(wrong)}")
    if dtype not in (None, "float32", "float64"):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")


def store(
    path: Path,
    parts: Sequence[Part],
    origin: Mapping[str, Any],
    *,
    declared: Declared,
    splits: Mapping[str, int | float] | None = None,
    dtype: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Write foreign fields into the data set at ``path``.

    Args:
        path: folder of the data set.
        parts: in the order of their samples; those of one split follow one another.
        origin: what the recipe of the data set says of where they come from.
        declared: what is known of their equation.
        splits, dtype, overwrite, progress: as for ``import_data``; ``splits`` divides a single split.

    Raises:
        ValueError: for parts that do not fit together, and splits that do not fit.
        FileExistsError: if the folder holds something else and ``overwrite`` is not set.
        OSError: if a file cannot be read or the data set not be written.
    """
    found: dict[str, list[Foreign]] = {}
    for part in parts:
        found.setdefault(part.split, []).append(part.foreign)
    shares = {name: range(sum(one.count for one in those)) for name, those in found.items()}
    manifest = _manifest_of(parts, origin, declared, dtype)
    if splits is not None:
        (those,) = found.values()
        shares = _shares(splits, sum(one.count for one in those))
        found = dict.fromkeys(shares, those)
        manifest.recipe["samples"] = {k: [r.start, r.stop] for k, r in shares.items()}
    with locked(path):
        manifest = begin(path, manifest, overwrite)
        manifest.requested = {name: len(share) for name, share in shares.items()}
        manifest.write(path)
        for name, share in shares.items():
            _write_split(path, manifest, name, found[name], share, progress)
        write_card(path, manifest)


def _shares(splits: Mapping[str, int | float], total: int) -> dict[str, range]:
    """Return the samples of each split: in order from the first, those of ``test`` the last."""
    counts = {k: int(n) if is_whole(n) else int(total * n + 1e-9) for k, n in splits.items()}
    fractions = not any(is_whole(n) for n in splits.values())
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


def _manifest_of(
    parts: Sequence[Part], origin: Mapping[str, Any], declared: Declared, dtype: str | None
) -> Manifest:
    first = parts[0].foreign
    declared.check(first)
    for part in parts[1:]:
        kind = part.foreign.kind
        if differing := [name for name, value in kind.items() if value != first.kind[name]]:
            raise ValueError(
                f"{part.name} differs from {parts[0].name} in its {', '.join(differing)}; a data set has one of each: "
                "import them one by one"
            )
    more = "" if len(parts) == 1 else f" and {len(parts) - 1} more"
    types = [part.foreign.dtype for part in parts]
    return Manifest(
        recipe={"class": IMPORTED, **origin, **first.facts},
        preset=None, title=f"Imported from {parts[0].name}{more}",
        references=first.references, equation="not known: imported", measure="not known: imported",
        inputs=[asdict(v) for v in first.inputs], outputs=[asdict(v) for v in first.outputs],
        nodes=describe_grid(first.grid), times=list(first.times), time_units=first.time_units,
        symmetries=list(declared.symmetries), conserved=dict(declared.conserved) or None,
        parameters=_ranges(parts), mask=first.mask,
        resolution=resolution_of(first.grid), seed=0, shard_size=_shard_size(first),
        dtype=dtype or str(np.result_type(*types)),
    )  # fmt: skip


def _ranges(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return the numbers of the samples, with the range that they have in the first split."""
    trained = [part.foreign.parameters for part in parts if part.split == parts[0].split]
    return [
        asdict(replace(same[0], low=min(p.low for p in same), high=max(p.high for p in same)))
        for same in zip(*trained, strict=True)
    ]


def _shard_size(foreign: Foreign) -> int:
    """Return how many samples a shard holds, so that one fits into memory."""
    nodes = math.prod(foreign.grid.shape)
    fields = len(foreign.inputs) + len(foreign.outputs) * max(1, len(foreign.times))
    return max(1, min(SHARD_SIZE, BYTES // (foreign.dtype.itemsize * nodes * fields)))


def _write_split(
    path: Path, manifest: Manifest, split: str, those: list[Foreign], samples: range, progress: bool
) -> None:
    size = manifest.shard_size

    def read(first: int) -> dict[str, np.ndarray]:
        wanted = samples[first : first + size]
        return {name: _read_across(those, name, wanted) for name in those[0].names}

    firsts = range(0, len(samples), size)
    with (
        ThreadPoolExecutor(1) as reader,  # reads the next shard while this one goes to the disk
        closing(tracked(firsts, f"importing {split}", progress)) as starts,
    ):
        ahead = reader.submit(read, 0)
        for first in starts:
            values = ahead.result()
            if first + size < len(samples):
                ahead = reader.submit(read, first + size)
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
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _assembled(
    manifest: Manifest, split: str, first: int, values: dict[str, np.ndarray]
) -> xr.Dataset:
    """Return one shard; flag samples that are not finite."""
    with np.errstate(over="ignore"):  # flagged below
        values = {name: v.astype(manifest.dtype, copy=False) for name, v in values.items()}
    good = np.all(
        [np.isfinite(v).all(axis=tuple(range(1, v.ndim))) for v in values.values()], axis=0
    )
    status = np.where(good, 0, SolutionError.STATUS.index("blown_up")).astype(np.int8)
    errors = np.full(len(good), np.nan, np.float32)
    dims = manifest.dims
    fields = {
        v.name: xr.Variable(dims[v.name], values[v.name], v.attributes) for v in manifest.stored
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
