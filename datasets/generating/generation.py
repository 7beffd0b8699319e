"""Drawing, solving and writing a data set, shard by shard, in one process or many."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import rich
import rich.progress
import torch
import xarray as xr

from sobolev.datasets.generating.executors import executor
from sobolev.datasets.recipes.base import Recipe, Solved, identity
from sobolev.datasets.recipes.presets import PRESETS, find_recipe, recipe_from
from sobolev.datasets.store.cards import is_card, write_card
from sobolev.datasets.store.locks import locked
from sobolev.datasets.store.manifest import (
    ERROR,
    MANIFEST,
    STATUS,
    DamagedDataError,
    Manifest,
    Shard,
)
from sobolev.datasets.store.reading import check_shard
from sobolev.datasets.store.shards import (
    ERROR_ATTRIBUTES,
    STATUS_ATTRIBUTES,
    attributes,
    coords,
    open_dataset,
    write_shard,
)
from sobolev.grids.checks import is_whole, plain
from sobolev.grids.description import describe_grid
from sobolev.grids.restriction import restricted
from sobolev.grids.streams import stream

SHARD_SIZE = 64
"""The number of samples per file, the unit that survives an interruption."""
ESTIMATED_EVERY = 64
"""The number of samples of which one is solved again in half the steps on twice the cells."""
SOLVER_BATCH = 8


def generate(
    recipe: str | Recipe,
    path: str | Path,
    samples: Mapping[str, int] | None = None,
    *,
    resolution: int | None = None,
    seed: int = 0,
    dtype: str = "float32",
    overwrite: bool = False,
    workers: int = 1,
    dask: str | None = None,
    progress: bool = True,
    wait: bool = False,
) -> Path:
    """Draw a data set, or continue one that was interrupted.

    Sample i of a split comes from a random stream of its own, keyed by (seed, split, i): it does
    not depend on how many are drawn, in which order, or after how many interruptions. Called again
    with the same arguments, ``generate`` continues where it stopped; called with more samples, it
    adds them; with fewer, it takes none away.

    Samples that the solver gives up on are kept, flagged in the variable ``status``. Of every 64th
    sample an error estimate is stored (``Recipe.error_estimate``).

    Args:
        recipe: a preset's name (``sobolev.datasets.PRESETS``) or a ``Recipe``.
        path: folder of the data set.
        samples: how many of each split; 1000 of ``train``, 100 of ``valid`` and 200 of ``test`` by
            default.
        resolution: nodes per axis of the stored fields, restricted from those of the solve; the
            preset's by default.
        seed: root of all random streams.
        dtype: ``"float32"`` or ``"float64"``, on disk; solvers run in float64.
        overwrite: replace a data set of another configuration.
        workers: processes that draw shards side by side, one thread each. The files' bytes do not
            depend on it. A script that asks for more than one needs ``if __name__ == "__main__":``.
        dask: address of a Dask scheduler to draw on instead; its workers must see ``path``.
        progress: show a progress bar on a terminal.
        wait: for another process that is writing to the folder, rather than give up.

    Returns:
        ``path``.

    Raises:
        ValueError: for an unknown recipe, a resolution it cannot serve, or a bad sample count.
        FileExistsError: if the folder holds something else and ``overwrite`` is not set, or another
            process is writing to it.
        OSError: if the disk is full, workers keep dying, or the Dask scheduler cannot be reached;
            what was finished stays, and the next call continues.
    """
    drawn = find_recipe(recipe)
    drawn.check_parameters()
    samples = (
        {"train": 1000, "valid": 100, "test": 200} if samples is None else plain(dict(samples))
    )
    resolution = drawn.default_resolution if resolution is None else plain(resolution)
    if resolution not in drawn.resolutions():
        raise ValueError(
            f"{_name_of(drawn)} solves on {drawn.solver_resolution} nodes per axis and cannot be "
            f"stored at {resolution}; choose from {', '.join(map(str, drawn.resolutions()))}"
        )
    if not samples or any(not is_whole(n) or n < 1 for n in samples.values()):
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
    seed = int(seed)
    if not is_whole(workers) or workers < 1:
        raise ValueError(f"workers must be a whole number of at least 1, got {workers!r}")
    path = Path(path).resolve()
    with locked(path, wait=wait), executor(workers, dask) as results:
        manifest = begin(path, _manifest_of(drawn, resolution, seed, dtype), overwrite)
        manifest.requested = {
            **manifest.requested,
            **{k: max(n, manifest.requested.get(k, 0)) for k, n in samples.items()},
        }
        manifest.write(path)
        tasks = _missing(path, manifest, drawn)
        with _progress_bar(manifest, tasks, progress) as advance:
            for split, shard in results(_draw_shard, tasks):
                manifest.add(split, shard)
                with disk_trouble(path / split):
                    manifest.write(path)
                advance(split, shard.count)
        with disk_trouble(path / "README.md"):
            write_card(path, manifest)
    return path


def refined(
    path: str | Path,
    split: str,
    resolution: int,
    *,
    recipes: Sequence[type[Recipe]] = (),
    progress: bool = True,
) -> Path:
    """Store the same samples of ``split`` as in ``path`` at a finer ``resolution``, in a data set beside it.

    Nothing is interpolated: the samples are drawn again from their seeds, so that they are the ones
    in ``path`` with more of the solver's nodes kept. A second call finds them, and waits for a first
    that still draws.

    Args:
        path: folder of the data set.
        split: its split to draw again.
        resolution: one of the recipe's ``resolutions()``.
        recipes: classes from outside the package that may have drawn it.
        progress: show a progress bar on a terminal.

    Raises:
        ValueError: for a recipe that is not known, or a resolution that it does not have.
    """
    path = Path(path)
    manifest = Manifest.read(path)
    manifest.shards(split)
    return generate(
        recipe_from(manifest.recipe, recipes), path / f"at-{resolution}", {split: manifest.requested[split]},
        resolution=resolution, seed=manifest.seed, dtype=manifest.dtype, progress=progress, wait=True,
    )  # fmt: skip


@dataclass(frozen=True)
class _Task:
    """One shard to draw, by whatever process."""

    path: Path
    manifest: Manifest  # without its shards
    recipe: Recipe
    split: str
    first: int
    count: int


def _missing(path: Path, manifest: Manifest, recipe: Recipe) -> list[_Task]:
    """Return the shards that are not there yet, or not as they should be."""
    plain = replace(manifest, splits={})
    tasks = []
    for split, total in manifest.requested.items():
        found = {shard.first: shard for shard in manifest.splits.get(split, [])}
        for first in range(0, total, manifest.shard_size):
            count = min(manifest.shard_size, total - first)
            shard = found.get(first)
            if shard is not None and shard.count == count:
                with contextlib.suppress(DamagedDataError):  # missing or truncated: drawn again
                    check_shard(path, shard, content=False)
                    continue
            tasks.append(_Task(path, plain, recipe, split, first, count))
    return tasks


def _draw_shard(task: _Task) -> tuple[str, Shard]:
    """Draw, solve and write the samples of one shard."""
    if not (task.path / MANIFEST).exists():
        raise OSError(
            f"{platform.node()} does not see {task.path}; workers need a file system that they share"
        )
    file = f"{task.split}/{task.first // task.manifest.shard_size:05d}.nc"
    samples = range(task.first, task.first + task.count)
    dataset = draw(task.recipe, task.manifest, task.split, samples)
    with disk_trouble(task.path / task.split):
        return task.split, write_shard(task.path, file, dataset, versions_of_data())


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread, for the same arithmetic whatever the number of workers.

    Sums are split over threads otherwise.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def draw(recipe: Recipe, manifest: Manifest, split: str, samples: range) -> xr.Dataset:
    """Draw and solve some samples of a split, in batches that begin at multiples of 8.

    Raises:
        ValueError: if the recipe's own parameters cannot be solved.
    """
    fine = recipe.grid(recipe.solver_resolution)
    stored = manifest.grid
    sizes = manifest.sizes
    values = {
        v.name: np.empty(
            (len(samples), *(sizes[dim] for dim in manifest.dims[v.name][1:])), manifest.dtype
        )
        for v in manifest.stored
    }
    status = np.zeros(len(samples), np.int8)
    errors = np.full(len(samples), np.nan, np.float32)
    for start in range(0, len(samples), SOLVER_BATCH):
        batch = samples[start : start + SOLVER_BATCH]
        place = slice(start, start + len(batch))
        solved = recipe.solved(streams(manifest, split, batch))
        for name, field in solved.fields(recipe).items():  # at once to its final size and type
            stays = name in solved.parameters
            values[name][place] = (field if stays else restricted(field, fine, stored)).numpy()
        status[place] = solved.status.numpy()
        errors[place] = _estimates(recipe, manifest, split, batch, solved)
    variables = {
        v.name: xr.Variable(manifest.dims[v.name], values[v.name], v.attributes)
        for v in manifest.stored
    }
    quality = {
        STATUS: xr.Variable("sample", status, STATUS_ATTRIBUTES),
        ERROR: xr.Variable("sample", errors, ERROR_ATTRIBUTES),
    }
    return xr.Dataset(
        {**variables, **quality},
        coords(manifest, np.array(samples)),
        attributes(manifest, split, versions_of_data()),
    )


def _estimates(
    recipe: Recipe, manifest: Manifest, split: str, batch: range, solved: Solved
) -> np.ndarray:
    """Return the error estimates of those samples of a batch whose turn it is.

    They are NaN for the others and for those that failed, infinite where the finer solve failed.
    """
    found = np.full(len(batch), np.nan)
    for i, sample in enumerate(batch):
        if sample % ESTIMATED_EVERY == 0 and solved.status[i] == 0:
            one = streams(manifest, split, range(sample, sample + 1))
            estimate = float(recipe.error_estimate(one, solved.outputs[i : i + 1])[0])
            found[i] = estimate if math.isfinite(estimate) else math.inf
    return found


def streams(manifest: Manifest, split: str, samples: range) -> list[np.random.Generator]:
    """Return the random stream of each sample."""
    return [stream(manifest.seed, _split_key(split), i) for i in samples]


@contextlib.contextmanager
def disk_trouble(place: Path) -> Iterator[None]:
    """Name what a failed write leaves behind."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"could not write to {place}: {error}. What was finished is safe; make room and run the same "
            "command again to continue"
        ) from error


def _manifest_of(recipe: Recipe, resolution: int, seed: int, dtype: str) -> Manifest:
    return Manifest(
        recipe=recipe.configuration(),
        preset=next((name for name, preset in PRESETS.items() if preset == recipe), None),
        title=recipe.title,
        references=recipe.references,
        inputs=[asdict(v) for v in recipe.inputs],
        outputs=[asdict(v) for v in recipe.outputs],
        equation=recipe.equation,
        measure=recipe.measure,
        nodes=describe_grid(recipe.grid(resolution)),
        times=list(recipe.times),
        time_units=recipe.time_units,
        symmetries=list(recipe.symmetries),
        resolution=resolution,
        seed=seed,
        dtype=dtype,
        shard_size=SHARD_SIZE,
        conserved=dict(recipe.conserved),
        parameters=[asdict(p) for p in recipe.parameters],
        mask=recipe.mask,
    )


def versions_of_data() -> dict[str, str]:
    """Return all that decides the bits of a sample: packages, interpreter and processor."""
    packages = ("sobolev", "torch", "torch-harmonics", "numpy", "scipy", "h5py")
    return {
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def begin(path: Path, fresh: Manifest, overwrite: bool) -> Manifest:
    """Return the manifest to continue, or a fresh one."""
    if not (path / MANIFEST).exists():
        for leftover in path.glob(".*.part"):
            leftover.unlink()
        foreign = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
        if foreign and not overwrite:
            raise FileExistsError(
                f"{path} is not empty and holds no sobolev data set ({', '.join(sorted(foreign)[:3])} …); choose "
                "another folder"
            )
        return fresh
    for leftover in [*path.glob(".*.part"), *path.glob("*/.*.part")]:  # of a writer that was killed
        leftover.unlink()
    if overwrite:
        _clear(path)
        return fresh
    found = Manifest.read(path)
    if not any(found.splits.values()):  # a first attempt that drew nothing binds nobody
        return fresh
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
        if is_card(card := manifest.with_name("README.md")):
            card.unlink()
        manifest.unlink(missing_ok=True)


@contextlib.contextmanager
def _progress_bar(
    manifest: Manifest, tasks: list[_Task], shown: bool
) -> Iterator[Callable[[str, int], None]]:
    """Show a bar per split, with samples per second and the time left."""
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[rate]}"),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    missing = {
        split: sum(t.count for t in tasks if t.split == split) for split in manifest.requested
    }
    # in a notebook rich needs ipywidgets, and would warn instead of drawing
    drawable = not rich.get_console().is_jupyter or importlib.util.find_spec("ipywidgets")
    with rich.progress.Progress(*columns, disable=not (shown and tasks and drawable)) as bar:
        bars = {
            split: bar.add_task(
                f"drawing {split}", total=total, completed=total - missing[split], rate=""
            )
            for split, total in manifest.requested.items()
        }
        began = time.monotonic()
        drawn = 0

        def advance(split: str, count: int) -> None:
            nonlocal drawn
            drawn += count
            rate = f"{drawn / max(time.monotonic() - began, 1e-9):.1f} samples/s"
            bar.update(bars[split], advance=count, rate=rate)

        yield advance


def _split_key(split: str) -> int:
    """Return a number for the split's name; Python's own ``hash`` changes from process to process."""
    return int.from_bytes(hashlib.sha256(split.encode()).digest()[:8], "big")


def _name_of(recipe: Recipe) -> str:
    return next(
        (name for name, preset in PRESETS.items() if preset == recipe), identity(type(recipe))
    )


__all__ = ["draw", "generate", "open_dataset", "refined"]
