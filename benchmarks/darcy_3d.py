"""Darcy in three dimensions beside scipy's sparse LU and pyamg's multigrid, and its iterations by grid.

One thread each and its CPU time, which other work on the machine changes little; medians over media, the
rivals one after the other for each. Matrices are assembled before the clock starts, factors and
hierarchies made after. pyamg is no dependency: where it is not
installed, its rows are missing.

.venv/bin/pip install --no-deps --target /tmp/pyamg pyamg
OMP_NUM_THREADS=1 PYTHONPATH=/tmp/pyamg .venv/bin/python benchmarks/darcy_3d.py            # 10 minutes
OMP_NUM_THREADS=1 PYTHONPATH=/tmp/pyamg .venv/bin/python benchmarks/darcy_3d.py --quick    # up to 65³
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from sobolev.grids.streams import stream
from sobolev.solvers import Darcy, GaussianRandomField, Grid
from sobolev.solvers.elliptic.stiffness import Stiffness

TOLERANCE = 1e-8
Solve = Callable[[scipy.sparse.csr_array, np.ndarray], np.ndarray]


def two_phase(n: int, contrast: float, first: int = 0) -> Tensor:
    """A medium of two phases, interfaces as rough as the grid (1, n, n, n)."""
    psi = _gaussian(n, first)
    return torch.where(psi >= 0, contrast, 1.0).double()


def log_normal(n: int, contrast: float, first: int = 0) -> Tensor:
    """exp of the same Gaussian field, stretched to the contrast."""
    psi = _gaussian(n, first)
    return contrast ** ((psi - psi.min()) / (psi.max() - psi.min()))


def _gaussian(n: int, first: int) -> Tensor:
    cells = Grid.neumann(n, n, n)
    field = GaussianRandomField(cells, 2.0, 3.0).draw([stream(0, first)])
    return cells.resample(field, Grid.dirichlet(n, n, n))


def assembled(a: Tensor, grid: Grid) -> scipy.sparse.csr_array:
    """The seven-point matrix, times h² so that rivals meet numbers near one."""
    links, excess = Stiffness(a, grid).links()
    shape = excess.shape[1:]
    number = np.arange(excess[0].numel()).reshape(shape)
    diagonal = (excess + sum(links.values()))[0].numpy().ravel()
    rows, columns, values = [number.ravel()], [number.ravel()], [diagonal]
    for offset, link in links.items():
        beside = np.roll(number, [-o for o in offset], axis=(0, 1, 2))
        weight = link[0].numpy().ravel()
        there = weight > 0
        rows.append(number.ravel()[there])
        columns.append(beside.ravel()[there])
        values.append(-weight[there])
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return scipy.sparse.csr_array(entries) * grid.axes[0].spacing ** 2


def rivals() -> dict[str, Solve]:
    """Ways to solve, by name."""
    found: dict[str, Solve] = {}
    try:
        import pyamg
    except ImportError:
        return found

    def by(make: Callable[..., Any], **options: Any) -> Solve:
        def solve(matrix: scipy.sparse.csr_array, b: np.ndarray) -> np.ndarray:
            hierarchy = make(scipy.sparse.csr_matrix(matrix), **options)
            return hierarchy.solve(b, tol=TOLERANCE, accel="cg", maxiter=200)

        return solve

    found["pyamg, Ruge–Stüben"] = by(pyamg.ruge_stuben_solver)
    found["pyamg, smoothed aggregation"] = by(pyamg.smoothed_aggregation_solver)
    return found


def lu(matrix: scipy.sparse.csr_array, b: np.ndarray) -> np.ndarray:
    factors = scipy.sparse.linalg.splu(
        scipy.sparse.csc_matrix(matrix),
        permc_spec="MMD_AT_PLUS_A",
        options={"SymmetricMode": True},
    )
    return factors.solve(b)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def compare(n: int, contrast: float, count: int, *, direct: bool) -> None:
    """Seconds of each way, side by side, and the residuals that they leave: ours one medium at a time, and
    all together; the rivals one at a time, as they must be."""
    grid = Grid.dirichlet(n, n, n)
    square = grid.axes[0].spacing ** 2
    media = [two_phase(n, contrast, i) for i in range(count)]
    matrices = [assembled(a, grid) for a in media]
    b = np.full((n - 2) ** 3, square)
    seconds: dict[str, list[float]] = {}
    left: dict[str, float] = {}

    def note(name: str, spent: float, u: np.ndarray, matrix: Any) -> None:
        seconds.setdefault(name, []).append(spent)
        rest = float(np.linalg.norm(b - matrix @ u) / np.linalg.norm(b))
        left[name] = max(left.get(name, 0.0), rest)

    kinds = ("auto", "poisson", "multigrid")
    iterations = dict.fromkeys(kinds, 0)
    ways: dict[str, Solve] = rivals() | ({"scipy, splu": lu} if direct else {})
    for a, matrix in zip(media, matrices, strict=True):
        for kind in kinds:
            solver = Darcy(tolerance=TOLERANCE, preconditioner=kind)
            spent, solution = timed(lambda s=solver, a=a: s.solution(a, grid))
            note(f"ours, {kind}", spent, _inner(solution.pressure[0]), matrix)
            iterations[kind] = max(iterations[kind], int(solution.iterations))
            spent, together = timed(lambda s=solver: s.solve(torch.cat(media), grid))
            for one, its in zip(together, matrices, strict=True):
                note(f"ours, {kind}, {count} together", spent / count, _inner(one), its)
        for name, solve in ways.items():
            spent, u = timed(lambda s=solve, m=matrix: s(m, b))
            note(name, spent, u, matrix)
    mine = statistics.median(seconds[f"ours, auto, {count} together"])
    print(
        f"## {n}³, contrast {contrast:g}, residual {TOLERANCE:g}, {count} media, {torch.get_num_threads()} thread\n"
    )
    print("| solver | CPU s per field | over ours | residual |\n|---|---|---|---|")
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"| {name} | {median:.2f} | {median / mine:.1f} | {left[name]:.1e} |")
    print(f"\niterations: {iterations}\n", flush=True)


def _inner(pressure: Tensor) -> np.ndarray:
    return pressure[1:-1, 1:-1, 1:-1].numpy().ravel()


def count_iterations(sizes: list[int], rounds: int) -> None:
    """Iterations to the tolerance at contrast 10: least and most of the media."""
    print("## Iterations at contrast 10 (least–most)\n")
    print("| medium, preconditioner |" + "".join(f" {n}³ |" for n in sizes))
    print("|---" * (len(sizes) + 1) + "|")
    for name, medium in (("two-phase", two_phase), ("log-normal", log_normal)):
        for kind in ("poisson", "multigrid"):
            line = f"| {name}, {kind} |"
            for n in sizes:
                solver = Darcy(tolerance=TOLERANCE, preconditioner=kind)
                grid = Grid.dirichlet(n, n, n)
                counts = [
                    int(solver.solution(medium(n, 10.0, i), grid).iterations) for i in range(rounds)
                ]
                line += f" {min(counts)}–{max(counts)} |"
            print(line, flush=True)
    print()


def choose(sizes: list[int]) -> None:
    """What Darcy(preconditioner="auto") goes by in three dimensions."""
    contrasts = (2.0, 10.0, 100.0, 1e3)
    print("## s per field, fast Poisson / multigrid; * what auto takes\n")
    print("| grid \\ contrast |" + "".join(f" {c:g} |" for c in contrasts))
    print("|---" * (len(contrasts) + 1) + "|")
    for n in sizes:
        grid = Grid.dirichlet(n, n, n)
        line = f"| {n}³ |"
        for contrast in contrasts:
            a = two_phase(n, contrast)
            chosen = Darcy(tolerance=1e-2).solution(a, grid).preconditioner[0]
            cells = []
            for kind in ("poisson", "multigrid"):
                solver = Darcy(tolerance=TOLERANCE, preconditioner=kind)
                times = [timed(lambda s=solver, a=a, g=grid: s.solve(a, g))[0] for _ in range(3)]
                cells.append(f"{statistics.median(times):.2f}{'*' * (kind == chosen)}")
            line += f" {' / '.join(cells)} |"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 65³")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    compare(33, 10.0, 4, direct=True)
    compare(65, 10.0, 4, direct=False)
    count_iterations([33, 65] if quick else [33, 65, 129], 2)
    choose([17, 33, 65])


if __name__ == "__main__":
    main()
