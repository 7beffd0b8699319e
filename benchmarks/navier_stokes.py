"""The Navier–Stokes solver: error over step, the published first-order scheme beside it, cost per
step beside exponax.

.venv/bin/python benchmarks/navier_stokes.py [--exponax PYTHON]

exponax (order 4, float64, jitted) needs JAX and is run in an environment of its own, whose
interpreter ``--exponax`` names: ``pip install exponax==0.2.0``. Both take turns on the machine.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import time
from collections.abc import Callable

import torch
from torch import Tensor

from sobolev.datasets import NavierStokesRecipe
from sobolev.datasets.recipes.navier_stokes import FORCINGS
from sobolev.grids.streams import stream
from sobolev.solvers import ETDRK4, Grid, NavierStokes
from sobolev.solvers.navier_stokes.flow import RightSide
from sobolev.solvers.navier_stokes.modes import FlowModes

FORCING = FORCINGS["fno"]
SIZES = ((64, 16), (128, 8), (256, 4))
ROUNDS, STEPS = 7, 5

_EXPONAX = """
import sys, time, jax
jax.config.update("jax_enable_x64", True)
import exponax as ex, jax.numpy as jnp
n, batch, steps = map(int, sys.argv[1:])
step = jax.vmap(ex.stepper.NavierStokesVorticity(2, 1.0, n, 0.01, diffusivity=1e-3, order=4))
many = jax.jit(lambda u: jax.lax.fori_loop(0, steps, lambda i, u: step(u), u))
u = many(0.1 * jax.random.normal(jax.random.key(0), (batch, 1, n, n), dtype=jnp.float64))
u.block_until_ready()
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    many(u).block_until_ready()
    print((time.perf_counter() - start) / steps / batch, flush=True)
"""


def published_scheme(w: Tensor, viscosity: float, end: float, step: float) -> Tensor:
    """Crank–Nicolson for viscosity, forward Euler for the rest, advective form: the scheme of the
    released generator (Li et al. 2021), in float64."""
    n = w.shape[-1]
    k = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    ky, kx = 2 * math.pi * k[:, None], 2 * math.pi * k[None, : n // 2 + 1].abs()
    k2 = ky**2 + kx**2
    inverse = torch.where(k2 > 0, 1 / k2.clamp(min=1e-300), 0.0)
    kept = (ky.abs() <= 2 * math.pi * (n // 3)) & (kx <= 2 * math.pi * (n // 3))
    points = torch.arange(n, dtype=torch.float64) / n
    f = torch.fft.rfft2(FORCING(*torch.meshgrid(points, points, indexing="ij")))
    v = torch.fft.rfft2(w)
    for _ in range(round(end / step)):
        psi = v * inverse
        u_x, u_y = torch.fft.irfft2(1j * ky * psi), torch.fft.irfft2(-1j * kx * psi)
        gradient = torch.fft.irfft2(1j * kx * v), torch.fft.irfft2(1j * ky * v)
        advection = torch.fft.rfft2(u_x * gradient[0] + u_y * gradient[1]) * kept
        half = 0.5 * step * viscosity * k2
        v = (step * (f - advection) + (1 - half) * v) / (1 + half)
    return torch.fft.irfft2(v)


def accuracy() -> None:
    """64², viscosity 1e-3, from a developed flow (t = 10) for two units of time."""
    recipe, grid = NavierStokesRecipe(), Grid.periodic(64, 64)
    w = recipe.draw([stream(0, 0)])[:, 0]
    w = NavierStokes(1e-3, FORCING, step=0.01).solve(w, grid, 10.0)
    reference = NavierStokes(1e-3, FORCING, step=1 / 1024).solve(w, grid, 2.0)

    def row(name: str, solve: Callable[[], Tensor]) -> None:
        solve()
        seconds = time.perf_counter()
        u = solve()
        seconds = time.perf_counter() - seconds
        print(
            f"| {name} | {float((u - reference).norm() / reference.norm()):.1e} | {seconds:.3f} |"
        )

    print("| scheme | relative error at T = 2 | seconds |\n|---|---|---|")
    for step in (0.1, 0.05, 0.025):
        flow = NavierStokes(1e-3, FORCING, step=step)
        row(f"ETDRK4, Δt = {step}", lambda flow=flow: flow.solve(w, grid, 2.0))
    row("ETDRK4, default step", lambda: NavierStokes(1e-3, FORCING).solve(w, grid, 2.0))
    for step in (1e-3, 1e-4):
        row(
            f"Crank–Nicolson–Euler, Δt = {step:g}",
            lambda step=step: published_scheme(w, 1e-3, 2.0, step),
        )


def timed(f: Callable[[], object]) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def cost(exponax: str | None) -> None:
    """Milliseconds per sample and step, medians of runs that take turns."""
    print(
        "| grid, batch | sobolev | 8 bare complex FFTs | 16 bare real FFTs | exponax | sobolev / exponax |"
    )
    print("|---|---|---|---|---|---|")
    for n, batch in SIZES:
        grid = Grid.periodic(n, n)
        modes = FlowModes(grid, torch.device("cpu"))
        w = NavierStokesRecipe(solver_resolution=n).draw([stream(0, i) for i in range(batch)])[:, 0]
        v, f = (
            modes.transform(w),
            modes.transform(FORCING(*torch.meshgrid(*grid.points(), indexing="ij"))),
        )
        stepper = ETDRK4(-1e-3 * modes.k2, RightSide(modes, f, batch), 0.01)

        def ours(v: Tensor = v, stepper: ETDRK4 = stepper) -> None:
            for _ in range(STEPS):
                v = stepper.step(v)

        z, half = torch.fft.fft2(w), torch.fft.rfft2(w)
        theirs = _exponax(exponax, n, batch) if exponax else None
        times: dict[str, list[float]] = {"ours": [], "complex": [], "real": [], "theirs": []}
        ours()
        for _ in range(ROUNDS):
            times["ours"].append(timed(ours) / STEPS / batch)
            times["complex"].append(8 * timed(lambda z=z: torch.fft.fft2(z)) / batch)
            pair = timed(lambda w=w: torch.fft.rfft2(w)) + timed(lambda h=half: torch.fft.irfft2(h))
            times["real"].append(8 * pair / batch)
            if theirs is not None:
                theirs.stdin.write("go\n")
                theirs.stdin.flush()
                times["theirs"].append(float(theirs.stdout.readline()))
        if theirs is not None:
            theirs.kill()
        ms = {name: 1e3 * statistics.median(values) for name, values in times.items() if values}
        other = f"{ms['theirs']:.3f} | {ms['ours'] / ms['theirs']:.2f}" if theirs else "– | –"
        print(
            f"| {n}², {batch} | {ms['ours']:.3f} | {ms['complex']:.3f} | {ms['real']:.3f} | {other} |"
        )


def _exponax(python: str, n: int, batch: int) -> subprocess.Popen:
    process = subprocess.Popen(
        [python, "-c", _EXPONAX, str(n), str(batch), str(STEPS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.readline()
    return process


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exponax", metavar="PYTHON", help="interpreter with exponax 0.2.0")
    options = parser.parse_args()
    accuracy()
    print()
    cost(options.exponax)


if __name__ == "__main__":
    main()
