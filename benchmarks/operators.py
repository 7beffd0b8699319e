"""Training steps of our operators beside other codes', interleaved in one run.

    .venv/bin/python benchmarks/operators.py fno memory sfno gfno costs

fno     FNO beside neuralop 2.0.0 at equal modes, width and batch, eager and compiled
memory  peak memory of those steps, each in a process of its own
sfno    SFNO beside torch-harmonics' example model of equal width, depth and truncation
gfno    G-FNO beside an FNO of equal parameter count
costs   parameters, time and memory of every operator on one 64² batch, and where the time goes

neuralop has no place among the project's own dependencies; the first two need

    .venv/bin/pip install --no-deps neuraloperator==2.0.0 tensorly tensorly-torch opt-einsum requests

Its FNO is set up as the paper's network, like ours: 1×1 lifting, four blocks of spectral convolution
and linear skip, GELU, projection through 2 × width channels. Its defaults beyond that (channel MLPs
in the blocks, two-layer lifting, grid embedding) are off, which makes it faster than it is by
default.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from sobolev.operators import FNO, GFNO, SFNO, MgNO, Operator, SpatioTemporalFNO, SpecBoost
from sobolev.solvers import SphereGrid

FNO_CASES = [  # batch, space, modes per sign, width
    (16, (64, 64), (12, 12), 32),
    (20, (85, 85), (12, 12), 32),
    (8, (128, 128), (12, 12), 64),
    (2, (256, 256), (12, 12), 32),
    (20, (1024,), (16,), 64),
    (4, (32, 32, 32), (8, 8, 8), 20),
]
PRODUCTS = (
    "aten::mm",
    "aten::bmm",
    "aten::addmm",
    "aten::mkldnn_convolution",
    "aten::convolution_backward",
)
REPEATS = 9


def ours(case: int) -> nn.Module:
    _, _, modes, width = FNO_CASES[case]
    return FNO(1, 1, modes=modes, width=width)


def neuralops(case: int) -> nn.Module:
    _, _, modes, width = FNO_CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from neuralop.models import FNO as Theirs
    return Theirs(
        n_modes=tuple(2 * m for m in modes), in_channels=1, out_channels=1, hidden_channels=width, n_layers=4,
        lifting_channel_ratio=0, projection_channel_ratio=2, positional_embedding=None, use_channel_mlp=False,
    )  # fmt: skip


def stepper(model: nn.Module, u: Tensor) -> Callable[[], None]:
    """One training step: forward, backward, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        model(u).square().mean().backward()
        optimizer.step()

    return step


def interleaved(*steps: Callable[[], None]) -> list[float]:
    """Median milliseconds of each, all taking turns on the machine."""
    times: list[list[float]] = [[] for _ in steps]
    for repeat in range(REPEATS + 2):
        for step, kept in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            if repeat >= 2:
                kept.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(kept) for kept in times]


def share_of_products(step: Callable[[], None]) -> float:
    """Share of a step's processor time that is spent in matrix products and convolutions."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        step()
    events = trace.key_averages()
    total = sum(e.self_cpu_time_total for e in events)
    return sum(e.self_cpu_time_total for e in events if e.key in PRODUCTS) / total


def count(model: nn.Module) -> int:
    """Real parameters, a complex one counted as two."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in model.parameters())


def fno() -> None:
    print(
        "| batch × grid, width | ours, ms | compiled | neuralop, ms | ratio | compiled | products |"
    )
    print("|---|---|---|---|---|---|---|")
    ratios, compiled_ratios = [], []
    for case, (batch, space, _, width) in enumerate(FNO_CASES):
        u = torch.randn(batch, 1, *space)
        eager = stepper(ours(case), u)
        steps = eager, stepper(torch.compile(ours(case)), u), stepper(neuralops(case), u)
        a, c, b = interleaved(*steps)
        ratios.append(b / a)
        compiled_ratios.append(b / c)
        print(
            f"| {batch} × {'×'.join(map(str, space))}, {width} | {a:.0f} | {c:.0f} | {b:.0f} | {b / a:.2f} "
            f"| {b / c:.2f} | {share_of_products(eager):.0%} |",
            flush=True,
        )
    means = [statistics.geometric_mean(r) for r in (ratios, compiled_ratios)]
    print(f"geometric means of the ratios: {means[0]:.2f} eager, {means[1]:.2f} compiled")


def memory() -> None:
    print("| batch × grid, width | ours, MB | neuralop, MB | ratio |")
    print("|---|---|---|---|")
    for case, (batch, space, _, width) in enumerate(FNO_CASES):
        a, b = (
            float(
                subprocess.run(
                    [sys.executable, __file__, "--peak", name, str(case)],
                    capture_output=True, text=True, check=True,
                ).stdout.split()[-1]
            )
            for name in ("ours", "neuralops")
        )  # fmt: skip
        print(
            f"| {batch} × {'×'.join(map(str, space))}, {width} | {a:.0f} | {b:.0f} | {a / b:.2f} |",
            flush=True,
        )


def peak(name: str, case: int) -> None:
    """Print by how many megabytes three steps raise the process's peak memory."""
    batch, space, _, _ = FNO_CASES[case]
    step = stepper(
        {"ours": ours, "neuralops": neuralops}[name](case), torch.randn(batch, 1, *space)
    )
    small = [min(n, 8) for n in space]  # libraries take their workspaces before the measurement
    stepper(ours(case), torch.randn(1, 1, *small))()
    before = high_water()
    for _ in range(3):
        step()
    print(high_water() - before)


def high_water() -> float:
    """Peak resident megabytes of this process (Linux); ``getrusage`` would count the parent's, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def sfno() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_harmonics.examples.models import SphericalFourierNeuralOperator as Theirs
    print("| batch × grid, width | ours, ms | torch-harmonics, ms | ratio |")
    print("|---|---|---|---|")
    for batch, (nlat, nlon), scale, width in [
        (4, (64, 128), 1, 32), (4, (128, 256), 2, 32), (2, (128, 256), 1, 64),
    ]:  # fmt: skip
        u = torch.randn(batch, 3, nlat, nlon)
        mine = SFNO(3, 3, grid=SphereGrid(nlat, nlon), width=width, depth=4, scale=scale)
        theirs = Theirs(
            img_size=(nlat, nlon), grid="legendre-gauss", grid_internal="legendre-gauss", scale_factor=scale,
            in_chans=3, out_chans=3, embed_dim=width, num_layers=4, pos_embed="none", normalization_layer="none",
        )  # fmt: skip
        a, b = interleaved(stepper(mine, u), stepper(theirs, u))
        print(
            f"| {batch} × {nlat}×{nlon} / {scale}, {width} | {a:.0f} | {b:.0f} | {b / a:.2f} |",
            flush=True,
        )
        print(f"  parameters {count(mine)} and {count(theirs)}")


OPERATORS: dict[str, Callable[[], Operator]] = {
    "FNO": lambda: FNO(1, 1, (12, 12), width=20),
    "G-FNO p4": lambda: GFNO(1, 1, (12, 12), width=10, group="p4"),
    "G-FNO p4m": lambda: GFNO(1, 1, (12, 12), width=7, group="p4m"),
    "MgNO": lambda: MgNO(1, 1, levels=5, width=24, depth=5, boundary="periodic"),
    "SpecBoost": lambda: SpecBoost([FNO(1, 1, (12, 12), width=20), FNO(1, 1, (20, 20), width=20)]),
}


def gfno() -> None:
    """The four of the G-FNO paper's comparison: ten frames in, one out; its FNO reads (y, x) besides."""
    symmetric = {"modes": (12, 12), "positions": "symmetric"}
    models = {
        "FNO of the comparison": FNO(
            12, 1, (12, 12), width=20, mlp=1, norm="instance", projection=80
        ),
        "FNO of the first paper": FNO(12, 1, (12, 12), width=20),
        "G-FNO p4": GFNO(10, 1, width=10, group="p4", **symmetric),
        "G-FNO p4m": GFNO(10, 1, width=7, group="p4m", **symmetric),
    }
    inputs = [torch.randn(20, model.in_channels, 64, 64) for model in models.values()]
    steps = [stepper(model, u) for model, u in zip(models.values(), inputs, strict=True)]
    times = interleaved(*steps)
    print("| operator | parameters | step, ms | of the first FNO's |")
    print("|---|---|---|---|")
    for (name, model), t in zip(models.items(), times, strict=True):
        print(f"| {name} | {count(model)} | {t:.0f} | {t / times[0]:.2f} |")


def costs() -> None:
    print("| operator | parameters | training step, ms | inference, ms a field | products |")
    print("|---|---|---|---|---|")
    u = torch.randn(16, 1, 64, 64)
    space_time = torch.randn(2, 1, 64, 64, 10)
    sphere = torch.randn(16, 1, 48, 96)
    rows: list[tuple[str, Operator, Tensor]] = [(n, build(), u) for n, build in OPERATORS.items()]
    rows.append(("SFNO, 48 × 96", SFNO(1, 1, grid=SphereGrid(48, 96), width=20), sphere))
    rows.append(("ST-FNO, 10 frames, batch 2", SpatioTemporalFNO(1, 1), space_time))
    for name, operator, field in rows:
        step = stepper(operator, field)

        def infer(operator: Operator = operator, field: Tensor = field) -> None:
            with torch.no_grad():
                operator(field)

        train, predict = interleaved(step, infer)
        print(
            f"| {name} | {count(operator)} | {train:.0f} | {predict / len(field):.1f} "
            f"| {share_of_products(step):.0%} |",
            flush=True,
        )


PARTS = {"fno": fno, "memory": memory, "sfno": sfno, "gfno": gfno, "costs": costs}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=[], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        return peak(options.peak[0], int(options.peak[1]))
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {REPEATS} interleaved steps"
    )
    for part in options.parts or PARTS:
        print(f"\n{part}")
        PARTS[part]()


if __name__ == "__main__":
    main()
