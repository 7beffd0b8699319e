"""The problems of fluid flow that data sets are drawn from: trajectories on the torus and on the
sphere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from sobolev.datasets.recipes.base import (
    FNO_PAPER,
    Check,
    Recipe,
    central_difference,
    evaluated,
    relative_residual,
    with_channel,
)
from sobolev.grids import GaussianRandomField, Grid, SphereGrid
from sobolev.grids.spherical_vectors import vorticity_and_divergence
from sobolev.grids.variables import Variable
from sobolev.solvers import NavierStokes, ShallowWater, SolutionError
from sobolev.solvers.navier_stokes.states import band_limited, energy, enstrophy
from sobolev.solvers.shallow_water.states import galewsky, random_states

FORCINGS = {
    "fno": lambda y, x: 0.1 * ((2 * math.pi * (x + y)).sin() + (2 * math.pi * (x + y)).cos()),
    "symmetric": lambda y, x: 0.1 * ((4 * math.pi * x).cos() + (4 * math.pi * y).cos()),
    "none": None,
}
_SIGMAS = {"published": math.sqrt(2) * 7**1.5, "kl": 7**1.5, "paper": 7**0.75}


@dataclass(frozen=True)
class NavierStokesRecipe(Recipe):
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

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Tensor:
        grid = self.grid(self.solver_resolution)
        field = GaussianRandomField(grid, self.alpha, self.tau, _SIGMAS[self.convention])
        return evaluated(band_limited(field.draw(streams), grid)[:, None], grid, self, resolution)

    def solve(self, inputs: Tensor, grid: Grid) -> Tensor:
        return with_channel(lambda: self.flow.solve(inputs[:, 0], grid, self.times))

    def refined(self) -> Recipe:
        return replace(self, step=self.step / 2, solver_resolution=2 * self.solver_resolution)

    def residual(self, streams: Sequence[np.random.Generator]) -> Tensor:
        grid, h = self.grid(self.solver_resolution), min(self.step, self.interval) / 16
        times = [self.interval - i * h for i in range(4, -1, -1)]
        frames = self.flow.solve(self.draw(streams)[:, 0], grid, times)
        finer = grid.resized(*(2 * n for n in grid.shape))  # where the products have room
        frames = grid.resample(frames, finer)
        rate = central_difference(frames, h)
        missing = self.flow.residual(frames[:, 2], rate, finer)
        return relative_residual(missing, rate, finer)

    def checks(self, fields: dict[str, Tensor], grid: Grid) -> list[Check]:
        w = fields["vorticity"].double()
        mean = w.mean(dim=(-2, -1), keepdim=True)
        drift, w = mean.abs().flatten(1).amax(dim=1) / w.abs().flatten(1).amax(dim=1), w - mean
        found = [Check("the mean vorticity vanishes", drift, 1e-5)]
        if grid.shape[0] <= (self.solver_resolution - 1) // 3:
            found = []  # picking so few nodes folds some modes onto the mean
        if self.forcing == "none" and self.is_resolved_by(grid):
            for name, quantity in (("energy", energy), ("enstrophy", enstrophy)):
                values = quantity(w.flatten(0, 1), grid).reshape(w.shape[:2])
                growth = (values.diff(dim=1) / values[:, :1]).amax(dim=1)
                found.append(Check(f"the {name} of an unforced flow never grows", growth, 1e-5))
        return found

    def is_resolved_by(self, grid: Grid) -> bool:
        """Whether fields on ``grid`` hold all modes of the solver's."""
        return grid.shape[0] >= self.solver_resolution

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

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Tensor:
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


@dataclass(frozen=True)
class ShallowWaterRecipe(Recipe):
    """Trajectories of a shallow layer on the rotating earth, on Gauss grids of n × 2n nodes.

    ``start="random"``: isotropic Gaussian stream functions with winds of ``speed`` m/s (root mean
    square) in nonlinear balance. ``start="galewsky"``: the barotropically unstable jet of Galewsky
    et al. (2004), set off by a bump whose height (60 to 180 m), latitude (35° to 55°) and longitude
    are drawn; theirs is 120 m at 45°N, 0°E.

    Coarser grids than the solver's share no nodes with it: fields are restricted by cutting modes.
    The grid's radius is 1, so that Sobolev norms weigh degrees; on a radius in metres all are L².
    """

    inputs = ()
    outputs = (
        Variable("vorticity", "relative vorticity", "s-1"),
        Variable("divergence", "divergence of the wind", "s-1"),
        Variable("geopotential", "geopotential g h of the depth h", "m2 s-2"),
    )
    conserved: ClassVar = {v.name: v.name for v in outputs}
    title = "Shallow water on the rotating sphere: trajectories"
    equation = "ζ_t = −∇·((ζ+f)u), δ_t = k·∇×((ζ+f)u) − ∇²(Φ + ½|u|²), Φ_t = −∇·(Φu), with hyperdiffusion ∇⁸"
    measure = "isotropic Gaussian stream functions in balance, or unstable jets with a random bump"
    references = (
        "Bonev et al., Spherical Fourier Neural Operators, ICML 2023, arXiv:2306.03838; "
        "Galewsky, Scott & Polvani, Tellus A 56, 2004, doi:10.3402/tellusa.v56i5.14436"
    )
    time_units = "s"
    chaotic = True

    start: str = "random"
    hours: int = 24
    interval: float = 3600.0
    speed: float = 20.0
    scale: float = 8.0
    smoothness: float = 6.0
    mean_depth: float = 10e3
    courant: float = 0.7
    solver_resolution: int = 128
    stored_resolution: int = 64

    def __post_init__(self) -> None:
        if self.start not in ("random", "galewsky"):
            raise ValueError(f"start must be random or galewsky, got {self.start!r}")

    @property
    def times(self) -> tuple[float, ...]:
        return tuple(self.interval * i for i in range(round(3600 * self.hours / self.interval) + 1))

    @property
    def default_resolution(self) -> int:
        return next(n for n in self.resolutions() if n <= self.stored_resolution)

    def resolutions(self) -> list[int]:
        n = self.solver_resolution
        return [n, *(m for m in range(n - 1, 7, -1) if m % 4 == 0)]

    def grid(self, resolution: int) -> SphereGrid:
        return SphereGrid(resolution, 2 * resolution)

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Tensor:
        grid = self.grid(self.solver_resolution)
        if self.start == "random":
            states = random_states(
                self._equation, grid, streams, speed=self.speed, scale=self.scale,
                smoothness=self.smoothness, mean_depth=self.mean_depth,
            )  # fmt: skip
        else:
            jet = galewsky(self._equation, grid, perturbed=False, mean_depth=self.mean_depth)
            states = torch.stack([jet + self._bump(grid, dice) for dice in streams])
            states = grid.from_modes(grid.to_modes(states))
        return evaluated(states, grid, self, resolution)

    def solve(self, inputs: Tensor, grid: SphereGrid) -> Tensor:
        try:
            return self._equation.solve(inputs, grid, self.times).transpose(1, 2)
        except SolutionError as error:
            raise SolutionError(str(error), error.solution.transpose(1, 2), error.status) from error

    def refined(self) -> Recipe:
        return replace(self, courant=self.courant / 2, solver_resolution=2 * self.solver_resolution)

    def residual(self, streams: Sequence[np.random.Generator]) -> Tensor:
        """Of the vorticity's equation."""
        grid, h = self.grid(self.solver_resolution), 60.0
        frames = self._equation.solve(
            self.draw(streams), grid, [self.interval + i * h for i in range(-4, 1)]
        )
        vorticity = frames[:, 2, 0]
        rate = central_difference(frames[:, :, 0], h)
        absolute = vorticity + self._equation.coriolis(*grid.points())
        wind = self._equation.velocity(frames[:, 2], grid)
        _, convergence = vorticity_and_divergence(
            absolute[:, None] * wind, self._equation.sphere(grid)
        )
        flow, degree = self._equation.flow(grid, vorticity.device), grid.shells()[1]
        damping = grid.from_modes(grid.to_modes(vorticity) * flow.decay(degree.double()))
        missing = grid.to_modes(rate + convergence + damping) * (degree < flow.degrees)
        return relative_residual(grid.from_modes(missing), convergence, grid)

    def checks(self, fields: dict[str, Tensor], grid: SphereGrid) -> list[Check]:
        area = grid.quadrature()
        mean = (fields["geopotential"].double() * area).sum(dim=(-2, -1)) / area.sum()
        drift = (mean - mean[:, :1]).abs().amax(dim=1) / mean[:, 0]
        vorticity = fields["vorticity"].double()
        circulation = (vorticity * area).sum(dim=(-2, -1)) / area.sum()
        return [
            Check("the mass is conserved", drift, 1e-6),
            Check("the depth is positive", -fields["geopotential"].flatten(1).amin(dim=1), 0.0),
            Check(
                "the mean vorticity vanishes",
                circulation.abs().amax(dim=1) / vorticity.abs().flatten(1).amax(dim=1),
                1e-5,
            ),
        ]

    def _bump(self, grid: SphereGrid, dice: np.random.Generator) -> Tensor:
        """Geopotential of the bump that sets the jet off, as a state."""
        a, b, c = dice.random(3)
        height, centre, meridian = 60 + 120 * a, math.radians(35 + 20 * b), 2 * math.pi * c
        latitude, longitude = grid.points()
        east = (longitude - meridian + math.pi) % (2 * math.pi) - math.pi
        north = latitude[:, None] - centre
        bump = latitude.cos()[:, None] * torch.exp(-((3 * east) ** 2) - (15 * north) ** 2)
        bump = self._equation.gravity * height * bump
        return torch.stack([torch.zeros_like(bump), torch.zeros_like(bump), bump])

    @property
    def _equation(self) -> ShallowWater:
        return ShallowWater(courant=self.courant)
