"""Navier–Stokes on the torus: trajectories of the vorticity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.datasets.recipes.base import (
    FNO_PAPER,
    Check,
    Fields,
    Inputs,
    Outputs,
    Recipe,
    central_difference,
    evaluated,
    relative_residual,
    with_channel,
)
from sobolev.datasets.recipes.capabilities import (
    Evolving,
    Loosenable,
    VorticityEquation,
    WithDiagnostics,
    WithResidual,
    scaled,
)
from sobolev.grids import AbstractGrid, GaussianRandomField, Grid
from sobolev.grids.variables import Variable
from sobolev.solvers import NavierStokes
from sobolev.solvers.navier_stokes.states import (
    band_limited,
    energy,
    enstrophy,
    stream_function,
    velocity,
)

FORCINGS = {
    "fno": lambda y, x: 0.1 * ((2 * math.pi * (x + y)).sin() + (2 * math.pi * (x + y)).cos()),
    "symmetric": lambda y, x: 0.1 * ((4 * math.pi * x).cos() + (4 * math.pi * y).cos()),
    "none": None,
}
_SIGMAS = {"published": math.sqrt(2) * 7**1.5, "kl": 7**1.5, "paper": 7**0.75}


@dataclass(frozen=True)
class NavierStokesRecipe(
    Evolving, WithResidual, Loosenable, WithDiagnostics, VorticityEquation, Recipe
):
    """Trajectories of the vorticity on the unit torus, ω(·, 0) ~ N(0, σ²(−Δ + 49)^−2.5).

    Which σ, is a matter of ``convention``: the papers print σ² = 7^{3/2}, which is the σ of their
    code (``"paper"``, pointwise standard deviation 0.043); the code that made the published files
    drew real and imaginary parts of variance 1 each and so doubled the variance (``"published"``,
    0.262); without that doubling, σ = 7^{3/2} gives ``"kl"`` (0.185).

    Initial fields are cut to the modes that the 2/3 rule keeps; the published script strides
    through a finer random grid instead, which aliases. Frames are at t = 0, ``interval``, … ``time``.
    """

    inputs = ()
    outputs = (Variable("vorticity", "vorticity", "1"),)
    conserved: ClassVar = {"vorticity": "vorticity"}
    chaotic = True
    title = "Navier–Stokes on the torus: trajectories of the vorticity"
    equation = "ω_t + u·∇ω = ν Δω + f, −Δψ = ω, u = (ψ_y, −ψ_x), periodic"
    measure = "ω(·, 0) ~ N(0, σ²(−Δ + τ²)^−α), cut to the kept modes"
    references = FNO_PAPER

    viscosity: float = 1e-3
    time: float = 50.0
    interval: float = 1.0
    forcing: str = "fno"
    convention: str = "published"
    alpha: float = 2.5
    tau: float = 7.0
    step: float = 0.05
    solver_resolution: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("forcing", FORCINGS), ("convention", _SIGMAS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        frames = self.time / self.interval if self.interval > 0 else math.nan
        if not (
            math.isfinite(frames)
            and frames > 0
            and math.isclose(frames, round(frames), rel_tol=1e-9)
        ):
            raise ValueError(
                f"time must be a multiple of interval, got time={self.time}, interval={self.interval}"
            )
        _ = self.flow  # which refuses what is out of its range, before anything is written

    @property
    def symmetries(self) -> tuple[str, ...]:  # type: ignore[override]
        return {
            "fno": ("diagonal glides",),
            "symmetric": ("quarter turns",),
            "none": ("quarter turns", "shifts"),
        }[self.forcing]

    @property
    def times(self) -> tuple[float, ...]:
        return tuple(i * self.interval for i in range(round(self.time / self.interval) + 1))

    @property
    def default_resolution(self) -> int:
        return next(n for n in self.resolutions() if n <= 64)

    def resolutions(self) -> list[int]:
        return [n for n in super().resolutions() if n >= 4]

    def grid(self, resolution: int) -> Grid:
        return Grid.periodic(resolution, resolution)

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Inputs:
        grid = self.grid(self.solver_resolution)
        field = GaussianRandomField(grid, self.alpha, self.tau, _SIGMAS[self.convention])
        return evaluated(band_limited(field.draw(streams), grid)[:, None], grid, self, resolution)

    def solve(self, inputs: Inputs, grid: Grid) -> Outputs:
        return with_channel(lambda: self.flow.solve(inputs[:, 0], grid, self.times))

    def refined(self) -> Recipe:
        return replace(self, step=self.step / 2, solver_resolution=2 * self.solver_resolution)

    def residual(self, streams: Sequence[np.random.Generator]) -> Float[Tensor, " sample"]:
        grid = self.grid(self.solver_resolution)
        h = min(self.step, self.interval) / 16
        times = [self.interval - i * h for i in range(4, -1, -1)]
        frames = self.flow.solve(self.draw(streams)[:, 0], grid, times)
        finer = grid.resized(*(2 * n for n in grid.shape))  # where the products have room
        frames = grid.resample(frames, finer)
        rate = central_difference(frames, h)
        missing = self.flow.residual(frames[:, 2], rate, finer)
        return relative_residual(missing, rate, finer)

    def checks(self, fields: Fields, grid: Grid) -> list[Check]:
        w = fields["vorticity"].double()
        mean = w.mean(dim=(-2, -1), keepdim=True)
        drift = mean.abs().flatten(1).amax(dim=1) / w.abs().flatten(1).amax(dim=1)
        eddies = w - mean
        found = [Check("the mean vorticity vanishes", drift, 1e-5)]
        if grid.shape[0] <= (self.solver_resolution - 1) // 3:
            found = []  # picking so few nodes folds some modes onto the mean
        if self.forcing == "none" and self.is_resolved_by(grid):
            for name, quantity in (("energy", energy), ("enstrophy", enstrophy)):
                values = quantity(eddies.flatten(0, 1), grid).reshape(w.shape[:2])
                growth = (values.diff(dim=1) / values[:, :1]).amax(dim=1)
                found.append(Check(f"the {name} of an unforced flow never grows", growth, 1e-5))
        return found

    def is_resolved_by(self, grid: Grid) -> bool:
        """Return whether fields on ``grid`` hold all modes of the solver's."""
        return grid.shape[0] >= self.solver_resolution

    def inputs_on(
        self, grid: AbstractGrid, inputs: Inputs, source: AbstractGrid
    ) -> Float[Tensor, "sample input *other_space"]:
        """Return the fields on ``grid``, cut to the modes that the solver's 2/3 rule keeps there."""
        return band_limited(super().inputs_on(grid, inputs, source), grid)  # type: ignore[arg-type]

    def continued(self, frames: int, stride: int) -> NavierStokesRecipe:
        interval = self.interval * stride
        return replace(self, interval=interval, time=interval * frames)

    @property
    def setting(self) -> str:
        return f"step {self.step:.4g}"

    def looser(self) -> Iterator[NavierStokesRecipe]:
        return scaled(self, "step", 2, last=self.interval)

    def diagnostics(
        self, state: Float[Tensor, "*lead channel y x"], grid: Grid
    ) -> Mapping[Variable, Float[Tensor, "*lead y x"]]:
        vorticity = state[..., 0, :, :]
        # a mean is rounding, or folded modes
        vorticity = vorticity - vorticity.mean(dim=(-2, -1), keepdim=True)
        along_x, along_y = velocity(vorticity, grid).unbind(-3)
        return {
            Variable("velocity_x", "velocity along x", "1"): along_x,
            Variable("velocity_y", "velocity along y", "1"): along_y,
            Variable("stream_function", "stream function", "1"): stream_function(vorticity, grid),
        }

    def rest(self) -> Float[Tensor, " channel"]:
        return torch.zeros(1, dtype=torch.float64)

    @property
    def flow(self) -> NavierStokes:
        """The equation that the trajectories solve."""
        return NavierStokes(self.viscosity, FORCINGS[self.forcing], step=self.step)


@dataclass(frozen=True)
class DecayingTurbulenceRecipe(NavierStokesRecipe):
    """Decaying turbulence on the torus of length 2π from McWilliams' (1984) spectrum.

    |ψ̂|² ∝ 1 / (k (1 + (k/``peak``)⁴)) with random phases, scaled to kinetic energy ½ per unit area;
    the flow is left to itself for ``warm_up`` before the first stored frame, so that vortices have
    formed. That frame counts as drawn: error estimates start from it.
    """

    title = "Decaying two-dimensional turbulence: trajectories of the vorticity"
    equation = "ω_t + u·∇ω = ν Δω, periodic"
    measure = "Gaussian, |ψ̂|² ∝ 1 / (k (1 + (k/k₀)⁴)), energy ½, after a warm-up"
    references = (
        "McWilliams, The emergence of isolated coherent vortices in turbulent flow, JFM 146, 1984; "
        "Cao et al., Spectral-Refiner, ICLR 2025, arXiv:2405.17211"
    )

    time: float = 10.0
    interval: float = 0.1
    forcing: str = "none"
    step: float = 0.005
    solver_resolution: int = 256
    peak: float = 4.0
    warm_up: float = 4.5

    def grid(self, resolution: int) -> Grid:
        return Grid.periodic(resolution, resolution, length=2 * math.pi)

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Inputs:
        grid = self.grid(self.solver_resolution)
        k = grid.eigenvalues().sqrt()
        noise = torch.from_numpy(np.stack([s.standard_normal(grid.mode_shape) for s in streams]))
        # ω̂ = k² ψ̂
        w = grid.from_modes(noise * k**2 / (k * (1 + (k / self.peak) ** 4)).clamp(min=1).sqrt())
        w = band_limited(w, grid)
        area = (2 * math.pi) ** 2
        w = w * (0.5 * area / energy(w, grid)).sqrt()[:, None, None]
        formed = self.flow.solve(w, grid, self.warm_up)
        return evaluated(formed[:, None], grid, self, resolution)
