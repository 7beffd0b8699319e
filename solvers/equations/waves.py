"""Waves: the cubic Schrödinger equation and that of Klein and Gordon."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.solvers.integrators import Number
from sobolev.solvers.semilinear import Semilinear
from sobolev.solvers.spaces import Field, Space


class Schroedinger(Semilinear):
    """i h_t + ½ Δh + |h|² h = 0 (focussing), of h = a + i b the channels a and b.

    It conserves ∫|h|² and ∫ ½ |∇h|² − ½ |h|⁴; in one dimension sech(x) e^{it/2} is a solution.
    """

    channels = ("real", "imaginary")

    def symbol(self, eigenvalues: Float[Tensor, "*modes"]) -> Float[Tensor, "2 2 *modes"]:
        """Return the matrices [[0, ½ λ], [−½ λ, 0]]."""
        zero, half = torch.zeros_like(eigenvalues), eigenvalues / 2
        return torch.stack([torch.stack([zero, half]), torch.stack([-half, zero])])

    def nonlinear(self, state: Field, space: Space) -> Field:
        """Return the parts of i |h|² h."""
        a, b = state.unbind(1)
        density = a**2 + b**2
        return torch.stack([-density * b, density * a], dim=1)


class KleinGordon(Semilinear):
    """u_tt = c² Δu − m² u − g u³, as u_t = v and v_t; with m = g = 0 the wave equation.

    It conserves ∫ ½ v² + ½ c² |∇u|² + ½ m² u² + ¼ g u⁴. Walls reflect: where u vanishes with a change of
    sign, where it has no flux without.

    Args:
        speed: c.
        mass: m.
        cubic: g.
    """

    channels = ("u", "v")

    def __init__(
        self,
        speed: Number = 1.0,
        mass: Number = 0.0,
        cubic: Number = 0.0,
    ) -> None:
        self.speed = speed
        self.mass = mass
        self.cubic = cubic

    @property
    def is_linear(self) -> bool:  # type: ignore[override]
        """Whether g is the number 0, of which no gradient is wanted."""
        return not isinstance(self.cubic, Tensor) and self.cubic == 0

    def symbol(self, eigenvalues: Float[Tensor, "*modes"]) -> Float[Tensor, "2 2 *modes"]:
        """Return the matrices [[0, 1], [−c² λ − m², 0]]."""
        zero, one = torch.zeros_like(eigenvalues), torch.ones_like(eigenvalues)
        stiffness = -(self.speed**2) * eigenvalues - self.mass**2
        return torch.stack([torch.stack([zero, one]), torch.stack([stiffness, zero])])

    def nonlinear(self, state: Field, space: Space) -> Field:
        """Return 0 and −g u³."""
        u = state[:, 0]
        return torch.stack([torch.zeros_like(u), -self.cubic * u**3], dim=1)
