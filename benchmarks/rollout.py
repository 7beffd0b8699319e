"""Long rollouts of shallow water on the sphere: trained runs beside the solver.

    .venv/bin/python benchmarks/rollout.py runs/swe-sfno runs/swe-fno data/swe --steps 200

Each run starts from the first frame of some test trajectories and is applied to its own predictions. The solver
goes on from the same samples' initial states, drawn again from their seeds, on its own grid; its frames are
restricted to the grid of the data. Printed are, over all samples:

stable          frames before the first that is not finite or far too large (Surrogate.rollout), the fewest
mass            largest |m(t) − m(0)| / m(0), m the integral of the geopotential
energy          kinetic energy of the last frame over the solver's
small scales    the same of the upper half of the degrees
error, h hours  relative L² of the state after so many hours, each variable about its mean in standard deviations

Kinetic energy of degree l is R² Σ_m (ζ_lm² + δ_lm²) / (8π l (l + 1)), from vorticity and divergence. Far beyond the
time over which a flow can be predicted, errors of a good rollout tend to √2 of the field's deviation; there the
spectrum says whether it is still the weather of this planet.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from torch import Tensor

from sobolev.datasets import Manifest, ShallowWaterRecipe, open_dataset
from sobolev.datasets.generating.generation import streams
from sobolev.datasets.recipes.presets import recipe_from
from sobolev.grids.norms import relative_error
from sobolev.solvers import SphereGrid, energy_spectrum
from sobolev.surrogates import Surrogate

EARTH = 6.37122e6
SEGMENT = 24
"""Frames that the solver computes at a time."""
FIRST_DEGREE = 1
"""The constant of degree 0 is no motion."""


@dataclass(frozen=True)
class Rollout:
    """Frames ``(sample, time, variable, lat, lon)`` in physical units, the initial one first."""

    name: str
    frames: Tensor
    grid: SphereGrid
    stable: int

    def mass_drift(self) -> Tensor:
        """(m(t) − m(0)) / m(0), ``(sample, time)``."""
        mass = (self.frames[:, :, 2] * self.grid.quadrature()).sum((-2, -1))
        return mass / mass[:, :1] - 1

    def energies(self) -> Tensor:
        """Mean kinetic energy by degree in m²/s², ``(time, degree)``, degree 0 left out."""
        wavenumbers, square = energy_spectrum(self.frames[:, :, :2], self.grid)
        return (square.sum(2).mean(0) / wavenumbers**2 * EARTH**2 / (8 * torch.pi))[
            :, FIRST_DEGREE:
        ]


@torch.no_grad()
def solved(data: Path, samples: int, steps: int, grid: SphereGrid) -> Rollout:
    """The solver's, from the seeds of the test samples."""
    manifest = Manifest.read(data)
    recipe = recipe_from(manifest.recipe)
    if not isinstance(recipe, ShallowWaterRecipe):
        raise ValueError(
            f"{data} was drawn from {type(recipe).__name__}; this is about shallow water"
        )
    own = recipe.grid(recipe.solver_resolution)
    state = recipe.draw(streams(manifest, "test", range(samples)))
    frames = [own.resample(state, grid)[:, None]]
    for first in range(0, steps, SEGMENT):
        count = min(SEGMENT, steps - first)
        hours = replace(recipe, hours=round(count * recipe.interval / 3600))
        new = hours.solve(state, own).transpose(1, 2)
        state = new[:, -1]
        frames.append(own.resample(new[:, 1:], grid))
        print(f"  solver: {first + count} of {steps} steps", flush=True)
    return Rollout("solver", torch.cat(frames, dim=1), grid, steps)


def predicted(run: str, surrogate: Surrogate, given: xr.Dataset, steps: int) -> Rollout:
    """A run's."""
    found = surrogate.rollout(given, steps)
    names = [v.name for v in surrogate.quantities]
    frames = np.stack([np.concatenate([given[n], found[n]], axis=1) for n in names], axis=2)
    stable = int(found["stable_frames"].min())
    folder = Path(run)
    name = (folder.parent if folder.name == "surrogate" else folder).name
    return Rollout(name, torch.from_numpy(frames).double(), surrogate.grid, stable)


def row(rollout: Rollout, truth: Rollout, surrogate: Surrogate | None, hours: list[int]) -> str:
    spectrum, expected = rollout.energies()[-1], truth.energies()[-1]
    half = len(expected) // 2
    errors = ["–"] * len(hours)
    if surrogate is not None:
        scaled = [surrogate.comparable(u) for u in (rollout.frames, truth.frames)]
        errors = [
            f"{float(relative_error(*(u[:, h] for u in scaled), truth.grid).mean()):.3g}"
            for h in hours
        ]
    parameters = "–" if surrogate is None else str(sum(p.numel() for p in surrogate.parameters()))
    cells = [
        rollout.name, parameters, f"{rollout.stable} of {rollout.frames.shape[1] - 1}",
        f"{float(rollout.mass_drift().abs().max()):.1e}", f"{float(spectrum.sum() / expected.sum()):.3g}",
        f"{float(spectrum[half:].sum() / expected[half:].sum()):.3g}", *errors,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def draw(rollouts: list[Rollout], interval: float, file: Path) -> None:
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    drift, energy, spectrum = figure.subplots(1, 3)
    for r in rollouts:
        style = {"label": r.name, **({"color": "#222222"} if r.name == "solver" else {})}
        hours = torch.arange(r.frames.shape[1]) * interval / 3600
        energies = r.energies()
        drift.semilogy(hours[1:], r.mass_drift().abs().amax(0)[1:].clamp(min=1e-16), **style)
        energy.semilogy(hours, energies.sum(1), **style)
        spectrum.loglog(
            range(FIRST_DEGREE, energies.shape[1] + FIRST_DEGREE), energies[-1], **style
        )
    drift.set(xlabel="hours", ylabel="|relative change of the mass|, largest")
    energy.set(xlabel="hours", ylabel="kinetic energy, m²/s²")
    spectrum.set(xlabel="degree", ylabel=f"kinetic energy after {float(hours[-1]):g} hours, m²/s²")
    spectrum.set_ylim(bottom=1e-3 * float(rollouts[0].energies()[-1].min()))
    for axes in (drift, energy, spectrum):
        axes.grid(alpha=0.3)
    energy.legend(frameon=False)
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="run folders or surrogate folders")
    parser.add_argument("data", type=Path, help="folder of the data set")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--samples", type=int, default=4, help="test trajectories (default: 4)")
    parser.add_argument("--out", type=Path, default=Path("rollout.png"), help="the picture")
    options = parser.parse_args()
    surrogates = {run: Surrogate.load(run) for run in options.runs}
    for run, surrogate in surrogates.items():
        if (surrogate.in_time.history, surrogate.in_time.stride) != (1, 1):
            raise ValueError(f"{run} takes {surrogate.in_time}; the solver goes on from one frame")
    given = open_dataset(options.data, "test").isel(
        sample=slice(0, options.samples), time=slice(0, 1)
    )
    grid = Manifest.read(options.data).grid
    truth = solved(options.data, options.samples, options.steps, grid)
    rollouts = [truth, *(predicted(run, s, given, options.steps) for run, s in surrogates.items())]
    interval = recipe_from(Manifest.read(options.data).recipe).interval
    hours = sorted({h for h in (1, 24, options.steps) if h <= options.steps})
    heads = ["model", "parameters", "stable", "mass", "energy", "small scales"]
    heads += [f"error, {h * interval / 3600:g} h" for h in hours]
    print(
        f"\n{options.data}, {options.samples} test trajectories, {options.steps} steps of {interval:g} s\n"
    )
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for r, s in zip(rollouts, [None, *surrogates.values()], strict=True):
        print(row(r, truth, s, hours))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    draw(rollouts, interval, options.out)
    print(f"\n{options.out}")


if __name__ == "__main__":
    main()
