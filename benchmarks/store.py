"""Rates of the store: writing beside plain h5py, windows at random beside arrays in memory.

.venv/bin/python benchmarks/store.py [--samples 256] [--folder /tmp]

Rates of writing include the sync to disk that both do. Files are read from the page cache.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import xarray as xr

from sobolev.datasets import NavierStokesRecipe, OperatorDataModule
from sobolev.datasets.generating.generation import _manifest_of, versions_of_data
from sobolev.datasets.store.manifest import ERROR, STATUS
from sobolev.datasets.store.shards import attributes, coords, write_shard

ROUNDS = 7


def median(f: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def write_plainly(file: Path, values: np.ndarray) -> None:
    with h5py.File(file, "w") as opened:
        opened["vorticity"] = values
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--folder", help="where to write (default: a temporary folder)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        compare(folder, options.samples)
    finally:
        shutil.rmtree(folder)


def compare(folder: Path, samples: int) -> None:
    manifest = _manifest_of(NavierStokesRecipe(), 64, 0, "float32")
    manifest.requested = {"train": samples}
    size = manifest.shard_size
    dice = np.random.default_rng(0)
    values = dice.standard_normal((size, 51, 64, 64), dtype=np.float32)
    variable = manifest.variables[0]

    def shard(first: int) -> xr.Dataset:
        numbers = np.arange(first, first + size)
        quality = {
            STATUS: ("sample", np.zeros(size, np.int8)),
            ERROR: ("sample", np.zeros(size, np.float32)),
        }
        fields = {
            variable.name: (manifest.dims[variable.name], values, variable.attributes),
            **quality,
        }
        return xr.Dataset(
            fields, coords(manifest, numbers), attributes(manifest, "train", versions_of_data())
        )

    for first in range(0, samples, size):
        manifest.add(
            "train",
            write_shard(folder, f"train/{first // size:05d}.nc", shard(first), versions_of_data()),
        )
    manifest.write(folder)
    rates = {}
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(ROUNDS):  # in turns: disks have moods
        times["plain"].append(median_of_one(lambda: write_plainly(folder / "plain.h5", values)))
        times["ours"].append(
            median_of_one(lambda: write_shard(folder, "extra.nc", shard(0), versions_of_data()))
        )
    for name, seconds in times.items():
        rates[name] = values.nbytes / statistics.median(seconds) / 1e6
    print(f"writing: {rates['ours']:.0f} MB/s with checksum, plain h5py {rates['plain']:.0f} MB/s, ratio "
          f"{rates['ours'] / rates['plain']:.2f}")  # fmt: skip
    print("| loader | batches of 20 one-step windows per second | of memory's |\n|---|---|---|")
    base = 0.0
    for name, arguments in {
        "fields in memory": {"in_memory": True},
        "streamed from shards": {"in_memory": False},
        "streamed, 2 loader processes": {"in_memory": False, "workers": 2},
    }.items():
        module = OperatorDataModule(folder, valid_fraction=0.01, **arguments)
        loader = module.train_dataloader()
        count = len(loader)

        def epoch(loader: object = loader) -> None:
            for batch in loader:  # type: ignore[attr-defined]
                float(batch[0][0, 0, 0, 0])

        epoch()
        rate = count / median(epoch)
        base = base or rate
        print(f"| {name} | {rate:.0f} | {rate / base:.2f} |")


def median_of_one(f: Callable[[], object]) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
