"""Time per step of ``integrate`` beside exponax (JAX, jitted, vmapped over the batch), both ETDRK4 in float64.

    .venv/bin/python benchmarks/equations.py [--exponax FOLDER] [--cores 2]

exponax is no dependency: ``python3 -m pip install --target FOLDER exponax==0.2.0`` puts it beside the project, and
without it only our times are printed. It runs in a process of its own, on the same cores, in turns with ours.
Before it is timed, both solve from the same fields with the same step, and the distance of the two solutions is
shown beside our error for that step. Both keep two thirds of the modes; exponax multiplies the others by zero,
we do not carry them. exponax stays in Fourier space between steps (``RepeatedStepper``), as we do.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sobolev.grids import Grid
from sobolev.solvers import (
    AllenCahn,
    GrayScott,
    KdV,
    KuramotoSivashinsky,
    Semilinear,
    SwiftHohenberg,
    integrate,
)

BATCH, ROUNDS = 8, 9


@dataclass(frozen=True)
class Case:
    """An equation on a grid, the same in exponax's words, and how many steps of which length are timed."""

    equation: Semilinear
    grid: Grid
    step: float
    steps: int
    theirs: str

    def fields(self) -> Tensor:
        """Smooth random fields; the concentrations of ``GrayScott`` are about ½ and ¼."""
        channels = len(self.equation.channels)
        eigenvalues = self.grid.eigenvalues()
        spectrum = torch.exp(-eigenvalues / eigenvalues.flatten()[1:].min() / 8)
        shape = (BATCH, *([channels] if channels else []), *self.grid.mode_shape)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        u = self.grid.from_modes(noise * spectrum)
        u = u / u.abs().amax()
        return torch.tensor([0.5, 0.25])[:, None, None] + 0.2 * u if channels else u


_COMMON = "num_points=n, domain_extent=length, dt=dt, order=4, dealiasing_fraction=2 / 3"
CASES = {
    "Kuramoto–Sivashinsky, 1024": Case(
        KuramotoSivashinsky(), Grid.periodic(1024, length=64 * math.pi), 0.05, 500,
        f"KuramotoSivashinskyConservative(1, {_COMMON})",
    ),
    "Korteweg–de Vries, 512": Case(
        KdV(0.022**2), Grid.periodic(512, length=2.0), 1e-4, 1000,
        f"KortewegDeVries(1, {_COMMON}, convection_scale=1.0, dispersivity=0.022**2, "
        "hyper_diffusivity=0.0, conservative=True)",
    ),
    "Gray–Scott, 128²": Case(
        GrayScott(0.04, 0.06), Grid.periodic(128, 128, length=2.5), 1.0, 20,
        f"reaction.GrayScott(2, {_COMMON}, feed_rate=0.04, kill_rate=0.06)",
    ),
    "Allen–Cahn, 256²": Case(
        AllenCahn(1e-3), Grid.periodic(256, 256, length=2 * math.pi), 0.1, 20,
        f"reaction.AllenCahn(2, {_COMMON}, diffusivity=1e-3)",
    ),
    "Swift–Hohenberg, 64³": Case(
        SwiftHohenberg(0.3, 1.0), Grid.periodic(64, 64, 64, length=12 * math.pi), 0.1, 10,
        f"reaction.SwiftHohenberg(3, {_COMMON}, reactivity=0.3)",
    ),
}  # fmt: skip

_EXPONAX = """
import sys, time, jax
jax.config.update("jax_enable_x64", True)
import exponax as ex, jax.numpy as jnp, numpy as np
folder, n, length, dt, steps, make = sys.argv[1:]
n, length, dt, steps = int(n), float(length), float(dt), int(steps)
stepper = eval("ex.stepper." + make)
many = jax.jit(jax.vmap(ex.RepeatedStepper(stepper, steps)))
u = jnp.asarray(np.load(folder + "/initial.npy"))
np.save(folder + "/final.npy", many(u))
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    many(u).block_until_ready()
    print((time.perf_counter() - start) / steps, flush=True)
"""


class Exponax:
    """The other process, which has solved a case once and times it again when asked."""

    def __init__(self, folder: Path, case: Case, u: Tensor) -> None:
        with tempfile.TemporaryDirectory() as shared:
            whole = u if case.equation.channels else u[:, None]
            np.save(f"{shared}/initial.npy", whole.numpy())
            (n, *_), (axis, *_) = case.grid.shape, case.grid.axes
            numbers = map(str, (n, axis.length, case.step, case.steps))
            self.process = subprocess.Popen(
                [sys.executable, "-c", _EXPONAX, shared, *numbers, case.theirs],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "PYTHONPATH": str(folder)},
            )  # fmt: skip
            self.process.stdout.readline()
            self.solution = torch.from_numpy(np.load(f"{shared}/final.npy")).reshape(u.shape)

    def seconds(self) -> float:
        """Return the time of one step."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def distance(a: Tensor, b: Tensor) -> float:
    """Return the relative distance of two solutions."""
    return float((a - b).norm() / b.norm())


def row(name: str, case: Case, folder: Path | None) -> float:
    """Print a row of the table; return the ratio of times."""
    u = case.fields()
    end = case.step * case.steps

    def ours(fraction: int = 1) -> Tensor:
        return integrate(case.equation, u, case.grid, end, step=case.step / fraction)

    solution, error = ours(), distance(ours(), ours(2))
    theirs = Exponax(folder, case, u) if folder else None
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(ROUNDS):
        start = time.perf_counter()
        ours()
        seconds["ours"].append((time.perf_counter() - start) / case.steps)
        if theirs:
            seconds["theirs"].append(theirs.seconds())
    here = statistics.median(seconds["ours"])
    if theirs is None:
        print(f"| {name} | {1e3 * here:.2f} | – | – | {error:.1e} | – |", flush=True)
        return math.nan
    theirs.close()
    there = statistics.median(seconds["theirs"])
    apart = distance(theirs.solution, solution)
    print(
        f"| {name} | {1e3 * here:.2f} | {1e3 * there:.2f} | {here / there:.2f} | {error:.1e} | {apart:.1e} |",
        flush=True,
    )
    return here / there


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exponax", type=Path, metavar="FOLDER", help="where exponax 0.2.0 is")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--cases", nargs="+", default=list(CASES), metavar="NAME")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])  # the other's, too
    torch.set_num_threads(options.cores)
    print(f"{options.cores} cores, batch {BATCH}, milliseconds a step, medians of {ROUNDS} runs\n")
    print("| equation | sobolev | exponax | ratio | our error | distance |")
    print("|---|---|---|---|---|---|")
    ratios = [row(name, CASES[name], options.exponax) for name in options.cases]
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    print(f"\nGeometric mean of the ratios: {mean:.2f}")


if __name__ == "__main__":
    main()
