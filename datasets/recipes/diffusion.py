"""Heat that spreads, and a tracer that is carried along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sobolev.datasets.recipes.base import PDEBENCH, Check, Fields
from sobolev.datasets.recipes.semilinear import FromRandomFields, FromSines, within
from sobolev.grids import AbstractGrid
from sobolev.grids.variables import Variable
from sobolev.solvers import AdvectionDiffusion, Heat


@dataclass(frozen=True)
class HeatRecipe(FromRandomFields):
    """Trajectories of u_t = D Δu, solved exactly."""

    outputs: ClassVar = (Variable("temperature", "temperature", "1"),)
    title = "The heat equation: trajectories"
    equation = "u_t = D Δu"
    references = "Fourier, Théorie analytique de la chaleur, 1822"
    ranges: ClassVar = {"diffusivity": "1e-3:1e-1:log"}

    domain: str = "neumann"
    diffusivity: float = 0.01

    @property
    def semilinear(self) -> Heat:
        return Heat(self.diffusivity)

    @property
    def conserved(self) -> dict[str, str]:  # type: ignore[override]
        return {} if self.domain == "dirichlet" else {"temperature": "temperature"}

    def checks(self, fields: Fields, grid: AbstractGrid) -> list[Check]:
        u = fields["temperature"]
        first = u[:, 0].flatten(1)
        bounds = within("the temperature", u, first.amin(1), first.amax(1))
        return [*super().checks(fields, grid), bounds]


@dataclass(frozen=True)
class AdvectionRecipe(FromSines):
    """Trajectories of u_t + c u_x = D u_xx on a circle, solved exactly.

    The defaults are PDEBench's advection at β = 0.4, without the windows and absolute values that it puts on one
    field in ten.
    """

    outputs: ClassVar = (Variable("concentration", "concentration of a tracer", "1"),)
    conserved: ClassVar = {"concentration": "concentration"}
    symmetries = ("shifts",)
    title = "Advection on a circle: trajectories"
    equation = "u_t + c u_x = D u_xx, periodic"
    references = PDEBENCH
    ranges: ClassVar = {"velocity": "0.1:4:log", "diffusivity": "1e-4:1e-2:log"}

    time: float = 2.0
    interval: float = 0.05
    velocity: float = 0.4
    diffusivity: float = 0.0
    waves: int = 2
    largest: int = 8
    amplitudes: tuple[float, float] = (0.0, 1.0)
    solver_resolution: int = 256

    @property
    def semilinear(self) -> AdvectionDiffusion:
        return AdvectionDiffusion((self.velocity,), self.diffusivity)

    def checks(self, fields: Fields, grid: AbstractGrid) -> list[Check]:
        u = fields["concentration"]
        first = u[:, 0]
        # nodes may miss a crest that later comes upon one
        room = 0.1 * (first.amax(1) - first.amin(1))
        bounds = within("the concentration", u, first.amin(1) - room, first.amax(1) + room)
        return [*super().checks(fields, grid), bounds]
