"""The Kuramoto–Sivashinsky equation."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from sobolev.solvers.semilinear import Semilinear
from sobolev.solvers.spaces import Field, InModes, Space


class KuramotoSivashinsky(Semilinear):
    """u_t + u u_x + u_xx + u_xxxx = 0 on a circle, for the slope of a flame front; on a torus of more axes
    u_t + ½ |∇u|² + Δu + Δ²u = 0, for its height (Kuramoto 1978, Sivashinsky 1977).

    Chaotic on circles longer than about 20. The slope keeps ∫u.
    """

    def symbol(self, eigenvalues: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        """Return λ − λ²."""
        return eigenvalues - eigenvalues**2

    def nonlinear(self, u: Field, space: Space) -> Field | InModes:
        """Return −½ (u²)_x, or −½ |∇u|²."""
        if space.ndim == 1:
            return space.divergence(-0.5 * u * u)
        parts = [part**2 for part in space.gradient(u)]
        return -0.5 * sum(parts[1:], parts[0])
