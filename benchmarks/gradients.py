"""What the gradient of a solve costs: its time beside the solve's, and the states that wait for the backward
pass.

.venv/bin/python benchmarks/gradients.py [--rounds 5]

One thread. Seconds are those of the process, medians of rounds in which solve and gradient take turns; the
ratio is the median of theirs. A gradient is solve and backward pass together. A state is as large as the
initial fields. `kept` counts what is allocated between the passes, beyond what was before the solve; `peak`
the most at any moment, for the solve alone and for its gradient, by torch's own records of its allocations.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from sobolev import GaussianRandomField, Grid, SphereGrid
from sobolev.grids.streams import stream
from sobolev.solvers import AllenCahn, Burgers, NavierStokes, ShallowWater, integrate
from sobolev.solvers.navier_stokes.states import band_limited
from sobolev.solvers.shallow_water.states import random_states

Solve = Callable[[Tensor], Tensor]
Case = tuple[str, Tensor, Solve, tuple[Tensor, ...]]


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def cases(batch: int) -> Iterator[Case]:
    """Yield names, initial fields, solves of 200 steps, and what beside the fields has gradients."""
    square = Grid.periodic(64, 64)
    y, x = torch.meshgrid(*square.points(), indexing="ij")
    force = 0.1 * (torch.sin(2 * math.pi * (x + y)) + torch.cos(2 * math.pi * (x + y)))
    random = GaussianRandomField(square, 2.5, 7.0, sigma=math.sqrt(2) * 7**1.5)
    w = band_limited(random.sample(batch), square)
    flow = NavierStokes(1e-3, force, step=0.01)
    yield "NavierStokes, 64²", w, lambda w: flow.solve(w, square, 2.0), ()
    inputs = (number(1e-3), force.clone().requires_grad_())
    varied = NavierStokes(*inputs, step=0.01)
    yield "the same, and in ν and f", w, lambda w: varied.solve(w, square, 2.0), inputs

    ball = SphereGrid(32, 64)
    layer = ShallowWater(step=900.0)
    start = random_states(layer, ball, [stream(0, i) for i in range(batch)])
    yield "ShallowWater, 32 × 64", start, lambda s: layer.solve(s, ball, 200 * 900.0), ()

    u = band_limited(GaussianRandomField(square, 3.0, 4.0, sigma=20.0).sample(batch), square)
    phases = AllenCahn(1e-4, 5.0)
    yield "AllenCahn, 64²", u, lambda u: integrate(phases, u, square, 1.0, step=0.005), ()

    circle = Grid.periodic(1024, length=2 * math.pi)
    u = GaussianRandomField(circle, 2.0, 5.0, 25.0).sample(batch, seed=1)
    shock = Burgers(0.1, steps=200)
    yield "Burgers, 1024", u, lambda u: shock.solve(u, circle, 1.0), ()


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def allocated(work: Callable[[], object]) -> tuple[float, float]:
    """Return the bytes that ``work`` leaves allocated, and the most it had at once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        result = work()
    events = record.profiler.kineto_results.events()
    changes = sorted(
        (event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"
    )
    running = list(itertools.accumulate(size for _, size in changes))
    del result
    return running[-1], max(running)


def report(case: Case, batch: int, rounds: int) -> None:
    name, start, solve, more = case
    wanted = start.clone().requires_grad_()

    def gradient() -> tuple[Tensor, ...]:
        scale = solve(wanted).square().mean(dim=(-2, -1))
        return torch.autograd.grad(scale.log().sum(), (wanted, *more))

    solve(start)
    gradient()
    times = [(seconds(lambda: solve(start)), seconds(gradient)) for _ in range(rounds)]
    solved, differentiated = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    size = start.element_size() * start.numel()
    kept, _ = allocated(lambda: solve(wanted))
    peaks = [allocated(work)[1] for work in (lambda: solve(start), gradient)]
    print(
        f"| {name} | {batch} | {solved:.2f} | {differentiated:.2f} | {ratio:.1f} | {kept / size:.0f} | "
        f"{peaks[0] / size:.0f} | {peaks[1] / size:.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(
        "| 200 steps | batch | solve, s | gradient, s | ratio | kept | peak, solve | peak, gradient |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for batch, count in ((1, None), (8, 2)):  # eight fields at once for Navier–Stokes alone
        for case in itertools.islice(cases(batch), count):
            report(case, batch, rounds)


if __name__ == "__main__":
    main()
