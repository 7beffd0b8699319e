"""Data sets in the file layouts of The Well, PDEBench and neuralop.

========  =================================  =====================================================
layout    files                              fields
========  =================================  =====================================================
well      data/SPLIT/NAME.hdf5, stats.yaml   any number; in space, on the sphere, in time
pdebench  NAME_SPLIT.hdf5                    one output ``tensor`` and at most one input ``nu``
neuralop  NAME_SPLIT_RESOLUTION.pt           one input ``x`` and one output ``y``, no time, no grid
========  =================================  =====================================================

All three hold float32 with x as the first axis in space, where ours comes last. Their frames:

- a trajectory stays one; fields that belong to it and do not change are its constant fields;
- a field and what became of it at time T (Burgers) turn into a trajectory of two frames, 0 and T;
- a steady problem (Darcy) turns into constant fields and a trajectory of a single frame. That is
  what PDEBench does; The Well's reader takes it with ``n_steps_input=0``.

Fields are scalars (``t0_fields``): a manifest does not say which of them are parts of a vector.
Error estimates stay behind: none of the layouts has a place for them.

Where the layout has attributes, they carry the recipe, the seed, the versions, the manifest's
SHA-256, and names, grid and times in full, from which ``import_data`` restores the data set.
"""

from __future__ import annotations

import importlib.util
import json
import math
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import rich
import rich.progress
import torch
import yaml

from sobolev.datasets.store.manifest import STATUS, Manifest, Shard
from sobolev.datasets.store.reading import ShardReader
from sobolev.datasets.store.shards import attributes
from sobolev.datasets.store.whole_files import replacing, save_tensors
from sobolev.grids import AbstractGrid, Grid, SphereGrid
from sobolev.grids.moments import Moments

DESCRIPTION = "sobolev"
"""The attribute that holds what the foreign layout has no place for."""


def export(
    path: str | Path,
    target: str | Path,
    layout: str,
    *,
    splits: Sequence[str] | None = None,
    name: str | None = None,
    round_to_float32: bool = False,
    skip_failed: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Write a data set in the layout of another toolkit, shard by shard.

    Every file is written beside its place and renamed, so that it is whole or absent. For The Well,
    ``stats.yaml`` holds the statistics of the split ``train``, and is left out without one.

    Args:
        path: folder of the data set.
        target: folder for the files.
        layout: ``"well"``, ``"pdebench"`` or ``"neuralop"``.
        splits: which splits; all by default.
        name: what the files are called; like the folder of the data set by default.
        round_to_float32: round a float64 data set, which is refused otherwise.
        skip_failed: leave out samples that the solver gave up on; a data set that has some is
            refused otherwise, since none of the layouts can mark them.
        overwrite: replace files that are there.
        progress: show a progress bar on a terminal.

    Returns:
        The files.

    Raises:
        ValueError: for what the layout cannot hold.
        FileExistsError: if a file is there and ``overwrite`` is not set.
        OSError: if the data set is missing or damaged, or a file cannot be written.
    """
    path = Path(path)
    target = Path(target)
    if layout not in _LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(_LAYOUTS)}, got {layout!r}")
    manifest = Manifest.read(path)
    chosen = _LAYOUTS[layout]
    name = path.resolve().name if name is None else name
    if Path(name).name != name:
        raise ValueError(f"name is part of a file's name, without folders, got {name!r}")
    chosen.refuse(manifest)
    if manifest.dtype != "float32" and not round_to_float32:
        raise ValueError(
            f"{path} holds {manifest.dtype} and the layout {layout} float32; pass "
            "round_to_float32=True (--float32) to round the values"
        )
    parts = [
        _Split(path, manifest, split, name, progress)
        for split in dict.fromkeys(manifest.splits if splits is None else splits)
    ]
    for part in parts:
        part.refuse_failed(skip_failed)
    files = [target / chosen.file(part) for part in parts]
    trains = any(part.split == "train" for part in parts)
    stats = [target / "stats.yaml"] if layout == "well" and trains else []
    if not overwrite and (there := [str(f) for f in [*files, *stats] if f.exists()]):
        raise FileExistsError(
            f"{', '.join(there)} exists; choose another target, or pass overwrite=True (--overwrite)"
        )
    for part, file in zip(parts, files, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        chosen.write(part, file)
    return files + stats


@dataclass(frozen=True)
class Frames:
    """A data set for the other layouts: fields that stay, and fields with frames in time."""

    static: list[str]
    moving: list[str]
    times: tuple[float, ...]

    @classmethod
    def of(cls, manifest: Manifest) -> Frames:
        static = [v["name"] for v in manifest.inputs]
        moving = [v["name"] for v in manifest.outputs]
        if manifest.times:
            return cls(static, moving, tuple(manifest.times))
        end = manifest.recipe.get("time")
        if len(static) == len(moving) == 1 and isinstance(end, (int, float)):
            return cls([], moving, (0.0, float(end)))
        return cls(static, moving, (0.0,))

    def arranged(self, fields: dict[str, np.ndarray], manifest: Manifest) -> dict[str, np.ndarray]:
        """Return our variables as static ``(sample, *space)`` and moving ``(sample, time, *space)`` ones."""
        if manifest.times:
            return fields
        if len(self.times) == 2:
            return {self.moving[0]: np.stack(list(fields.values()), axis=1)}
        return {name: f[:, None] if name in self.moving else f for name, f in fields.items()}


@dataclass(frozen=True)
class _Split:
    """A split on its way out."""

    path: Path
    manifest: Manifest
    split: str
    name: str
    progress: bool

    @property
    def shards(self) -> list[Shard]:
        return self.manifest.shards(self.split)

    @property
    def count(self) -> int:
        """The number of samples that did not fail."""
        return sum(shard.count - shard.failed for shard in self.shards)

    @property
    def frames(self) -> Frames:
        return Frames.of(self.manifest)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a whole variable in the layouts' order of axes."""
        time = [] if name in self.frames.static else [len(self.frames.times)]
        space = [len(points) for points in coordinates(self.manifest.grid).values()]
        return self.count, *time, *space

    def refuse_failed(self, skip_failed: bool) -> None:
        failed = sum(shard.failed for shard in self.shards)
        if failed and not skip_failed:
            raise ValueError(
                f"{failed} of {failed + self.count} samples of split {self.split!r} failed and hold NaN, which the "
                "layout cannot mark; pass skip_failed=True (--skip-failed) to leave them out"
            )
        if not self.count:
            raise ValueError(
                f"every sample of split {self.split!r} failed; nothing is left to export"
            )

    def pieces(self) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """Yield the variables of one shard after the other, float32, and their place in the whole."""
        grid = self.manifest.grid
        done = 0
        with closing(tracked(self.shards, f"exporting {self.split}", self.progress)) as shards:
            for shard in shards:
                count = shard.count - shard.failed
                fields = self.frames.arranged(self._good(shard), self.manifest)
                if not isinstance(grid, SphereGrid):
                    fields = {name: reversed_space(f, grid.ndim) for name, f in fields.items()}
                yield slice(done, done + count), fields
                done += count

    def _good(self, shard: Shard) -> dict[str, np.ndarray]:
        reader = ShardReader(self.path, self.manifest, self.split)
        samples = np.arange(shard.first, shard.first + shard.count)
        samples = samples[reader.read(STATUS, samples) == 0]
        with np.errstate(over="ignore"):  # found below
            fields = {
                v.name: reader.read(v.name, samples).astype(np.float32, copy=False)
                for v in self.manifest.variables
            }
        for name, values in fields.items():
            if not np.isfinite(values).all():
                raise ValueError(
                    f"{self.path / shard.file}: {name} holds values that are not finite in float32; "
                    "run `sobolev verify`"
                )
        return fields

    def provenance(self) -> dict[str, Any]:
        """Return the attributes for the origin of the fields, and for ``import_data``."""
        manifest = self.manifest
        parts = ("nodes", "inputs", "outputs", "times", "time_units")
        found = attributes(manifest, self.split, self.shards[0].versions)
        del found["Conventions"]  # of our own files
        return {
            **found,
            "equation": manifest.equation,
            "measure": manifest.measure,
            "manifest_sha256": manifest.digest,
            DESCRIPTION: json.dumps({part: getattr(manifest, part) for part in parts}),
        }

    @property
    def parameters(self) -> dict[str, float]:
        """The numbers among the recipe's parameters."""
        numbers = self.manifest.recipe.items()
        return {k: v for k, v in numbers if isinstance(v, (int, float)) and not isinstance(v, bool)}


def _write_well(part: _Split, file: Path) -> None:
    frames = part.frames
    spread = {name: Moments.none() for name in (*frames.static, *frames.moving)}
    # readers ask for changes in time even of a single frame: they are 0 then
    changes = {name: Moments.none() for name in frames.moving}
    with _hdf5(file) as out:
        _describe_well(out, part)
        for where, fields in part.pieces():
            for name, values in fields.items():
                out["t0_fields"][name][where] = values
                for sample in values if part.split == "train" else ():  # float64 of one at a time
                    spread[name] += Moments.of(sample)
                    if name in changes:
                        change = np.diff(sample.astype(np.float64), axis=0)
                        changes[name] += Moments.of(change)
    if part.split == "train":
        stats = _well_statistics(spread) | _well_statistics(changes, "_delta")
        with replacing(file.parents[2] / "stats.yaml") as beside:
            beside.write_text(yaml.safe_dump(stats))


@contextmanager
def _hdf5(file: Path) -> Iterator[h5py.File]:
    """Give an HDF5 file to write, which is whole or absent.

    It writes through Python's own file: HDF5 keeps what a full disk did not take, and the interpreter
    dies of it.
    """
    with replacing(file) as beside, beside.open("w+b") as handle, h5py.File(handle, "w") as out:
        yield out


def _describe_well(out: h5py.File, part: _Split) -> None:
    """Write everything but the values."""
    grid = part.manifest.grid
    frames = part.frames
    points = coordinates(grid)
    out.attrs.update(part.provenance())
    out.attrs.update(part.parameters)
    out.attrs.update(
        dataset_name=part.name,
        grid_type="spherical" if isinstance(grid, SphereGrid) else "cartesian",
        n_spatial_dims=grid.ndim,
        n_trajectories=part.count,
        simulation_parameters=_names(part.parameters),
    )
    fixed = {"sample_varying": False, "time_varying": False}
    out.create_group("dimensions").attrs["spatial_dims"] = _names(points)
    for dim, values in {"time": np.array(frames.times), **points}.items():
        out["dimensions"].create_dataset(dim, data=values.astype(np.float32)).attrs.update(fixed)
    for dim, kind in _well_boundaries(grid).items():
        group = out.create_group(f"boundary_conditions/{dim}_{kind.lower()}")
        group.attrs.update(
            fixed, bc_type=kind, associated_dims=_names([dim]), associated_fields=_names([])
        )
        border = np.zeros(len(points[dim]), bool)
        border[[0, -1]] = True
        group.create_dataset("mask", data=border)
    out.create_group("scalars").attrs["field_names"] = _names(part.parameters)
    for name, value in part.parameters.items():
        out["scalars"].create_dataset(name, data=np.float32(value)).attrs.update(fixed)
    for order, names in enumerate(([*frames.static, *frames.moving], [], [])):
        out.create_group(f"t{order}_fields").attrs["field_names"] = _names(names)
        for name in names:
            out[f"t{order}_fields"].create_dataset(name, part.shape(name), np.float32).attrs.update(
                dim_varying=np.ones(grid.ndim, bool),
                sample_varying=True,
                time_varying=name in frames.moving,
            )


def _well_boundaries(grid: AbstractGrid) -> dict[str, str]:
    if isinstance(grid, Grid):
        return {a.name: "PERIODIC" if a.boundary == "periodic" else "WALL" for a in grid.axes[::-1]}
    return {"theta": "OPEN", "phi": "PERIODIC"}  # as in the Well's own planetswe


def _names(names: Any) -> np.ndarray:
    """Return strings in HDF5's type; an empty list would turn into numbers."""
    return np.array(list(names), dtype=h5py.string_dtype())


def _well_statistics(spread: dict[str, Moments], suffix: str = "") -> dict[str, dict[str, float]]:
    """Return mean, standard deviation and root mean square of each field, under The Well's names."""
    deviations = {name: math.sqrt(s.variance) for name, s in spread.items()}
    return {
        f"mean{suffix}": {name: s.mean for name, s in spread.items()},
        f"std{suffix}": deviations,
        f"rms{suffix}": {name: math.hypot(s.mean, deviations[name]) for name, s in spread.items()},
    }


def _refuse_for_pdebench(manifest: Manifest) -> None:
    if isinstance(manifest.grid, SphereGrid):
        raise ValueError("the layout pdebench has no place for a sphere; export to well, which has")
    frames = Frames.of(manifest)
    if len(frames.static) > 1 or len(frames.moving) != 1:
        raise ValueError(
            "the layout pdebench holds one output and at most one input; this data set has the inputs "
            f"{frames.static} and the outputs {frames.moving}; export to well, which holds any number"
        )


def _write_pdebench(part: _Split, file: Path) -> None:
    """Write a file of PDEBench.

    Numbers of the recipe keep their names: PDEBench's ``Nu`` for Burgers is π times ours.
    """
    frames = part.frames
    theirs = {**dict.fromkeys(frames.static, "nu"), **dict.fromkeys(frames.moving, "tensor")}
    with _hdf5(file) as out:
        out.attrs.update(part.parameters)
        out.attrs.update(part.provenance())
        for dim, points in coordinates(part.manifest.grid).items():
            out[f"{dim}-coordinate"] = points.astype(np.float32)
        if len(frames.times) > 1:
            out["t-coordinate"] = np.array(frames.times, np.float32)
        for name, key in theirs.items():
            out.create_dataset(key, part.shape(name), np.float32)
        for where, fields in part.pieces():
            for name, values in fields.items():
                out[theirs[name]][where] = values


def _refuse_for_neuralop(manifest: Manifest) -> None:
    if manifest.times:
        raise ValueError(
            f"the layout neuralop holds pairs of fields, this data set trajectories of {len(manifest.times)} frames; "
            "export to well or pdebench, which have an axis for time"
        )
    if len(manifest.inputs) != 1 or len(manifest.outputs) != 1:
        names = [[v["name"] for v in part] for part in (manifest.inputs, manifest.outputs)]
        raise ValueError(
            f"the layout neuralop holds one input and one output; this data set has {names[0]} and {names[1]}; "
            "export to well, which holds any number"
        )


def _write_neuralop(part: _Split, file: Path) -> None:
    """Write a file of neuralop. Its tensors are written to disk, where ``torch.save`` reads them; filled in
    a map of the disk they would end the interpreter where it is full."""
    names = {"x": part.manifest.inputs[0]["name"], "y": part.manifest.outputs[0]["name"]}
    ndim = part.manifest.grid.ndim
    shape = part.shape(part.frames.moving[0])
    with tempfile.TemporaryDirectory(prefix=".export-", dir=file.parent) as folder:
        with ExitStack() as stack:
            files = [stack.enter_context((Path(folder) / key).open("wb")) for key in names]
            for _, fields in part.pieces():
                frames = list(fields.values())
                pair = frames if len(frames) == 2 else [frames[0][:, 0], frames[0][:, 1]]
                for opened, values in zip(files, pair, strict=True):
                    opened.write(np.ascontiguousarray(values).data)
        tensors = {
            key: np.memmap(Path(folder) / key, np.float32, "c", shape=(shape[0], *shape[-ndim:]))
            for key in names
        }
        with replacing(file) as beside:
            save_tensors({k: torch.from_numpy(values) for k, values in tensors.items()}, beside)


def coordinates(grid: AbstractGrid) -> dict[str, np.ndarray]:
    """Return the nodes of each axis in the layouts' order: x first, or colatitude and longitude in
    radians."""
    points = dict(zip(grid.dims, (p.numpy() for p in grid.points()), strict=True))
    if isinstance(grid, SphereGrid):
        return {"theta": math.pi / 2 - points["lat"], "phi": points["lon"]}
    return dict(reversed(points.items()))


def reversed_space(values: np.ndarray, ndim: int) -> np.ndarray:
    """Return ``values`` with the last ``ndim`` axes in the opposite order."""
    lead = values.ndim - ndim
    return values.transpose(*range(lead), *range(values.ndim - 1, lead - 1, -1))


def tracked(items: Sequence[Any], what: str, shown: bool) -> Generator[Any, None, None]:
    """Yield ``items`` with a progress bar."""
    # in a notebook rich needs ipywidgets, and would warn instead of drawing
    drawable = not rich.get_console().is_jupyter or importlib.util.find_spec("ipywidgets")
    yield from rich.progress.track(items, what, disable=not (shown and drawable))


@dataclass(frozen=True)
class _Layout:
    file: Callable[[_Split], str]
    refuse: Callable[[Manifest], None]
    write: Callable[[_Split, Path], None]


def _pt_file(part: _Split) -> str:
    resolution = "x".join(map(str, dict.fromkeys(part.manifest.grid.shape)))
    return f"{part.name}_{part.split}_{resolution}.pt"


_LAYOUTS = {
    "well": _Layout(lambda p: f"data/{p.split}/{p.name}.hdf5", lambda manifest: None, _write_well),
    "pdebench": _Layout(
        lambda p: f"{p.name}_{p.split}.hdf5", _refuse_for_pdebench, _write_pdebench
    ),
    "neuralop": _Layout(_pt_file, _refuse_for_neuralop, _write_neuralop),
}
