"""Error of the Burgers solver against the Cole–Hopf solution, and its time, on the published
fields.

.venv/bin/python benchmarks/burgers_solver.py
"""

from __future__ import annotations

import math
import runpy
import time
from pathlib import Path
from unittest import mock

from torch import Tensor

from sobolev import GaussianRandomField, Grid, sobolev_norm
from sobolev.solvers import Burgers

cole_hopf = runpy.run_path(str(Path(__file__).parents[1] / "tests/support/exact.py"))["cole_hopf"]


def main() -> None:
    grid = Grid.periodic(8192, length=2 * math.pi)
    initial = GaussianRandomField(grid, 2.0, 5.0, 25.0).sample(64, seed=1)
    truth = cole_hopf(initial, 0.1, 1.0, grid)
    print("64 fields of burgers-fno at 8192 points, T = 1, batches of 8")
    print("| steps | largest relative L² error | median | ms per field |")
    print("|---|---|---|---|")
    for steps in (100, 200, 400, 500, 800, None):
        report(steps or "default", Burgers(0.1, steps=steps), initial, truth, grid)
    with mock.patch("sobolev.solvers.equations.burgers._half_is_empty", return_value=0):
        report("500, never halving the grid", Burgers(0.1, steps=500), initial, truth, grid)


def report(label: object, solver: Burgers, initial: Tensor, truth: Tensor, grid: Grid) -> None:
    errors, seconds = [], 0.0
    for first in range(0, 64, 8):
        part = slice(first, first + 8)
        start = time.perf_counter()
        solution = solver.solve(initial[part], grid, 1.0)
        seconds += time.perf_counter() - start
        error = sobolev_norm(solution - truth[part], grid) / sobolev_norm(truth[part], grid)
        errors += error.tolist()
    errors.sort()
    row = f"{label} | {errors[-1]:.1e} | {errors[32]:.1e} | {1e3 * seconds / 64:.1f}"
    print(f"| {row} |", flush=True)


if __name__ == "__main__":
    main()
