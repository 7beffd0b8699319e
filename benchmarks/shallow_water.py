"""The shallow-water solver on a sphere: the steady test of Williamson et al. (1992), the jet of
Galewsky et al. (2004), and the time of a simulated hour beside torch_harmonics' example solver.

.venv/bin/python benchmarks/shallow_water.py [--quick]
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from sobolev.grids.sphere import SphereGrid
from sobolev.grids.streams import stream
from sobolev.solvers.shallow_water.equation import ShallowWater
from sobolev.solvers.shallow_water.flow import truncation
from sobolev.solvers.shallow_water.states import DAY, galewsky, random_states, williamson2

HOUR = 3600.0


def relative(a: Tensor, b: Tensor, grid: SphereGrid) -> float:
    """‖a − b‖ / ‖b‖ in L² of the sphere."""
    area = grid.quadrature()
    return float((((a - b) ** 2 * area).sum() / (b**2 * area).sum()).sqrt())


def steady(nlat: int) -> None:
    print(f"\nWilliamson 2 over 5 days at T{truncation(SphereGrid(nlat, 2 * nlat)) - 1}")
    print("| tilt | error of vorticity | error of geopotential |")
    print("|---|---|---|")
    for tilt in (0.0, 0.05, 1.5707963267948966):
        equation, grid = ShallowWater(tilt=tilt), SphereGrid(nlat, 2 * nlat)
        state = williamson2(equation, grid)
        end = equation.solve(state[None], grid, 5 * DAY)[0]
        errors = (relative(end[i], state[i], grid) for i in (0, 2))
        print(f"| {tilt:.3g} | " + " | ".join(f"{e:.1e}" for e in errors) + " |", flush=True)


def jet(sizes: tuple[int, ...], finest: int) -> None:
    """Vorticity on day 6 against that of the finest grid and against half the step.

    Every grid has the diffusion coefficient that damps the smallest scale of the first one in four
    hours, so that all solve one problem; the bump is unbalanced and sends gravity waves around.
    """
    print(f"\nGalewsky jet, day 6, against {finest} × {2 * finest}")
    print("| grid | T | vorticity | half step | mass drift | energy drift | s |")
    print("|---|---|---|---|---|---|---|")

    def run(nlat: int, courant: float = 0.7) -> tuple[SphereGrid, Tensor, Tensor, float]:
        grid = SphereGrid(nlat, 2 * nlat)
        T, last = truncation(grid), truncation(SphereGrid(sizes[0], 2 * sizes[0]))
        rate = (T * (T - 1) / (last * (last - 1))) ** 4 / (4 * HOUR)
        equation = ShallowWater(hyperdiffusion=rate, courant=courant)
        state = galewsky(equation, grid)[None]
        start = time.perf_counter()
        end = equation.solve(state, grid, 6 * DAY)
        seconds = time.perf_counter() - start
        drifts = [f(end, grid) / f(state, grid) - 1 for f in (equation.mass, equation.energy)]
        return grid, end[0, 0], torch.cat(drifts), seconds

    reference_grid, reference, _, _ = run(finest)
    for nlat in sizes:
        grid, vorticity, (mass, energy), seconds = run(nlat)
        halved = run(nlat, courant=0.35)[1]
        error = relative(grid.resample(vorticity, reference_grid), reference, reference_grid)
        print(
            f"| {nlat} × {2 * nlat} | {truncation(grid) - 1} | {error:.1e} | "
            f"{relative(vorticity, halved, grid):.1e} | {mass:.0e} | {energy:.1e} | {seconds:.0f} |",
            flush=True,
        )


def race(nlat: int, rounds: int, batch: int = 4) -> None:
    """A simulated hour of the same random states, interleaved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_harmonics.examples import ShallowWaterSolver
    grid = SphereGrid(nlat, 2 * nlat)
    equation, T = ShallowWater(), truncation(grid)
    start = random_states(equation, grid, [stream(0, i) for i in range(batch)])
    print(f"\nOne hour of {batch} random states at T{T - 1}, {torch.get_num_threads()} threads, s")
    works: dict[str, Callable[[], object]] = {
        "ours": lambda: equation.solve(start, grid, HOUR),
    }
    for rings, kind in ((nlat, "legendre-gauss"), (2 * nlat, "equiangular")):
        theirs = ShallowWaterSolver(rings, 2 * rings, 150.0, lmax=T, mmax=T, grid=kind).float()
        nodes = grid.resample(start, SphereGrid(rings, 2 * rings, kind)).float()
        spectra = [theirs.grid2spec(state[[2, 0, 1]]) for state in nodes]

        def work(
            theirs: ShallowWaterSolver = theirs, spectra: list[Tensor] = spectra
        ) -> list[Tensor]:
            return [theirs.timestep(v, 24) for v in spectra]

        works[f"theirs, {rings} × {2 * rings} {kind}, 24 steps of 150 s"] = work
    times: dict[str, list[float]] = {name: [] for name in works}
    for name, work in list(works.items()) * (rounds + 1):
        began = time.perf_counter()
        work()
        times[name].append(time.perf_counter() - began)
    ours = statistics.median(times["ours"][1:])  # the first round warms up
    for name, seconds in times.items():
        median = statistics.median(seconds[1:])
        print(f"| {name} | {median:.2f} | {median / ours:.1f} × |", flush=True)


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    steady(32 if quick else 128)
    race(64 if quick else 128, rounds=2 if quick else 5)
    jet((32,) if quick else (64, 96), 64 if quick else 192)


if __name__ == "__main__":
    main()
