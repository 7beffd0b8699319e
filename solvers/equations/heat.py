"""The heat equation, and advection with it."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from sobolev.solvers.integrators import Number, as_number
from sobolev.solvers.semilinear import Semilinear


class Heat(Semilinear):
    """u_t = D Δu, solved exactly on every grid.

    Args:
        diffusivity: D ≥ 0, a number or a tensor that may want gradients.
    """

    def __init__(self, diffusivity: Number) -> None:
        if not 0 <= as_number(diffusivity) < math.inf:
            raise ValueError(f"the diffusivity must be finite and not negative, got {diffusivity}")
        self.diffusivity = diffusivity

    def symbol(self, eigenvalues: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        """Return −D λ."""
        return -self.diffusivity * eigenvalues


class AdvectionDiffusion(Heat):
    """u_t + c·∇u = D Δu on periodic axes, solved exactly.

    Args:
        velocity: c, one number for each axis.
        diffusivity: D ≥ 0.
    """

    def __init__(self, velocity: tuple[float, ...], diffusivity: Number = 0.0) -> None:
        super().__init__(diffusivity)
        self.velocity = velocity

    def dispersion(self, *wavenumbers: Float[Tensor, " ..."]) -> Float[Tensor, "*modes"]:
        """Return −c·k."""
        if len(self.velocity) != len(wavenumbers):
            raise ValueError(
                f"the velocity has {len(self.velocity)} parts, and the grid {len(wavenumbers)} axes"
            )
        parts = [-c * k for c, k in zip(self.velocity, wavenumbers, strict=True)]
        return sum(parts[1:], parts[0])
