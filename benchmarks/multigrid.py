"""Multigrid in the Darcy solver: time beside scipy's sparse LU, iterations by grid and contrast, and
the contrast from which it beats the fast Poisson preconditioner.

.venv/bin/python benchmarks/multigrid.py            # 10 minutes, 4 GB
.venv/bin/python benchmarks/multigrid.py --quick    # up to 211²
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from sobolev.datasets import DarcyRecipe
from sobolev.grids.streams import stream
from sobolev.solvers import Darcy, GaussianRandomField, Grid
from sobolev.solvers.elliptic.darcy import RoundingWarning

ORDERINGS = {
    "MMD_AT_PLUS_A, symmetric mode": {
        "permc_spec": "MMD_AT_PLUS_A",
        "options": {"SymmetricMode": True},
    },
    "COLAMD": {"permc_spec": "COLAMD"},
}


def two_phase(n: int, contrast: float, count: int, first: int = 0) -> Tensor:
    """Media of darcy-fno at any contrast, drawn on their own grid, interfaces as rough as it."""
    recipe = DarcyRecipe(high=contrast, low=1.0, solver_resolution=n)
    return recipe.draw([stream(0, first + i) for i in range(count)])[:, 0]


def log_normal(n: int, contrast: float, count: int) -> Tensor:
    """exp of the same Gaussian field, stretched to the contrast."""
    cells, grid = Grid.neumann(n, n), Grid.dirichlet(n, n)
    streams = [stream(0, i) for i in range(count)]
    psi = cells.resample(GaussianRandomField(cells, 2.0, 3.0).draw(streams), grid)
    low, high = psi.amin((1, 2), keepdim=True), psi.amax((1, 2), keepdim=True)
    return contrast ** ((psi - low) / (high - low))


def sparse_lu(a: np.ndarray, ordering: dict) -> np.ndarray:
    """The same five-point system, assembled and factorised."""
    n = a.shape[0] - 2
    north, west = (a[1:, 1:-1] + a[:-1, 1:-1]) / 2, (a[1:-1, 1:] + a[1:-1, :-1]) / 2
    diagonal = north[1:] + north[:-1] + west[:, 1:] + west[:, :-1]
    beside = np.zeros((n, n))
    beside[:, :-1] = -west[:, 1:-1]
    below, beside = -north[1:-1].ravel(), beside.ravel()[:-1]
    matrix = scipy.sparse.diags_array(
        [diagonal.ravel(), beside, beside, below, below], offsets=[0, 1, -1, n, -n], format="csc"
    )
    factors = scipy.sparse.linalg.splu(matrix, **ordering)
    return np.pad(factors.solve(np.full(n * n, 1.0 / (n + 1) ** 2)).reshape(n, n), 1)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare_with_lu(n: int) -> None:
    """Interleaved medians: a batch of 8 by ours, its fields one by one by LU."""
    a, grid, solver = two_phase(n, 4.0, 8), Grid.dirichlet(n, n), Darcy(tolerance=1e-8)
    solution = solver.solution(a, grid)
    ours: list[float] = []
    lu: dict[str, list[float]] = {name: [] for name in ORDERINGS}
    for i in range(8):
        ours.append(seconds(lambda: solver.solve(a, grid)) / 8)
        for name, ordering in ORDERINGS.items():
            lu[name].append(seconds(lambda i=i, o=ordering: sparse_lu(a[i].numpy(), o)))
    truth = sparse_lu(a[0].numpy(), ORDERINGS["COLAMD"])
    apart = np.linalg.norm(solution.pressure[0].numpy() - truth) / np.linalg.norm(truth)
    mine = 1e3 * statistics.median(ours)
    print(f"## {n}², contrast 4, residual 1e-8, batch 8, {torch.get_num_threads()} threads\n")
    print(
        f"preconditioner {solution.preconditioner[0]}, {int(solution.iterations.max())} iterations, residual "
        f"{float(solution.residual.max()):.1e}, relative difference from LU {apart:.1e}\n"
    )
    print("| solver | ms per field | ratio |\n|---|---|---|")
    print(f"| ours | {mine:.0f} | 1.0 |")
    for name, times in lu.items():
        theirs = 1e3 * statistics.median(times)
        print(f"| splu, {name} | {theirs:.0f} | {theirs / mine:.1f} |")
    best = min(1e3 * statistics.median(times) for times in lu.values())
    print(f"\nagainst the best LU: {best / mine:.1f} times as fast\n", flush=True)


def count_iterations(sizes: list[int], count: int) -> None:
    """Iterations to 1e-8: least, median and most of the media."""
    print(f"## Iterations with multigrid, residual 1e-8, {count} media (median, least–most)\n")
    print(
        "| medium |" + "".join(f" {n}² |" for n in sizes) + "\n" + "|---" * (len(sizes) + 1) + "|"
    )
    solver = Darcy(tolerance=1e-8, preconditioner="multigrid")
    rows = [("two-phase", two_phase, c) for c in (4.0, 1e3, 1e6)]
    rows += [("log-normal", log_normal, c) for c in (4.0, 1e3, 1e6)]
    for name, medium, contrast in rows:
        line = f"| {name} {contrast:g} |"
        for n in sizes:
            found = solver.solution(medium(n, contrast, count), Grid.dirichlet(n, n)).iterations
            line += f" {int(found.median())}, {int(found.min())}–{int(found.max())} |"
        print(line, flush=True)
    print()


def compare_preconditioners(sizes: list[int]) -> None:
    """What Darcy(preconditioner="auto") goes by."""
    contrasts = (1.5, 2.0, 4.0, 8.0, 30.0, 100.0, 1e3, 1e6)
    print("## ms per field, fast Poisson / multigrid, residual 1e-8; * what auto takes\n")
    heads = "".join(f" {c:g} |" for c in contrasts)
    print(f"| grid \\ contrast |{heads}\n" + "|---" * (len(contrasts) + 1) + "|")
    for n in sizes:
        grid, count = Grid.dirichlet(n, n), max(2, min(16, 2**17 // n**2))
        line = f"| {n}² |"
        for contrast in contrasts:
            a = two_phase(n, contrast, count)
            chosen = Darcy().solution(a[:1], grid).preconditioner[0]
            cells = []
            for kind in ("poisson", "multigrid"):
                solver = Darcy(tolerance=1e-8, max_iterations=5000, preconditioner=kind)
                times = [seconds(lambda s=solver, a=a, g=grid: s.solve(a, g)) for _ in range(3)]
                star = "*" if kind == chosen else ""
                cells.append(f"{1e3 * statistics.median(times) / count:.1f}{star}")
            line += f" {' / '.join(cells)} |"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 211²")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore", RoundingWarning)
    compare_with_lu(211 if quick else 421)
    count_iterations([43, 85, 211] if quick else [85, 211, 421, 841, 1681], 3)
    compare_preconditioners([33, 85] if quick else [33, 85, 141, 211, 421])


if __name__ == "__main__":
    main()
