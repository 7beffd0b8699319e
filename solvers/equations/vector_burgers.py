"""The Burgers equation of a velocity, along any number of axes."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from sobolev.solvers.integrators import Number
from sobolev.solvers.semilinear import Semilinear
from sobolev.solvers.spaces import Field, Space


class VectorBurgers(Semilinear):
    """u_t + (u·∇) u = ν Δu of a velocity with one part along each axis.

    Without vorticity it has the solutions u = −2ν ∇ ln φ, φ_t = ν Δφ (Cole 1951, Hopf 1950).

    Args:
        viscosity: ν.
        axes: the names of the grid's axes, ``grid.dims``; the channels are the parts along them, in this
            order.
    """

    def __init__(self, viscosity: Number, axes: tuple[str, ...] = ("y", "x")) -> None:
        self.viscosity = viscosity
        self.axes = tuple(axes)
        self.channels = tuple(f"u_{name}" for name in self.axes)

    def symbol(self, eigenvalues: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        """Return −ν λ."""
        return -self.viscosity * eigenvalues

    def nonlinear(self, state: Field, space: Space) -> Field:
        """Return −Σ u_j ∂u/∂x_j."""
        if space.grid.dims != self.axes:
            raise ValueError(
                f"the velocity has parts along {', '.join(self.axes)}, and the grid the axes "
                f"{', '.join(space.grid.dims)}; use VectorBurgers(viscosity, axes=grid.dims)"
            )
        slopes = zip(state.unbind(1), space.gradient(state), strict=True)
        parts = [speed[:, None] * slope for speed, slope in slopes]
        return -sum(parts[1:], parts[0])
