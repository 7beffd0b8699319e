"""Flame fronts: chaos in one dimension and in two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from sobolev.datasets.recipes.base import LPSDA
from sobolev.datasets.recipes.semilinear import FromRandomFields, FromSines
from sobolev.grids.variables import Variable
from sobolev.solvers import KuramotoSivashinsky


@dataclass(frozen=True)
class KuramotoSivashinskyRecipe(FromSines):
    """Trajectories of u_t + u u_x + u_xx + u_xxxx = 0 on a circle.

    Length and initial fields are those of Brandstetter et al. (2022), whose released code draws wavenumbers 1 and 2
    where the paper prints 1 to 3; the interval is PDE-Refiner's.
    """

    outputs: ClassVar = (Variable("slope", "slope of the flame front", "1"),)
    conserved: ClassVar = {"slope": "slope"}
    symmetries = ("odd reflection", "shifts")
    chaotic = True
    title = "The Kuramoto–Sivashinsky equation on a circle: trajectories"
    equation = "u_t + u u_x + u_xx + u_xxxx = 0, periodic"
    references = f"{LPSDA}; Lippe et al., PDE-Refiner, NeurIPS 2023, arXiv:2308.05732"

    length: float = 64.0
    time: float = 40.0
    interval: float = 0.2
    step: float = 0.05
    solver_resolution: int = 256

    @property
    def semilinear(self) -> KuramotoSivashinsky:
        return KuramotoSivashinsky()


@dataclass(frozen=True)
class FlameFrontRecipe(FromRandomFields):
    """Trajectories of u_t + ½ |∇u|² + Δu + Δ²u = 0 on a torus of side 20π, on which ten of the waves that
    neither grow nor decay fit."""

    outputs: ClassVar = (Variable("height", "height of the flame front", "1"),)
    domains: ClassVar = ("periodic",)
    dimensions: ClassVar = (2,)
    chaotic = True
    title = "The Kuramoto–Sivashinsky equation on a torus: trajectories"
    equation = "u_t + ½ |∇u|² + Δu + Δ²u = 0, periodic"
    references = (
        "Kalogirou, Keaveny & Papageorgiou, Proc. R. Soc. A 471, 2015, doi:10.1098/rspa.2014.0932"
    )

    length: float = 20 * math.pi
    tau: float = 0.5
    time: float = 20.0
    interval: float = 0.5
    step: float = 0.05
    solver_resolution: int = 128
    stored_resolution: int | None = 64

    @property
    def semilinear(self) -> KuramotoSivashinsky:
        return KuramotoSivashinsky()
