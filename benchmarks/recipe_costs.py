"""What a sample of each preset costs: CPU seconds of one thread, and bytes on disk. `sobolev recipes` shows them.

python benchmarks/recipe_costs.py                          all presets, into datasets/recipes/costs.json; minutes
python benchmarks/recipe_costs.py burgers-fno darcy-fno    these alone; the other figures stay

The first sample of a preset is drawn to warm up. If it takes less than 20 s, two more are drawn together and count;
else it counts itself. The error estimate of every 64th sample is not among it: a solve on twice the nodes in half the
steps. Seconds are the processor's, so that other work on the machine changes them little.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from pathlib import Path

import torch

from sobolev.datasets import PRESETS, Recipe
from sobolev.datasets.generating.generation import versions_of_data
from sobolev.datasets.recipes.costs import FILE
from sobolev.grids.streams import stream

LONG = 20.0
"""Seconds beyond which one sample is enough."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("presets", nargs="*", help="all by default")
    names = parser.parse_args().presets or list(PRESETS)
    torch.set_num_threads(1)
    content = json.loads(FILE.read_text()) if FILE.is_file() else {"presets": {}}
    content["machine"] = f"one thread of {processor()}"
    content["versions"] = versions_of_data()
    for name in names:
        content["presets"][name] = measured(PRESETS[name])
        print(name, content["presets"][name], flush=True)
        FILE.write_text(json.dumps(content, indent=1) + "\n")


def measured(recipe: Recipe) -> dict[str, object]:
    """Return what a sample of a recipe costs, and the recipe itself, by which the figures are known again."""
    seconds = seconds_of(recipe, 0, 1)
    count = 1
    if seconds < LONG:
        count = 2
        seconds = seconds_of(recipe, 1, count) / count
    return {
        "seconds": round(seconds, 3 - math.ceil(math.log10(seconds))),
        "bytes": bytes_of(recipe),
        "samples": count,
        "recipe": recipe.configuration(),
    }


def seconds_of(recipe: Recipe, first: int, count: int) -> float:
    """Return the CPU seconds in which some samples are drawn and solved."""
    begun = time.process_time()
    recipe.solved([stream(0, first + i) for i in range(count)])
    return time.process_time() - begun


def bytes_of(recipe: Recipe) -> int:
    """Return the bytes of the stored fields of a sample, float32 at the usual resolution."""
    nodes = math.prod(recipe.grid(recipe.default_resolution).shape)
    frames = len(recipe.times) or 1
    return 4 * nodes * (len(recipe.inputs) + frames * len(recipe.outputs))


def processor() -> str:
    """Return the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
