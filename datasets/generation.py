"""Drawing, solving and writing a data set, shard by shard."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import filelock
import numpy as np
import rich
import rich.progress
import torch
import xarray as xr

from sobolev.datasets.recipes import PRESETS, Recipe, find_recipe
from sobolev.datasets.store import (
    MANIFEST,
    DamagedDataError,
    Manifest,
    attributes,
    check_shard,
    coords,
    describe,
    open_dataset,
    write_shard,
)
from sobolev.solvers.random_fields import stream

SHARD_SIZE = 64
"""Samples per file: the unit that survives an interruption."""
_SOLVER_BATCH = 8


def generate(
    recipe: str | Recipe,
    path: str | Path,
    samples: Mapping[str, int] | None = None,
    *,
    resolution: int | None = None,
    seed: int = 0,
    dtype: str = "float32",
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Draw a data set, or continue one that was interrupted.

    Sample i of a split comes from a random stream of its own, keyed by (seed, split, i): it does
    not depend on how many are drawn, in which order, or after how many interruptions. Called again
    with the same arguments, ``generate`` continues where it stopped; called with more samples, it
    adds them.

    Args:
        recipe: a preset's name (``"burgers-fno"``, ``"darcy-fno"``) or a ``Recipe``.
        path: folder of the data set.
        samples: how many of each split; 1000 of ``train``, 100 of ``valid`` and 200 of ``test`` by
            default.
        resolution: nodes per axis of the stored fields, picked from those of the solve; the
            solver's by default.
        seed: root of all random streams.
        dtype: ``"float32"`` or ``"float64"``, on disk; solvers run in float64.
        overwrite: replace a data set of another configuration.
        progress: show a progress bar on a terminal.

    Returns:
        ``path``.

    Raises:
        ValueError: for an unknown recipe, a resolution it cannot serve, or a bad sample count.
        FileExistsError: if the folder holds something else and ``overwrite`` is not set.
        OSError: if the disk is full; what was finished stays, and the next call continues.
    """
    drawn = find_recipe(recipe)
    samples = {"train": 1000, "valid": 100, "test": 200} if samples is None else samples
    resolution = resolution or drawn.solver_resolution
    if resolution not in drawn.resolutions():
        raise ValueError(
            f"{_name_of(drawn)} solves on {drawn.solver_resolution} nodes per axis and cannot be "
            f"stored at {resolution}; choose from {', '.join(map(str, drawn.resolutions()))}"
        )
    if not samples or any(not isinstance(n, int) or n < 1 for n in samples.values()):
        raise ValueError(
            f"samples needs a whole number of at least 1 per split, got {dict(samples)}"
        )
    if any(not split.isidentifier() for split in samples):
        raise ValueError(
            f"a split's name is a plain word like 'train', got {', '.join(map(repr, samples))}"
        )
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    stream(seed)  # refuses a bad seed before anything is written
    path = Path(path)
    with _locked(path):
        manifest = _begin(path, _described(drawn, resolution, seed, dtype), overwrite)
        manifest.requested = {
            **manifest.requested,
            **{k: max(n, manifest.requested.get(k, 0)) for k, n in samples.items()},
        }
        manifest.write(path)
        complete = all(
            manifest.count(split) == count for split, count in manifest.requested.items()
        )
        with _progress_bar(manifest, progress and not complete) as advance:
            for split, count in manifest.requested.items():
                for first in range(0, count, manifest.shard_size):
                    last = min(first + manifest.shard_size, count)
                    _complete(path, manifest, drawn, split, first, last)
                    advance(split, last)
    return path


def verify(path: str | Path) -> list[str]:
    """Everything that is wrong with a data set, one line each; empty if nothing is.

    Checks the manifest, every shard's presence, size and SHA-256, that nothing is missing, and that
    all values are finite. Raises what ``Manifest.read`` raises if there is no readable manifest.
    """
    path = Path(path)
    manifest = Manifest.read(path)
    problems = []
    for split, wanted in manifest.requested.items():
        if (have := manifest.count(split)) < wanted:
            problems.append(f"split {split!r} is unfinished: {have} of {wanted} samples")
        for shard in manifest.splits.get(split, []):
            try:
                check_shard(path, shard)
            except OSError as error:
                problems.append(str(error))
                continue
            with xr.open_dataset(path / shard.file, engine="h5netcdf") as data:
                problems += [
                    f"{path / shard.file} ({shard.samples}): {name} holds values that are not finite"
                    for name in data.data_vars
                    if not np.isfinite(data[name].values).all()
                ]
    return problems


def refined(path: str | Path, split: str, resolution: int, *, progress: bool = True) -> Path:
    """The same samples of ``split`` as in ``path``, stored at a finer ``resolution`` in a data set
    beside it.

    Nothing is interpolated: the samples are drawn again from their seeds, so that they are the ones
    in ``path`` with more of the solver's nodes kept. A second call finds them.
    """
    path = Path(path)
    manifest = Manifest.read(path)
    manifest.shards(split)
    return generate(
        manifest.build_recipe(), path / f"at-{resolution}", {split: manifest.requested[split]},
        resolution=resolution, seed=manifest.seed, dtype=manifest.dtype, progress=progress,
    )  # fmt: skip


def _complete(
    path: Path, manifest: Manifest, recipe: Recipe, split: str, first: int, last: int
) -> None:
    """Write the shard of samples ``first`` … ``last`` − 1 unless it is there."""
    shards = manifest.splits.setdefault(split, [])
    number = first // manifest.shard_size
    if number < len(shards) and shards[number].count == last - first:
        with contextlib.suppress(DamagedDataError):  # a missing or truncated shard is drawn again
            return check_shard(path, shards[number], content=False)
    dataset = _draw(recipe, manifest, split, range(first, last))
    try:
        shard = write_shard(path, f"{split}/{number:05d}.nc", dataset, _versions())
        manifest.splits[split] = [*shards[:number], shard, *shards[number + 1 :]]
        manifest.write(path)
    except (OSError, RuntimeError) as error:  # HDF5 reports a full disk as either
        raise OSError(
            f"could not write to {path / split}: {error}. {manifest.count(split)} samples of {split!r} "
            "are safe; make room and run the same command again to continue"
        ) from error


def _draw(recipe: Recipe, manifest: Manifest, split: str, samples: range) -> xr.Dataset:
    """Draw and solve some samples of a split."""
    fine, stored = recipe.grid(recipe.solver_resolution), manifest.grid
    pieces = []
    for start in range(samples.start, samples.stop, _SOLVER_BATCH):
        batch = range(start, min(start + _SOLVER_BATCH, samples.stop))
        inputs = recipe.draw([stream(manifest.seed, _split_key(split), i) for i in batch])
        pieces.append(
            fine.subsample(torch.cat([inputs, recipe.solve(inputs, fine)], dim=1), stored)
        )
    values = torch.cat(pieces).numpy().astype(manifest.dtype)
    dims = ("sample", *(axis.name for axis in stored.axes))
    variables = {
        variable.name: xr.Variable(dims, values[:, i], describe(variable))
        for i, variable in enumerate(manifest.variables)
    }
    return xr.Dataset(
        variables, coords(stored, np.array(samples)), attributes(manifest, split, _versions())
    )


def _described(recipe: Recipe, resolution: int, seed: int, dtype: str) -> Manifest:
    return Manifest(
        recipe=recipe.configuration(),
        preset=next((name for name, preset in PRESETS.items() if preset == recipe), None),
        title=recipe.title,
        references=recipe.references,
        inputs=[asdict(v) for v in recipe.inputs],
        outputs=[asdict(v) for v in recipe.outputs],
        axes=[asdict(axis) for axis in recipe.grid(resolution).axes],
        symmetries=list(recipe.symmetries),
        resolution=resolution,
        seed=seed,
        dtype=dtype,
        shard_size=SHARD_SIZE,
    )


def _versions() -> dict[str, str]:
    packages = ("sobolev", "torch", "numpy", "h5py")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def _begin(path: Path, fresh: Manifest, overwrite: bool) -> Manifest:
    """The manifest to continue, or a fresh one."""
    if not (path / MANIFEST).exists():
        foreign = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
        if foreign and not overwrite:
            raise FileExistsError(
                f"{path} is not empty and holds no sobolev data set ({', '.join(sorted(foreign)[:3])} …); choose "
                "another folder"
            )
        return fresh
    if overwrite:
        _clear(path)
        return fresh
    found = Manifest.read(path)
    changed = [name for name, value in fresh.identity.items() if found.identity[name] != value]
    if changed:
        details = "; ".join(
            f"{name}: {found.identity[name]} there, {fresh.identity[name]} asked for"
            for name in changed
        )
        raise FileExistsError(
            f"{path} holds a data set of another configuration ({details}); use another folder, or overwrite it"
        )
    return found


def _clear(path: Path) -> None:
    """Remove a data set and its finer copies; files that ``generate`` did not write stay."""
    for manifest in [path / MANIFEST, *path.glob(f"at-*/{MANIFEST}")]:
        for shard in manifest.parent.glob("*/[0-9][0-9][0-9][0-9][0-9].nc"):
            shard.unlink()
            if not any(shard.parent.iterdir()):
                shard.parent.rmdir()
        manifest.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise FileExistsError(
            f"another process is writing to {path}; wait for it or choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _progress_bar(manifest: Manifest, shown: bool) -> Iterator[Callable[[str, int], None]]:
    """A bar per split with fields per second and the time left."""
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[rate]}"),
        rich.progress.TimeRemainingColumn(),
    )
    # in a notebook rich needs ipywidgets, and would warn instead of drawing
    drawable = not rich.get_console().is_jupyter or importlib.util.find_spec("ipywidgets")
    with rich.progress.Progress(*columns, disable=not (shown and drawable)) as bar:
        tasks = {
            split: bar.add_task(
                f"drawing {split}",
                total=count,
                completed=manifest.count(split),
                rate="",
                start=False,
            )
            for split, count in manifest.requested.items()
        }

        def advance(split: str, done: int) -> None:
            task = bar.tasks[tasks[split]]
            rate = f"{task.speed:.1f} fields/s" if task.speed else ""
            bar.update(tasks[split], completed=max(done, task.completed), rate=rate)

        for task in tasks.values():
            bar.start_task(task)
        yield advance


def _split_key(split: str) -> int:
    """A number for the split's name; Python's own ``hash`` changes from process to process."""
    return int.from_bytes(hashlib.sha256(split.encode()).digest()[:8], "big")


def _name_of(recipe: Recipe) -> str:
    return next(
        (name for name, preset in PRESETS.items() if preset == recipe), type(recipe).__name__
    )


__all__ = ["generate", "open_dataset", "refined", "verify"]
