"""Burgers' equation: initial to final velocity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
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
)
from sobolev.datasets.recipes.capabilities import Loosenable, WithResidual, scaled
from sobolev.grids import GaussianRandomField, Grid
from sobolev.grids.variables import Variable
from sobolev.solvers.equations.burgers import Burgers


@dataclass(frozen=True)
class BurgersRecipe(WithResidual, Loosenable, Recipe):
    """u(·, 0) ↦ u(·, ``time``) for Burgers' equation, u(·, 0) ~ N(0, σ²(−d²/dx² + τ²)^−α) on a
    circle.

    The defaults are the FNO paper's data set with its circle taken to be 2π long, as the authors'
    journal paper says: on a circle of length 1 viscosity 0.1 leaves nothing of the field at t = 1.
    """

    inputs = (Variable("initial_velocity", "velocity at time 0", "1"),)
    outputs = (Variable("velocity", "velocity at the final time", "1"),)
    symmetries = ("odd reflection",)
    conserved: ClassVar = {"velocity": "initial_velocity"}
    title = "Burgers' equation on a circle: initial to final velocity"
    equation = "u_t + ½ (u²)_x = ν u_xx, periodic"
    measure = "u(·, 0) ~ N(0, σ²(−d²/dx² + τ²)^−α)"
    references = FNO_PAPER

    viscosity: float = 0.1
    time: float = 1.0
    length: float = 2 * math.pi
    alpha: float = 2.0
    tau: float = 5.0
    sigma: float = 25.0
    zero_mean: bool = True
    steps: int = 500
    solver_resolution: int = 8192

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 4:
            raise ValueError(f"steps must be at least 4, got {self.steps}")
        _ = self._equation  # which refuses what is out of its range, before anything is written

    def grid(self, resolution: int) -> Grid:
        return Grid.periodic(resolution, length=self.length)

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Inputs:
        grid = self.grid(self.solver_resolution)
        field = GaussianRandomField(
            grid, self.alpha, self.tau, self.sigma, zero_mean=self.zero_mean
        )
        return evaluated(field.draw(streams)[:, None], grid, self, resolution)

    def solve(self, inputs: Inputs, grid: Grid) -> Outputs:
        return self._equation.solve(inputs[:, 0], grid, self.time)[:, None]

    def refined(self) -> Recipe:
        return replace(self, steps=2 * self.steps, solver_resolution=2 * self.solver_resolution)

    def residual(self, streams: Sequence[np.random.Generator]) -> Float[Tensor, " sample"]:
        grid = self.grid(self.solver_resolution)
        h = self.time / self.steps
        frames = self._equation.solve(
            self.draw(streams)[:, 0], grid, [self.time + i * h for i in range(-4, 1)]
        )
        rate = central_difference(frames, h)
        return relative_residual(self._equation.residual(frames[:, 2], rate, grid), rate, grid)

    def checks(self, fields: Fields, grid: Grid) -> list[Check]:
        before = fields["initial_velocity"]
        after = fields["velocity"]
        largest = before.abs().amax(dim=-1)
        drift = (before.mean(dim=-1) - after.mean(dim=-1)).abs()
        # the mean is conserved on the solver's nodes; picking some of them is a quadrature of its own
        room = 1e-5 if grid.shape[0] == self.solver_resolution else 0.05
        return [
            Check("the mean velocity is conserved", drift / largest, room),
            Check(
                "the velocity obeys the maximum principle",
                after.abs().amax(dim=-1) / largest - 1,
                1e-3,
            ),
        ]

    @property
    def setting(self) -> str:
        return f"steps {self.steps}"

    def looser(self) -> Iterator[BurgersRecipe]:
        return scaled(self, "steps", 0.5, last=4)

    @property
    def _equation(self) -> Burgers:
        return Burgers(self.viscosity, steps=self.steps)
