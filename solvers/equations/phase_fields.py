"""Phases that separate: Allen–Cahn and Cahn–Hilliard; patterns: Swift–Hohenberg."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from sobolev.solvers.equations.reaction_diffusion import Growth
from sobolev.solvers.integrators import Number
from sobolev.solvers.semilinear import Semilinear
from sobolev.solvers.spaces import Field, InModes, Space


class AllenCahn(Growth):
    """u_t = D Δu + r (u − u³) (Allen & Cahn 1979): u stays within ±1, and ∫ ½ D |∇u|² + ¼ r (1 − u²)² falls.

    Args:
        diffusivity: D.
        rate: r.
    """

    def nonlinear(self, u: Field, space: Space) -> Field:
        """Return −r u³."""
        return -self.rate * u**3


class CahnHilliard(Semilinear):
    """u_t = M Δ(u³ − u − ε² Δu) (Cahn & Hilliard 1958): it keeps ∫u, and ∫ ½ ε² |∇u|² + ¼ (1 − u²)² falls.

    Args:
        width: ε, of an interface.
        mobility: M.
    """

    def __init__(self, width: Number, mobility: Number = 1.0) -> None:
        self.width = width
        self.mobility = mobility

    def symbol(self, eigenvalues: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        """Return M (λ − ε² λ²)."""
        return self.mobility * (eigenvalues - self.width**2 * eigenvalues**2)

    def nonlinear(self, u: Field, space: Space) -> InModes:
        """Return M Δ(u³)."""
        return self.mobility * space.laplacian(u**3)


class SwiftHohenberg(Semilinear):
    """u_t = r u − (k₀² + Δ)² u + g u² − u³ (Swift & Hohenberg 1977): rolls and hexagons of wavenumber k₀.

    Args:
        rate: r.
        quadratic: g.
        wavenumber: k₀.
    """

    def __init__(self, rate: Number, quadratic: Number = 0.0, wavenumber: float = 1.0) -> None:
        self.rate = rate
        self.quadratic = quadratic
        self.wavenumber = wavenumber

    def symbol(self, eigenvalues: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        """Return r − (k₀² − λ)²."""
        return self.rate - (self.wavenumber**2 - eigenvalues) ** 2

    def nonlinear(self, u: Field, space: Space) -> Field:
        """Return u² (g − u)."""
        return u * u * (self.quadratic - u)
