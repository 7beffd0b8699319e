"""Shallow water on the rotating sphere: trajectories."""

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
    Check,
    Fields,
    Inputs,
    Outputs,
    Recipe,
    central_difference,
    evaluated,
    relative_residual,
)
from sobolev.datasets.recipes.capabilities import (
    Evolving,
    Loosenable,
    WithDiagnostics,
    WithResidual,
    scaled,
)
from sobolev.grids import SphereGrid
from sobolev.grids.spherical_vectors import vorticity_and_divergence
from sobolev.grids.variables import Variable
from sobolev.solvers.integrators import SolutionError
from sobolev.solvers.shallow_water.equation import ShallowWater
from sobolev.solvers.shallow_water.states import galewsky, random_states


@dataclass(frozen=True)
class ShallowWaterRecipe(Evolving, WithResidual, Loosenable, WithDiagnostics, Recipe):
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
        super().__post_init__()
        if self.start not in ("random", "galewsky"):
            raise ValueError(f"start must be random or galewsky, got {self.start!r}")
        _ = self._equation  # which refuses what is out of its range, before anything is written

    @property
    def times(self) -> tuple[float, ...]:
        return tuple(self.interval * i for i in range(round(3600 * self.hours / self.interval) + 1))

    @property
    def default_resolution(self) -> int:
        return next(n for n in self.resolutions() if n <= self.stored_resolution)

    def grid(self, resolution: int) -> SphereGrid:
        return SphereGrid(resolution, 2 * resolution)

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Inputs:
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

    def solve(self, inputs: Inputs, grid: SphereGrid) -> Outputs:
        try:
            return self._equation.solve(inputs, grid, self.times).transpose(1, 2)
        except SolutionError as error:
            raise SolutionError(str(error), error.solution.transpose(1, 2), error.status) from error

    def refined(self) -> Recipe:
        return replace(self, courant=self.courant / 2, solver_resolution=2 * self.solver_resolution)

    def residual(self, streams: Sequence[np.random.Generator]) -> Float[Tensor, " sample"]:
        """Return the relative residual of the vorticity's equation."""
        grid = self.grid(self.solver_resolution)
        h = 60.0
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
        flow = self._equation.flow(grid, vorticity.device)
        degree = grid.shells()[1]
        damping = grid.from_modes(grid.to_modes(vorticity) * flow.decay(degree.double()))
        missing = grid.to_modes(rate + convergence + damping) * (degree < flow.degrees)
        return relative_residual(grid.from_modes(missing), convergence, grid)

    def checks(self, fields: Fields, grid: SphereGrid) -> list[Check]:
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

    def continued(self, frames: int, stride: int) -> ShallowWaterRecipe:
        """Return the recipe of so many frames, or some more, to fill an hour."""
        interval = self.interval * stride
        return replace(self, interval=interval, hours=math.ceil(interval * frames / 3600 - 1e-9))

    @property
    def setting(self) -> str:
        return f"courant {self.courant:.4g}"

    def looser(self) -> Iterator[ShallowWaterRecipe]:
        return scaled(self, "courant", 2, last=2.8)

    def diagnostics(
        self, state: Float[Tensor, "*lead channel y x"], grid: SphereGrid
    ) -> Mapping[Variable, Float[Tensor, "*lead y x"]]:
        eastward, northward = self._equation.velocity(state, grid).unbind(-3)
        return {
            Variable("eastward_wind", "eastward wind", "m s-1"): eastward,
            Variable("northward_wind", "northward wind", "m s-1"): northward,
            Variable("depth", "depth of the layer", "m"): self._equation.height(state, grid),
        }

    def rest(self) -> Float[Tensor, " channel"]:
        return torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)

    def _bump(self, grid: SphereGrid, dice: np.random.Generator) -> Float[Tensor, "3 lat lon"]:
        """Return the geopotential of the bump that sets the jet off, as a state."""
        a, b, c = dice.random(3)
        height = 60 + 120 * a
        centre = math.radians(35 + 20 * b)
        meridian = 2 * math.pi * c
        latitude, longitude = grid.points()
        east = (longitude - meridian + math.pi) % (2 * math.pi) - math.pi
        north = latitude[:, None] - centre
        bump = latitude.cos()[:, None] * torch.exp(-((3 * east) ** 2) - (15 * north) ** 2)
        bump = self._equation.gravity * height * bump
        return torch.stack([torch.zeros_like(bump), torch.zeros_like(bump), bump])

    @property
    def _equation(self) -> ShallowWater:
        return ShallowWater(courant=self.courant)
