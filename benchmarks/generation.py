"""What a data set costs beside its solves: `generate` in one process, and the solver alone on the same samples.

python benchmarks/generation.py gray-scott --samples 64 --resolution 128

CPU seconds of one thread, which other work on the machine changes little. The solver's own are those of the same
batches and of the error estimates, without restriction, rounding, checks, digests and files.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sobolev.datasets import PRESETS, Recipe, generate
from sobolev.datasets.generating.generation import ESTIMATED_EVERY, SOLVER_BATCH
from sobolev.grids.streams import stream


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--resolution", type=int, help="stored nodes per axis (the preset's)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = PRESETS[options.preset]
    folder = Path(tempfile.mkdtemp())
    begun = time.perf_counter()
    try:
        whole = seconds(
            lambda: generate(
                recipe, folder / "data", {"train": options.samples},
                resolution=options.resolution, workers=1, progress=False,
            )
        )  # fmt: skip
    finally:
        shutil.rmtree(folder)
    elapsed = time.perf_counter() - begun
    own = seconds(lambda: solve(recipe, options.samples))
    fields = options.samples * (len(recipe.times) or 1)
    print(f"{options.preset}: {options.samples} samples, {fields} frames")
    print(f"generate {whole:.1f} s, solver alone {own:.1f} s: {whole / own:.3f} times as much")
    print(f"{fields / whole:.1f} frames a CPU second, {fields / elapsed:.1f} a second of the clock")


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds that some work takes."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def solve(recipe: Recipe, samples: int) -> None:
    """Solve and estimate errors as ``generate`` does, and keep nothing."""
    for first in range(0, samples, SOLVER_BATCH):
        numbers = range(first, min(first + SOLVER_BATCH, samples))
        solved = recipe.solved([stream(0, 0, i) for i in numbers])
        for i, sample in enumerate(numbers):
            if sample % ESTIMATED_EVERY == 0:
                recipe.error_estimate([stream(0, 0, sample)], solved.outputs[i : i + 1])


if __name__ == "__main__":
    main()
