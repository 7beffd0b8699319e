"""Refinement of a spatio-temporal FNO beside the solver: errors in L² and H⁻¹ before and after, residuals,
and the time per trajectory, beside that of the cheapest solve with an error as small.

.venv/bin/python benchmarks/refinement.py [--run RUN] [--folder FOLDER] [--steps N] [--threads N]

Draws forced flows (viscosity 1e-3, 64², frames 0.2 apart) into FOLDER and trains a small operator on every second
node, unless FOLDER holds them or RUN names a trained one; ten frames in, the next ten out.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
import xarray as xr
from torch import Tensor

from sobolev.certification import refine
from sobolev.certification.paths import flow_of
from sobolev.datasets import NavierStokesRecipe, OperatorDataModule, generate, open_dataset
from sobolev.operators import SpatioTemporalFNO, Trajectory
from sobolev.solvers import Grid, NavierStokes, sobolev_norm
from sobolev.solvers.navier_stokes.states import band_limited
from sobolev.surrogates import Surrogate
from sobolev.training import OperatorModule

FRAMES = 10
ROUNDS = 2


def data_in(folder: Path, trajectories: int) -> Path:
    path = folder / "data"
    if not path.is_dir():
        recipe = NavierStokesRecipe(time=8.0, interval=0.2)
        generate(recipe, path, {"train": trajectories, "valid": 2, "test": 8}, workers=1)
    return path


def trained(data: Path, folder: Path, steps: int) -> Surrogate:
    """The surrogate in ``folder``, trained first if it is not there."""
    path = folder / "surrogate"
    if path.is_dir():
        return Surrogate.load(path)
    lightning.seed_everything(0)
    module = OperatorDataModule(data, batch_size=8, resolution=32, window=(FRAMES, FRAMES))
    inner = SpatioTemporalFNO(1, 1, modes=(8, 8, 5), width=8, latent_steps=FRAMES)
    fit = OperatorModule(Trajectory(inner, FRAMES, FRAMES), module, learning_rate=4e-3)
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        num_sanity_val_steps=0, limit_val_batches=0,
    )  # fmt: skip
    begin = time.perf_counter()
    trainer.fit(fit, module)
    print(f"\ntrained for {time.perf_counter() - begin:.0f} s, {steps} steps of batch 8")
    fit.surrogate.save(path)
    return fit.surrogate.eval()


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result and the least processor time of some rounds: whatever else runs only adds."""
    times = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        result = work()
        times.append(time.process_time() - begin)
    return result, min(times)


def error(fields: Tensor, exact: Tensor, grid: Grid, order: float) -> float:
    """Relative, over all frames; the mean of the trajectories."""
    missed, size = (sobolev_norm(u, grid, order).square().sum(1) for u in (fields - exact, exact))
    return (missed / size).sqrt().mean().item()


def solves(surrogate: Surrogate, start: Tensor, exact: Tensor) -> list[tuple[str, float, float]]:
    """Name, L² error and seconds of solves from the last given frame, on the grid and on half of it,
    with fewer and fewer steps."""
    flow, grid, interval = flow_of(surrogate), surrogate.grid, surrogate.interval
    grid = grid.resized(*start.shape[1:])
    times, found = [interval * i for i in range(1, FRAMES + 1)], []
    for shrink in (1, 2):
        coarse = grid.resized(*(n // shrink for n in grid.shape))
        begin = band_limited(grid.resample(start, coarse), coarse)
        for parts in (0.5, 1, 2, 4):
            solver = NavierStokes(flow.viscosity, flow.forcing, step=interval / parts)
            moments = times[1::2] if parts < 1 else times
            try:
                fields, seconds = timed(partial(solver.solve, begin, coarse, moments))
            except (ValueError, ArithmeticError):  # a step that long is unstable
                continue
            wanted = exact[:, 1::2] if parts < 1 else exact
            missed = error(coarse.resample(fields, grid), wanted, grid, 0.0)
            name = f"{coarse.shape[0]}², Δt = {interval / parts:g}"
            found.append((name, missed, seconds))
    return found


def report(surrogate: Surrogate, data: Path) -> None:
    dataset = open_dataset(data, "test").isel(time=slice(0, 2 * FRAMES)).load()
    fields = torch.from_numpy(dataset.vorticity.values).double()
    given, exact = fields[:, :FRAMES], fields[:, FRAMES:]
    grid = surrogate.grid.resized(*fields.shape[2:])

    def refinement(tolerance: float) -> xr.Dataset:
        return refine(surrogate, dataset.isel(time=slice(0, FRAMES)), tolerance=tolerance)

    prediction, seconds = timed(
        lambda: surrogate.rollout(dataset.isel(time=slice(0, FRAMES)), FRAMES)
    )
    first = refinement(0.5)
    rows = [("prediction", prediction, seconds, float(first.residual_before.mean()), "–")]
    for tolerance in (0.03, 1e-2, 1e-3, 1e-4):
        found, seconds = timed(partial(refinement, tolerance))
        left, count = float(found.residual_after.mean()), f"{float(found.iterations.mean()):.0f}"
        rows.append((f"refined to {tolerance:g}", found, seconds, left, count))
    solved = solves(surrogate, given[:, -1], exact)
    print(
        f"\n{len(given)} trajectories of {FRAMES} frames {surrogate.interval:g} apart on {grid.shape[0]}², one thread; "
        "ms are per trajectory\n\n"
        "| | L² error | H⁻¹ error | relative residual | iterations | ms | cheapest solve as good | its error | ms |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for name, found, seconds, residual, iterations in rows:
        w = torch.from_numpy(found.vorticity.values).double()
        missed = error(w, exact, grid, 0.0)
        good = [solve for solve in solved if solve[1] <= missed]
        best = min(good, key=lambda solve: solve[2], default=("none", math.nan, math.nan))
        print(
            f"| {name} | {missed:.1e} | {error(w, exact, grid, -1.0):.1e} | {residual:.1e} | {iterations} | "
            f"{1e3 * seconds / len(given):.0f} | {best[0]} | {best[1]:.1e} | {1e3 * best[2] / len(given):.1f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="run folder of an ST-FNO, ten frames in and out")
    parser.add_argument("--folder", type=Path, default=Path("build/refinement"))
    parser.add_argument("--trajectories", type=int, default=40, help="to train on")
    parser.add_argument("--steps", type=int, default=600, help="of training, batches of 8")
    options = parser.parse_args()
    torch.set_num_threads(1)  # so that processor time is time
    data = data_in(options.folder, options.trajectories)
    if options.run is not None:
        surrogate = Surrogate.load(options.run / "surrogate")
    else:
        surrogate = trained(data, options.folder, options.steps)
    report(surrogate, data)


if __name__ == "__main__":
    main()
