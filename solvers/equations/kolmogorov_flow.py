"""Kolmogorov's flow."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from sobolev.grids.grid import Grid
from sobolev.solvers.integrators import Number
from sobolev.solvers.semilinear import Semilinear
from sobolev.solvers.spaces import Field, InModes, Space


class KolmogorovFlow(Semilinear):
    """ω_t + u·∇ω = ν Δω − μ ω − a κ cos(κ y), the vorticity of a flow that a force a sin(κ y) drives along x,
    κ = 2π n / L_y (Meshalkin & Sinai 1961). On two periodic axes y and x.

    Its laminar flow is ω = −a κ cos(κ y) / (ν κ² + μ). ``NavierStokes`` solves the same with any force, in half
    the time.

    Args:
        viscosity: ν.
        waves: n, the force's waves along y.
        drag: μ.
        amplitude: a.
    """

    def __init__(
        self, viscosity: Number, waves: int = 4, drag: Number = 0.0, amplitude: Number = 1.0
    ) -> None:
        self.viscosity = viscosity
        self.waves = waves
        self.drag = drag
        self.amplitude = amplitude

    def symbol(self, eigenvalues: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        """Return −ν λ − μ."""
        return -self.viscosity * eigenvalues - self.drag

    def nonlinear(self, w: Field, space: Space) -> InModes:
        """Return −∇·(u ω) − a κ cos(κ y)."""
        if not isinstance(space.grid, Grid):
            raise ValueError("KolmogorovFlow lives on two periodic axes; use BarotropicVorticity")
        advected = space.transport(w, w)
        y = space.grid.points(w.device)[0][:, None]
        k = 2 * math.pi * self.waves / space.grid.axes[0].length
        force = (self.amplitude * k * (k * y).cos()).expand(space.grid.shape)
        return -(advected + InModes(space.to_modes(force)))
