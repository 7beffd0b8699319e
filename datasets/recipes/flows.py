"""Velocities that carry themselves, and flows whose vorticity tells all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from sobolev.datasets.recipes.base import PDEBENCH, Check, Fields
from sobolev.datasets.recipes.semilinear import FromRandomFields
from sobolev.grids import AbstractGrid
from sobolev.grids.variables import Variable
from sobolev.solvers import BarotropicVorticity, KolmogorovFlow, VectorBurgers


@dataclass(frozen=True)
class VectorBurgersRecipe(FromRandomFields):
    """Trajectories of u_t + (u·∇) u = ν Δu, a velocity on a torus that steepens into shocks.

    The viscosity is one of PDEBench's for the line.
    """

    outputs: ClassVar = (
        Variable("u_y", "velocity along y", "1"),
        Variable("u_x", "velocity along x", "1"),
    )
    domains: ClassVar = ("periodic",)
    dimensions: ClassVar = (2,)
    symmetries = ("shifts",)  # others turn the velocity, too
    title = "Burgers' equation of a velocity on a torus: trajectories"
    equation = "u_t + (u·∇) u = ν Δu, periodic"
    references = PDEBENCH
    ranges: ClassVar = {"viscosity": "4e-3:4e-2:log"}

    tau: float = 8.0
    deviation: float = 0.5
    viscosity: float = 0.004
    time: float = 1.0
    interval: float = 0.05
    step: float = 0.005
    solver_resolution: int = 256
    stored_resolution: int | None = 64

    @property
    def semilinear(self) -> VectorBurgers:
        return VectorBurgers(self.viscosity)

    def checks(self, fields: Fields, grid: AbstractGrid) -> list[Check]:
        """Return that no part of the velocity exceeds its largest value at first."""
        found = super().checks(fields, grid)
        for variable in self.outputs:
            sizes = fields[variable.name].abs().flatten(2).amax(2)
            growth = sizes.amax(1) / sizes[:, 0] - 1
            # stored nodes may miss the largest value that they meet later
            found.append(Check(f"{variable.name} obeys the maximum principle", growth, 0.05))
        return found


@dataclass(frozen=True)
class KolmogorovFlowRecipe(FromRandomFields):
    """Trajectories of the vorticity under a force sin(n y) with drag.

    Torus, force and drag are those of Kochkov et al. (2021); the viscosity is five times theirs, so that 128² nodes
    resolve the flow.
    """

    outputs: ClassVar = (Variable("vorticity", "vorticity", "1"),)
    conserved: ClassVar = {"vorticity": "vorticity"}
    domains: ClassVar = ("periodic",)
    dimensions: ClassVar = (2,)
    symmetries = ()  # but for shifts along x
    chaotic = True
    title = "Kolmogorov's flow: trajectories of the vorticity"
    equation = "ω_t + u·∇ω = ν Δω − μ ω − n cos(n y), periodic"
    references = "Kochkov et al., PNAS 118, 2021, arXiv:2102.01010"
    ranges: ClassVar = {"viscosity": "1e-3:1e-2:log", "drag": "0.05:0.2"}

    length: float = 2 * math.pi
    tau: float = 4.0
    deviation: float = 3.0
    viscosity: float = 5e-3
    drag: float = 0.1
    waves: int = 4
    time: float = 10.0
    interval: float = 0.25
    step: float = 0.01
    solver_resolution: int = 128
    stored_resolution: int | None = 64

    @property
    def semilinear(self) -> KolmogorovFlow:
        return KolmogorovFlow(self.viscosity, waves=self.waves, drag=self.drag)


@dataclass(frozen=True)
class BarotropicVorticityRecipe(FromRandomFields):
    """Trajectories of ζ_t + J(ψ, ζ + 2Ω sin φ) = −ν Δ⁴ ζ on a rotating sphere, which turns once in
    a unit of time: eddies and jets grow out of random vorticity."""

    outputs: ClassVar = (Variable("vorticity", "relative vorticity", "1"),)
    conserved: ClassVar = {"vorticity": "vorticity"}
    domains: ClassVar = ("sphere",)
    dimensions: ClassVar = (2,)
    title = "The barotropic vorticity of a rotating sphere: trajectories"
    equation = "ζ_t + J(ψ, ζ + 2Ω sin φ) = −ν (−Δ)⁴ ζ, Δψ = ζ"
    references = "Charney, Fjørtoft & von Neumann, Tellus 2, 1950, doi:10.3402/tellusa.v2i4.8607"
    ranges: ClassVar = {"rotation": "0:12"}

    domain: str = "sphere"
    tau: float = 6.0
    deviation: float = 2.0
    rotation: float = 2 * math.pi
    viscosity: float = 1e-12
    time: float = 5.0
    interval: float = 0.25
    step: float = 0.025
    solver_resolution: int = 64
    stored_resolution: int | None = 32

    @property
    def semilinear(self) -> BarotropicVorticity:
        return BarotropicVorticity(self.rotation, self.viscosity, power=4)

    def checks(self, fields: Fields, grid: AbstractGrid) -> list[Check]:
        """Return that the enstrophy does not grow."""
        enstrophy = self.means(fields["vorticity"].double().square(), grid)
        growth = enstrophy.amax(1) / enstrophy[:, 0] - 1
        return [*super().checks(fields, grid), Check("the enstrophy falls", growth, 1e-3)]
