"""Waves: shallow channels, envelopes, and fields that ring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.datasets.recipes.base import LPSDA, Check, Fields, Inputs
from sobolev.datasets.recipes.semilinear import (
    FromRandomFields,
    FromSines,
    SemilinearRecipe,
)
from sobolev.grids import AbstractGrid
from sobolev.grids.variables import Variable
from sobolev.solvers import KdV, KleinGordon, Schroedinger


@dataclass(frozen=True)
class KdVRecipe(FromSines):
    """Trajectories of u_t + u u_x + δ u_xxx = 0 on a circle.

    The defaults are those of Brandstetter et al. (2022), whose released code draws wavenumbers 1 and 2 where the
    paper prints 1 to 3.
    """

    outputs: ClassVar = (Variable("elevation", "elevation of the surface", "1"),)
    conserved: ClassVar = {"elevation": "elevation"}
    symmetries = ("shifts",)
    title = "The Korteweg–de Vries equation: trajectories"
    equation = "u_t + u u_x + δ u_xxx = 0, periodic"
    references = LPSDA
    ranges: ClassVar = {"dispersion": "0.5:2:log"}

    length: float = 128.0
    dispersion: float = 1.0
    time: float = 100.0
    interval: float = 0.5
    step: float = 0.025
    solver_resolution: int = 512
    stored_resolution: int | None = 256

    @property
    def semilinear(self) -> KdV:
        return KdV(self.dispersion)

    def checks(self, fields: Fields, grid: AbstractGrid) -> list[Check]:
        power = self.means(fields["elevation"].square(), grid)
        kept = self.keeps("the mean square", power, power[:, 0], 1e-3, grid)
        return [*super().checks(fields, grid), kept]


@dataclass(frozen=True)
class SchroedingerRecipe(SemilinearRecipe):
    """Trajectories of i h_t + ½ h_xx + |h|² h = 0 on a circle: solitons that meet.

    Each of one to ``solitons`` is A sech(A (x − x₀)) e^{i(V x + φ)} with A between ½ and 2 and a speed V that
    fits the circle, up to ``fastest``.
    """

    outputs: ClassVar = (
        Variable("real_part", "real part of the envelope", "1"),
        Variable("imaginary_part", "imaginary part of the envelope", "1"),
    )
    domains: ClassVar = ("periodic",)
    dimensions: ClassVar = (1,)
    title = "The cubic Schrödinger equation on a circle: trajectories"
    equation = "i h_t + ½ h_xx + |h|² h = 0, periodic"
    measure = "sums of solitons of random height, place, speed and phase"
    references = "Zakharov & Shabat, Sov. Phys. JETP 34, 1972"

    axes: int = 1
    length: float = 40.0
    solitons: int = 3
    fastest: float = 3.0
    time: float = 10.0
    interval: float = 0.1
    step: float = 0.01
    solver_resolution: int = 512
    stored_resolution: int | None = 256

    @property
    def semilinear(self) -> Schroedinger:
        return Schroedinger()

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Inputs:
        (x,) = self.grid(resolution or self.solver_resolution).points()
        return torch.stack([self._solitons(x, dice) for dice in streams])

    def _solitons(self, x: Float[Tensor, " x"], dice: np.random.Generator) -> Float[Tensor, "2 x"]:
        unit = 2 * math.pi / self.length
        most = int(self.fastest / unit)
        parts = torch.zeros(2, len(x), dtype=torch.float64, device=x.device)
        for _ in range(int(dice.integers(1, self.solitons + 1))):
            height = dice.uniform(0.5, 2.0)
            place = dice.uniform(0.0, self.length)
            speed = unit * int(dice.integers(-most, most + 1))
            turn = speed * x + dice.uniform(0.0, 2 * math.pi)
            distances = [x - place + i * self.length for i in (-1, 0, 1)]
            envelope = sum(height / torch.cosh(height * d) for d in distances)
            parts = parts + torch.stack([envelope * turn.cos(), envelope * turn.sin()])
        return parts

    def checks(self, fields: Fields, grid: AbstractGrid) -> list[Check]:
        density = fields["real_part"].double().square() + fields["imaginary_part"].double().square()
        mass = self.means(density, grid)
        kept = self.keeps("the mass", mass, mass[:, 0], 1e-3, grid)
        return [*super().checks(fields, grid), kept]


@dataclass(frozen=True)
class KleinGordonRecipe(FromRandomFields):
    """Trajectories of u_tt = c² Δu − m² u − g u³ from rest; with m = g = 0 the wave equation.

    The defaults are those of Rosofsky, Al Majed & Huerta (2023), in a box whose walls reflect.
    """

    outputs: ClassVar = (
        Variable("displacement", "displacement", "1"),
        Variable("velocity", "its rate of change", "1"),
    )
    title = "The wave equation, and that of Klein and Gordon: trajectories"
    equation = "u_tt = c² Δu − m² u − g u³"
    measure = "u(·, 0) ~ N(0, σ²(−Δ + τ²)^−α) without its mean, σ for the deviation; u_t(·, 0) = 0"
    references = (
        "Rosofsky, Al Majed & Huerta, Applications of physics informed neural operators, "
        "Mach. Learn.: Sci. Technol. 4, 2023, arXiv:2203.12634"
    )
    ranges: ClassVar = {"speed": "0.5:2:log"}

    domain: str = "neumann"
    speed: float = 1.0
    mass: float = 0.0
    cubic: float = 0.0
    time: float = 1.0
    interval: float = 0.02
    step: float = 0.01
    solver_resolution: int = 128
    stored_resolution: int | None = 64

    @property
    def semilinear(self) -> KleinGordon:
        return KleinGordon(self.speed, self.mass, self.cubic)

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Inputs:
        displacement = super().draw(streams, resolution)[:, :1]
        return torch.cat([displacement, torch.zeros_like(displacement)], dim=1)

    def checks(self, fields: Fields, grid: AbstractGrid) -> list[Check]:
        u, v = fields["displacement"].double(), fields["velocity"].double()
        c = grid.to_modes(u)
        elastic = (grid.eigenvalues(u.device) * c.square()).flatten(2).sum(2)
        density = v.square() + self.mass**2 * u.square() + self.cubic / 2 * u**4
        energy = self.means(density, grid) + self.speed**2 * elastic / grid.quadrature().sum()
        kept = self.keeps("the energy", energy, energy[:, 0], 1e-3, grid)
        return [*super().checks(fields, grid), kept]
