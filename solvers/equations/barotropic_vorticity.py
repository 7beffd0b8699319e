"""The barotropic vorticity of a rotating planet."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from sobolev.grids.sphere import SphereGrid
from sobolev.solvers.integrators import Number
from sobolev.solvers.semilinear import Semilinear
from sobolev.solvers.spaces import Field, InModes, Space


class BarotropicVorticity(Semilinear):
    """ζ_t + J(ψ, ζ + 2Ω sin φ) = −ν (−Δ)^p ζ with Δψ = ζ, on a sphere (Rossby 1939, Charney et al. 1950).

    Without viscosity it keeps ∫ζ² and the energy, and the waves of Rossby and Haurwitz (1940) turn without
    a change of shape.

    Args:
        rotation: Ω.
        viscosity: ν.
        power: p, 1 for viscosity, more for hyperviscosity.
    """

    def __init__(self, rotation: Number, viscosity: Number = 0.0, power: int = 1) -> None:
        self.rotation = rotation
        self.viscosity = viscosity
        self.power = power

    def symbol(self, eigenvalues: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        """Return −ν λ^p."""
        return -self.viscosity * eigenvalues**self.power

    def nonlinear(self, vorticity: Field, space: Space) -> InModes:
        """Return −J(ψ, ζ + 2Ω sin φ)."""
        if not isinstance(space.grid, SphereGrid):
            raise ValueError(
                "BarotropicVorticity lives on a SphereGrid; on a plane use NavierStokes"
            )
        latitude = space.grid.points(vorticity.device)[0][:, None]
        return -space.transport(vorticity, vorticity + 2 * self.rotation * latitude.sin())
