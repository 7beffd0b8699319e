"""What it costs that an operator depends on a scalar: training steps with and without, in turns.

    python benchmarks/modulation.py                  every operator, 16 fields at 64² (SFNO 32 × 64)
    python benchmarks/modulation.py FNO --repeats 60

A step is forward, backward and AdamW on one thread. Processor times are measured, since others may
use the machine; the last column is the median over pairs of neighbouring steps, of which by turns
the one and the other comes first, and with the quarters of the pairs that lie below and above.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sobolev.grids import SphereGrid
from sobolev.operators import FNO, GFNO, SFNO, MgNO, Modulated, Operator

CASES: dict[str, tuple[Callable[[], Operator], tuple[int, int]]] = {
    "FNO": (lambda: FNO(1, 1, (12, 12), width=32), (64, 64)),
    "SFNO": (lambda: SFNO(1, 1, SphereGrid(32, 64), width=32), (32, 64)),
    "GFNO": (lambda: GFNO(1, 1, (12, 12), width=10), (64, 64)),
    "MgNO": (lambda: MgNO(1, 1, levels=5, width=24, depth=5), (64, 64)),
}
WARM_UP = 2


def stepper(operator: Operator, u: Tensor) -> Callable[[], float]:
    """A training step that returns its milliseconds of processor time."""
    optimizer = torch.optim.AdamW(operator.parameters(), lr=1e-4)

    def step() -> float:
        start = time.process_time()
        optimizer.zero_grad()
        operator(u).square().mean().backward()
        optimizer.step()
        return 1e3 * (time.process_time() - start)

    return step


def pairs(build: Callable[[], Operator], space: tuple[int, int], repeats: int) -> np.ndarray:
    """Times of plain and modulated steps, ``(repeats, 2)``."""
    u = torch.randn(16, 1, *space)
    scalar = torch.randn(16, 1, 1, 1).expand(-1, -1, *space)
    plain = stepper(build(), u)
    modulated = stepper(Modulated(build()), torch.cat([scalar, u], dim=1))
    times = []
    for repeat in range(repeats + WARM_UP):
        if repeat % 2:
            times.append((plain(), modulated()))
        else:
            times.append((modulated(), plain())[::-1])
    return np.array(times[WARM_UP:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("operators", nargs="*", default=[], help=", ".join(CASES))
    parser.add_argument("--repeats", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, one thread, medians of {options.repeats} pairs of steps")
    print("| operator | weights more | plain, ms | modulated, ms | modulated over plain |")
    print("|---|---|---|---|---|")
    for name in options.operators or CASES:
        build, space = CASES[name]
        more = sum(p.numel() for p in Modulated(build()).network.parameters())
        times = pairs(build, space, options.repeats)
        plain, modulated = np.median(times, axis=0)
        low, ratio, high = np.percentile(times[:, 1] / times[:, 0], [25, 50, 75])
        print(
            f"| {name} | {more} | {plain:.0f} | {modulated:.0f} | {ratio:.3f} ({low:.3f} to {high:.3f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
