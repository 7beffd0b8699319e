"""Phases that separate, and rolls that order themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from sobolev.datasets.recipes.base import EXPONENTIAL, Check, Fields
from sobolev.datasets.recipes.semilinear import FromRandomFields, within
from sobolev.grids import AbstractGrid
from sobolev.grids.variables import Variable
from sobolev.solvers import AllenCahn, CahnHilliard, SwiftHohenberg


@dataclass(frozen=True)
class AllenCahnRecipe(FromRandomFields):
    """Trajectories of u_t = D Δu + r (u − u³).

    The defaults are Raissi, Perdikaris & Karniadakis' (2019), in the plane.
    """

    outputs: ClassVar = (Variable("phase", "which of two phases: −1 or 1", "1"),)
    title = "The Allen–Cahn equation: trajectories"
    equation = "u_t = D Δu + r (u − u³)"
    references = (
        "Raissi, Perdikaris & Karniadakis, J. Comput. Phys. 378, 2019, doi:10.1016/j.jcp.2018.10.045; "
        "on the sphere Montanelli & Nakatsukasa, SIAM J. Sci. Comput. 40, 2018, arXiv:1701.06030"
    )
    ranges: ClassVar = {"diffusivity": "5e-5:5e-4:log", "rate": "1:10:log"}

    length: float = 2.0
    tau: float = 10.0
    deviation: float = 0.5
    diffusivity: float = 1e-4
    rate: float = 5.0
    time: float = 1.0
    interval: float = 0.05
    step: float = 0.025
    solver_resolution: int = 512
    stored_resolution: int | None = 128

    @property
    def semilinear(self) -> AllenCahn:
        return AllenCahn(self.diffusivity, self.rate)

    def checks(self, fields: Fields, grid: AbstractGrid) -> list[Check]:
        u = fields["phase"]
        largest = u[:, 0].abs().flatten(1).amax(1).clamp(min=1.0)
        return [*super().checks(fields, grid), within("the phase", u, -largest, largest)]


@dataclass(frozen=True)
class CahnHilliardRecipe(FromRandomFields):
    """Trajectories of u_t = M Δ(u³ − u − ε² Δu), with Montanelli & Bootland's (2020) parameters."""

    outputs: ClassVar = (Variable("concentration", "difference of two concentrations", "1"),)
    conserved: ClassVar = {"concentration": "concentration"}
    domains: ClassVar = ("periodic", "neumann", "sphere")  # no flux passes walls of zeros
    title = "The Cahn–Hilliard equation: trajectories"
    equation = "u_t = M Δ(u³ − u − ε² Δu)"
    references = EXPONENTIAL
    ranges: ClassVar = {"width": "0.025:0.06:log"}

    length: float = 2.0
    tau: float = 10.0
    deviation: float = 0.1
    width: float = math.sqrt(1e-3)
    mobility: float = 1e-2
    time: float = 20.0
    interval: float = 0.5
    step: float = 0.02
    solver_resolution: int = 128
    stored_resolution: int | None = 64

    @property
    def semilinear(self) -> CahnHilliard:
        return CahnHilliard(self.width, self.mobility)


@dataclass(frozen=True)
class SwiftHohenbergRecipe(FromRandomFields):
    """Trajectories of u_t = r u − (1 + Δ)² u + g u² − u³, with Montanelli & Bootland's (2020) parameters."""

    outputs: ClassVar = (Variable("order", "amplitude of convection", "1"),)
    domains: ClassVar = ("periodic", "neumann", "sphere")  # u² is no series of sines
    title = "The Swift–Hohenberg equation: trajectories"
    equation = "u_t = r u − (1 + Δ)² u + g u² − u³"
    references = EXPONENTIAL
    ranges: ClassVar = {"rate": "0.05:0.7", "quadratic": "0:1.6"}

    length: float = 20 * math.pi
    tau: float = 0.5
    deviation: float = 0.1
    rate: float = 0.1
    quadratic: float = 1.0
    time: float = 50.0
    interval: float = 1.0
    step: float = 0.25
    solver_resolution: int = 128
    stored_resolution: int | None = 64

    @property
    def semilinear(self) -> SwiftHohenberg:
        return SwiftHohenberg(self.rate, self.quadratic)

    def checks(self, fields: Fields, grid: AbstractGrid) -> list[Check]:
        """Return that ⟨u²⟩ stays below 2r + g², which it must once g u³ ≤ (g² u² + u⁴) / 2 is put in."""
        u = fields["order"]
        power = self.means(u.square(), grid)
        most = (2 * max(self.rate, 0.0) + self.quadratic**2) * power.new_ones(len(u))
        bounds = within("the mean square", power, 0 * most, torch.maximum(most, power[:, 0]))
        return [*super().checks(fields, grid), bounds]
