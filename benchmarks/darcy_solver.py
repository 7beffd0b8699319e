"""The Darcy solver, preconditioned by fast Poisson solves, beside scipy's sparse LU on two-phase
media at 421²: agreement and time per field. benchmarks/multigrid.py has the other preconditioner.

.venv/bin/python benchmarks/darcy_solver.py
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from multigrid import ORDERINGS, sparse_lu

from sobolev.datasets import DarcyRecipe
from sobolev.grids.streams import stream
from sobolev.solvers import Darcy
from sobolev.solvers.elliptic.fast_poisson import FastPoisson


def main() -> None:
    print(f"421², {torch.get_num_threads()} threads, medians over 8 fields, one at a time")
    print("| contrast | tolerance | difference from LU | ours, ms | LU, ms | ratio |")
    print("|---|---|---|---|---|---|")
    for high, low in ((12.0, 3.0), (100.0, 1.0), (1000.0, 1.0)):
        recipe = DarcyRecipe(high=high, low=low)
        grid = recipe.grid(421)
        a = recipe.draw([stream(0, i) for i in range(8)])[:, 0]
        lu_times, truths = [], []
        for field in a:
            start = time.perf_counter()
            truths.append(sparse_lu(field.numpy(), ORDERINGS["MMD_AT_PLUS_A, symmetric mode"]))
            lu_times.append(time.perf_counter() - start)
        for tolerance in (1e-8, 1e-10):
            solver, times, differences = (
                Darcy(tolerance=tolerance, preconditioner="poisson"),
                [],
                [],
            )
            for field, truth in zip(a, truths, strict=True):
                start = time.perf_counter()
                solution = solver.solve(field[None], grid)[0].numpy()
                times.append(time.perf_counter() - start)
                differences.append(np.linalg.norm(solution - truth) / np.linalg.norm(truth))
            ours, lu = (1e3 * statistics.median(t) for t in (times, lu_times))
            result = f"{max(differences):.1e} | {ours:.0f} | {lu:.0f} | {lu / ours:.1f}"
            print(f"| {high / low:g} | {tolerance:g} | {result} |", flush=True)
    compare_preconditioners()


def compare_preconditioners() -> None:
    """The float32 matrix products of the preconditioner beside the same solve by float64 FFTs."""
    grid = DarcyRecipe().grid(421)
    by_products = FastPoisson(grid, torch.device("cpu"))
    eigenvalues, f = by_products.eigenvalues.double(), torch.randn(4, 419, 419, dtype=torch.float64)

    def by_fft(f: torch.Tensor) -> torch.Tensor:
        padded = torch.nn.functional.pad(f, (1, 1, 1, 1))
        return grid.from_modes(grid.to_modes(padded) / eigenvalues)[:, 1:-1, 1:-1]

    times: dict[str, list[float]] = {"matrix products": [], "FFTs": []}
    for _ in range(15):
        for name, work in zip(times, (by_products, by_fft), strict=True):
            start = time.perf_counter()
            work(f)
            times[name].append(1e3 * (time.perf_counter() - start) / len(f))
    products, ffts = (statistics.median(t) for t in times.values())
    difference = (by_products(f) - by_fft(f)).norm() / by_fft(f).norm()
    print(
        f"preconditioner: {products:.1f} ms a field by products, {ffts:.1f} ms by FFTs, differing by {difference:.0e}"
    )


if __name__ == "__main__":
    main()
