"""Store a NetCDF file of 1 GB as a data set, beside copying it: rate and peak memory.

    python benchmarks/own_data.py --gigabytes 1

The file has 256 samples of an input and an output, float32. Each step runs in a process of its own,
and ends when its bytes are on the disk; the medians of three repeats are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5netcdf
import numpy as np
import xarray as xr

from sobolev.datasets import store_fields

REPEATS = 3
SAMPLES = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--step", choices=tuple(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        begun = time.perf_counter()
        STEPS[options.step](options.folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"seconds": time.perf_counter() - begun, "gigabytes": peak}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write(folder / "mine.nc", options.gigabytes)
        found = {step: [] for step in STEPS}
        for _ in range(REPEATS):
            for step in STEPS:
                found[step].append(run(step, folder))
        for step, results in found.items():
            seconds = statistics.median(one["seconds"] for one in results)
            peak = max(one["gigabytes"] for one in results)
            print(f"{step:12} {size / seconds:6.2f} GB/s  {seconds:6.2f} s  peak {peak:.2f} GiB")


def write(file: Path, gigabytes: float) -> float:
    """Write the file, a few samples at a time, and return its size in GB."""
    nodes = int((gigabytes * 1e9 / (2 * 4 * SAMPLES)) ** 0.5)
    dice = np.random.default_rng(0)
    with h5netcdf.File(file, "w") as opened:
        opened.dimensions = {"run": SAMPLES, "y": nodes, "x": nodes}
        for dim in ("y", "x"):
            opened.create_variable(dim, (dim,), "f8", data=np.arange(nodes) / nodes)
        for name in ("kappa", "head"):
            values = opened.create_variable(name, ("run", "y", "x"), "f4")
            for sample in range(SAMPLES):
                values[sample] = dice.standard_normal((nodes, nodes)).astype("f4")
    return file.stat().st_size / 1e9


def run(step: str, folder: Path) -> dict[str, float]:
    words = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def copy(folder: Path) -> None:
    target = folder / "copy.nc"
    shutil.copyfile(folder / "mine.nc", target)
    with target.open("rb+") as handle:
        os.fsync(handle.fileno())


def store(folder: Path) -> None:
    options = {"inputs": "kappa", "outputs": "head", "sample": "run", "boundary": "periodic"}
    with xr.open_dataset(folder / "mine.nc", engine="h5netcdf") as mine:
        store_fields(mine, folder / "data", overwrite=True, progress=False, **options)


STEPS = {"copy": copy, "store_fields": store}

if __name__ == "__main__":
    main()
