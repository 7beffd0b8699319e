"""What a CUDA GPU makes of training steps, solvers and generation, and of the demo; `make gpu` runs it.

    python benchmarks/gpu.py [--minutes 6] [--out gpu.json] [card steps integrate generate demo compiled]

card       rates of an 8192³ matrix product in each precision
steps      training steps in float32, TF32 and bf16-mixed, beside neuralop's where that is installed
integrate  a time step of Gray–Scott at 128² and of Kuramoto–Sivashinsky on 1024 nodes, on GPU and CPU
generate   samples a second of Navier–Stokes, Darcy and shallow water, on the GPU and on one core
demo       `sobolev demo`: data drawn on all cores, training on the GPU, judging
compiled   training steps as the compiler makes them, last, since compiling takes longest

A step is forward, backward and AdamW, on a batch that lies on the GPU. Times are medians, after warming up, of blocks
of steps that nothing waits in. FLOPs are those that torch counts, which leaves out FFTs and everything pointwise;
their share is of the rate of the product in the same precision. The error is that of an untrained network's output,
relative to its own in float64. Memory is the peak of what torch had in tensors. Solvers run in float64.

What fails costs its row only, which says why; when the minutes are over, the rest of the rows is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sobolev.datasets import PRESETS, NavierStokesRecipe, Recipe
from sobolev.grids.streams import stream
from sobolev.operators import FNO, GFNO, SFNO, MgNO, SpatioTemporalFNO
from sobolev.solvers import Darcy, SphereGrid

GPU, CPU = torch.device("cuda"), torch.device("cpu")
PRODUCT = 8192
LONGEST = 90.0
"""Seconds after which a row is given up, but the demo's."""

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "FNO 64², width 32": (lambda: FNO(1, 1, (12, 12), width=32), (16, 1, 64, 64)),
    "FNO 256², width 64": (lambda: FNO(1, 1, (32, 32), width=64), (16, 1, 256, 256)),
    "FNO 64³, width 32": (lambda: FNO(1, 1, (16, 16, 16), width=32), (4, 1, 64, 64, 64)),
    "SFNO 128 × 256, width 64": (
        lambda: SFNO(3, 3, SphereGrid(128, 256), width=64, depth=4),
        (8, 3, 128, 256),
    ),
    "MgNO 64², width 24": (
        lambda: MgNO(1, 1, levels=5, width=24, depth=5, boundary="periodic"),
        (16, 1, 64, 64),
    ),
    "G-FNO p4 64², width 10": (
        lambda: GFNO(1, 1, (12, 12), width=10, positions="symmetric"),
        (16, 1, 64, 64),
    ),
    "ST-FNO 64² × 10": (lambda: SpatioTemporalFNO(1, 1), (8, 1, 64, 64, 10)),
}
COMPILED = ("FNO 64², width 32", "FNO 256², width 64")
FLOWS: dict[str, tuple[Recipe, int]] = {  # and the steps of a solve
    "Gray–Scott 128²": (
        replace(
            PRESETS["gray-scott"], solver_resolution=128, stored_resolution=None, time=200.0,
            interval=200.0, step=2.0,
        ),
        100,
    ),
    "Kuramoto–Sivashinsky 1024": (
        replace(
            PRESETS["ks"], solver_resolution=1024, length=256.0, time=5.0, interval=5.0, step=0.05
        ),
        100,
    ),
}  # fmt: skip
SOLVED: dict[str, tuple[Recipe, tuple[int, ...]]] = {  # and the batches on a GPU
    "Navier–Stokes 64², ν = 1e-3, to t = 5": (NavierStokesRecipe(time=5.0), (8, 64, 512)),
    "Navier–Stokes 256², ν = 1e-4, to t = ½": (
        NavierStokesRecipe(
            viscosity=1e-4, time=0.5, interval=0.5, step=0.02, solver_resolution=256
        ),
        (8, 64),
    ),
    "Darcy 421²": (PRESETS["darcy-fno"], (8, 64)),
    "Darcy 421² at contrast 1000": (replace(PRESETS["darcy-fno"], low=0.012), (16,)),
    "shallow water, an hour": (replace(PRESETS["swe-random"], hours=1), (8, 64)),
}


@dataclass
class Measurements:
    """The rows so far, and the time that is left."""

    until: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)
    """FLOP/s of a matrix product by precision."""

    def row(
        self, part: str, name: str, measure: Callable[[], dict[str, Any]], longest: float = LONGEST
    ) -> None:
        """Measure one row and print it; one that fails says why."""
        left = self.until - time.monotonic()
        if left < 2:
            found: dict[str, Any] = {"failed": "no time was left"}
        else:
            try:
                with limited(min(left, longest)):
                    found = measure()
            except Exception as error:  # another row may be well
                found = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        self.rows.append({"part": part, "name": name, **found})
        cells = [f"{key} {worded(value)}" for key, value in found.items()]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        torch.cuda.empty_cache()


def worded(value: Any) -> str:
    """Return a number with three digits."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise ``TimeoutError`` in work that takes longer."""

    def ring(*_: Any) -> None:
        raise TimeoutError(f"it took longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def seconds_of(work: Callable[[], object], *, blocks: int = 5, block: int = 1) -> float:
    """Return the median seconds of one call, in blocks of calls that nothing waits in."""
    wait = torch.cuda.synchronize
    times = []
    for number in range(blocks + 1):
        wait()
        begun = time.perf_counter()
        for _ in range(block):
            work()
        wait()
        if number:  # the first one warms up
            times.append((time.perf_counter() - begun) / block)
    return statistics.median(times)


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Let products of float32 round to TF32, or run them in bf16, or do neither."""
    torch.set_float32_matmul_precision("high" if name == "TF32" else "highest")
    torch.backends.cudnn.allow_tf32 = name == "TF32"
    try:
        with torch.autocast("cuda", torch.bfloat16, enabled=name == "bf16-mixed"):
            yield
    finally:
        torch.set_float32_matmul_precision("highest")


PRECISIONS = ("float32", "TF32", "bf16-mixed")


def card(found: Measurements) -> None:
    for name, dtype in (
        ("float64", torch.float64), ("float32", torch.float32), ("TF32", torch.float32),
        ("bf16-mixed", torch.bfloat16),
    ):  # fmt: skip

        def product(name: str = name, dtype: torch.dtype = dtype) -> dict[str, Any]:
            a, b = (torch.randn(PRODUCT, PRODUCT, device=GPU, dtype=dtype) for _ in "ab")
            with precision(name if name == "TF32" else "float32"):
                found.rates[name] = 2 * PRODUCT**3 / seconds_of(lambda: a @ b, block=5)
            return {"TFLOP/s": found.rates[name] / 1e12}

        found.row("card", f"{PRODUCT}³ in {name.removesuffix('-mixed')}", product)


def stepper(network: nn.Module, u: Tensor, name: str) -> Callable[[], None]:
    """Return one training step in a precision."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with precision(name):
            loss = network(u).float().square().mean()
        with precision("TF32" if name == "TF32" else "float32"):  # autocast is for the forward pass
            loss.backward()
        optimizer.step()

    return step


def timed_step(
    network: nn.Module, u: Tensor, name: str, rates: dict[str, float], flops: int | None = None
) -> dict[str, Any]:
    """Return what a training step costs."""
    step = stepper(network, u, name)
    if flops is None:
        with FlopCounterMode(display=False) as counter:
            step()
        flops = counter.get_total_flops()
    step()
    torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(step, blocks=3, block=10)
    result = {
        "ms a step": 1e3 * seconds,
        "peak MB": torch.cuda.max_memory_allocated() / 2**20,
        "TFLOP/s": flops / seconds / 1e12,
    }
    if name in rates:
        result["share of the product's"] = flops / seconds / rates[name]
    return result


@torch.no_grad()
def rounding(network: nn.Module, u: Tensor, name: str) -> float:
    """Return the relative error of an output in a precision."""
    exact = copy.deepcopy(network).double()(u.double())
    with precision(name):
        found = network(u)
    return float((found - exact).norm() / exact.norm())


def steps(found: Measurements) -> None:
    for title, (build, shape) in NETWORKS.items():
        for name in PRECISIONS:

            def measured(
                build: Callable[[], nn.Module] = build,
                shape: tuple[int, ...] = shape,
                name: str = name,
            ) -> dict[str, Any]:
                torch.manual_seed(0)
                network, u = build().to(GPU), torch.randn(shape, device=GPU)
                error = rounding(network, u[:2], name)
                return {**timed_step(network, u, name, found.rates), "error": error}

            found.row("steps", f"{title}, batch {shape[0]}, {name}", measured)
    if importlib.util.find_spec("neuralop") is None:
        print("neuralop is not installed here, so that nothing stands beside ours", flush=True)
        return
    for title, modes, width in (("FNO 64², width 32", 12, 32), ("FNO 256², width 64", 32, 64)):
        for name in ("float32", "TF32"):

            def theirs(
                title: str = title, modes: int = modes, width: int = width, name: str = name
            ) -> dict[str, Any]:
                u = torch.randn(NETWORKS[title][1], device=GPU)
                return timed_step(neuralops(modes, width).to(GPU), u, name, found.rates)

            found.row("steps", f"neuralop's {title}, batch 16, {name}", theirs)


def neuralops(modes: int, width: int) -> nn.Module:
    """Return neuralop's FNO set up as the paper's network, as in ``benchmarks/operators.py``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from neuralop.models import FNO as Theirs
    return Theirs(
        n_modes=(2 * modes, 2 * modes), in_channels=1, out_channels=1, hidden_channels=width, n_layers=4,
        lifting_channel_ratio=0, projection_channel_ratio=2, positional_embedding=None, use_channel_mlp=False,
    )  # fmt: skip


def compiled(found: Measurements) -> None:
    for title in COMPILED:
        for name in PRECISIONS[1:]:

            def measured(title: str = title, name: str = name) -> dict[str, Any]:
                build, shape = NETWORKS[title]
                torch.manual_seed(0)
                network, u = build().to(GPU), torch.randn(shape, device=GPU)
                with FlopCounterMode(display=False) as counter:  # which does not see into graphs
                    stepper(network, u, name)()
                torch.compiler.reset()  # sizes of another network would be taken for one that varies
                begun = time.perf_counter()
                whole = torch.compile(network)
                stepper(whole, u, name)()
                seconds = time.perf_counter() - begun
                cost = timed_step(whole, u, name, found.rates, counter.get_total_flops())
                return {**cost, "seconds to compile": seconds}

            found.row("compiled", f"{title}, batch 16, {name}, compiled", measured)


def drawn(recipe: Recipe, count: int) -> Tensor:
    """Return inputs of a recipe, which are drawn on the CPU."""
    return recipe.draw([stream(0, i) for i in range(count)])


def solved_by(
    recipe: Recipe, solve: Callable[[Tensor], Tensor], inputs: Tensor, expected: Tensor
) -> dict[str, Any]:
    """Return what solving a batch on the GPU costs, and how far it is from the CPU's solutions."""
    there = inputs.to(GPU)
    torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(lambda: solve(there), blocks=2)
    gap = solve(there)[: len(expected)].cpu() - expected
    return {
        "samples/s": len(inputs) / seconds,
        "peak MB": torch.cuda.max_memory_allocated() / 2**20,
        "differs from the CPU by": float(gap.norm() / expected.norm()),
    }


def integrate(found: Measurements) -> None:
    for title, (recipe, count) in FLOWS.items():
        grid = recipe.grid(recipe.solver_resolution)
        for device, batch in ((CPU, 8), (GPU, 8), (GPU, 128)):

            def measured(
                recipe: Recipe = recipe,
                grid: Any = grid,
                count: int = count,
                device: torch.device = device,
                batch: int = batch,
            ) -> dict[str, Any]:
                inputs = drawn(recipe, batch).to(device)
                seconds = seconds_of(lambda: recipe.solve(inputs, grid), blocks=2)
                each = 1e3 * seconds / count
                return {"ms a step": each, "µs a step and sample": 1e3 * each / batch}

            threads = f", {torch.get_num_threads()} threads" if device is CPU else ""
            found.row("integrate", f"{title}, batch {batch}, {device.type}{threads}", measured)


def generate(found: Measurements) -> None:
    for title, (recipe, batches) in SOLVED.items():
        grid = recipe.grid(recipe.solver_resolution)
        solves: dict[str, Callable[[Tensor], Tensor]] = {
            "": lambda u, recipe=recipe, grid=grid: recipe.solve(u, grid)
        }
        if title.startswith("Darcy"):
            solves = {
                f" by {kind}": lambda u, kind=kind, grid=grid: Darcy(preconditioner=kind).solve(
                    u[:, 0], grid
                )
                for kind in ("multigrid", "poisson")
            }
        for how, solve in solves.items():
            kept: list[Tensor] = []

            def by_one_core(
                recipe: Recipe = recipe,
                solve: Callable[[Tensor], Tensor] = solve,
                kept: list[Tensor] = kept,
            ) -> dict[str, Any]:
                inputs, threads = drawn(recipe, 8), torch.get_num_threads()
                torch.set_num_threads(1)  # as a process that draws has
                try:
                    begun = time.perf_counter()
                    kept.append(solve(inputs))
                    return {"samples/s": len(inputs) / (time.perf_counter() - begun)}
                finally:
                    torch.set_num_threads(threads)

            found.row("generate", f"{title}{how}, one core, batch 8", by_one_core)
            for batch in batches:

                def by_gpu(
                    recipe: Recipe = recipe,
                    solve: Callable[[Tensor], Tensor] = solve,
                    kept: list[Tensor] = kept,
                    batch: int = batch,
                ) -> dict[str, Any]:
                    expected = kept[0] if kept else solve(drawn(recipe, 2))
                    return solved_by(recipe, solve, drawn(recipe, batch), expected)

                found.row("generate", f"{title}{how}, GPU, batch {batch}", by_gpu)


def demo(found: Measurements) -> None:
    """Draw the demo's data on all cores, then run it."""
    with tempfile.TemporaryDirectory() as folder:
        data, run = Path(folder, "data"), Path(folder, "run")
        cores = os.cpu_count() or 1
        draw = ("generate", "burgers-fno", data, "--resolution", 1024, "--workers", cores)
        found.row("demo", "data", lambda: called(*draw))
        found.row(
            "demo", "training, judging, pictures",
            lambda: called("demo", "burgers", "--data", data, "--run", run, keep=12),
            longest=300.0,
        )  # fmt: skip


def called(*arguments: object, keep: int = 1) -> dict[str, Any]:
    """Run a command of ours, and return its seconds and the last lines that it said."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sobolev", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {' / '.join(lines[-3:])}")
    wanted = [line for line in lines if "epochs in" in line]
    print("\n".join(lines[-keep:]), flush=True)
    return {"seconds": time.perf_counter() - begun, **({"training": wanted[-1]} if wanted else {})}


PARTS = {
    "card": card, "steps": steps, "integrate": integrate, "generate": generate, "demo": demo,
    "compiled": compiled,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default all")
    parser.add_argument("--minutes", type=float, default=6.0, help="for all rows together")
    parser.add_argument("--out", type=Path, help="a JSON file of all rows")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    if not torch.cuda.is_available():
        print("torch sees no CUDA GPU here, so there is nothing to measure", file=sys.stderr)
        return 2
    machine = {
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda,
        "python": platform.python_version(), "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    found = Measurements(time.monotonic() + 60 * options.minutes)
    for part in options.parts or PARTS:
        print(f"\n{part}\n", flush=True)
        PARTS[part](found)
        if options.out:  # after each part, in case the next is killed
            options.out.write_text(json.dumps({"machine": machine, "rows": found.rows}, indent=1))
    failed = sum("failed" in row for row in found.rows)
    print(f"\n{len(found.rows)} rows, {failed} of them failed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
