"""The five-point matrix of Darcy flow."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import pad

from sobolev.grids.grid import Grid
from sobolev.solvers.elliptic.stencils import Stencil


class Stiffness:
    """The five-point matrix of −∇·(a ∇·) on the inner nodes, as an action on ``(batch, y, x)``.

    Fluxes are a times differences of u: where a is large u is nearly constant, and the product keeps
    its digits, which an assembled diagonal would not.
    """

    def __init__(self, a: Float[Tensor, "batch y x"], grid: Grid) -> None:
        hy, hx = (axis.spacing for axis in grid.axes)
        self.spacings = (hy, hx)
        self.north_south = (a[:, 1:, 1:-1] + a[:, :-1, 1:-1]) / (2 * hy**2)
        self.west_east = (a[:, 1:-1, 1:] + a[:, 1:-1, :-1]) / (2 * hx**2)

    def __call__(
        self, u: Float[Tensor, "#batch inner_y inner_x"]
    ) -> Float[Tensor, "batch inner_y inner_x"]:
        u = pad(u, (1, 1, 1, 1))
        south = (u[:, :-1, 1:-1] - u[:, 1:, 1:-1]) * self.north_south
        east = (u[:, 1:-1, :-1] - u[:, 1:-1, 1:]) * self.west_east
        return (south[:, 1:] - south[:, :-1]).add_(east[..., 1:]).sub_(east[..., :-1])

    def least_face(self) -> Float[Tensor, " batch"]:
        """Return the least coefficient of a face of each sample: A ≥ least · (−Δ_h)."""
        hy, hx = self.spacings
        north_south = self.north_south.flatten(1).amin(1) * hy**2
        west_east = self.west_east.flatten(1).amin(1) * hx**2
        return torch.minimum(north_south, west_east)

    def rounding(
        self, u: Float[Tensor, "batch inner_y inner_x"]
    ) -> Float[Tensor, "batch inner_y inner_x"]:
        """Return ε |A| |u|, the most that A u may change at each node when ``u`` is rounded."""
        u = pad(u.abs(), (1, 1, 1, 1))
        south = (u[:, 1:, 1:-1] + u[:, :-1, 1:-1]) * self.north_south
        east = (u[:, 1:-1, 1:] + u[:, 1:-1, :-1]) * self.west_east
        total = south[:, 1:] + south[:, :-1] + east[..., 1:] + east[..., :-1]
        return torch.finfo(u.dtype).eps * total

    def links(self) -> tuple[Stencil, Float[Tensor, "batch inner_y inner_x"]]:
        """Return the links between inner nodes by displacement, and the excess: the links to the border."""
        north = self.north_south[:, :-1].clone()
        south = self.north_south[:, 1:].clone()
        west = self.west_east[..., :-1].clone()
        east = self.west_east[..., 1:].clone()
        excess = torch.zeros_like(north)
        for border, link in (
            ((slice(None), 0), north),
            ((slice(None), -1), south),
            ((..., 0), west),
            ((..., -1), east),
        ):
            excess[border] += link[border]
            link[border] = 0
        return {(-1, 0): north, (1, 0): south, (0, -1): west, (0, 1): east}, excess


def check_permeability(permeability: Shaped[Tensor, " ..."], grid: Grid) -> None:
    """Refuse what is no batch of positive fields on a grid of two Dirichlet axes."""
    if grid.ndim != 2 or any(axis.boundary != "dirichlet" for axis in grid.axes):
        raise ValueError(
            f"Darcy is solved on two Dirichlet axes (Grid.dirichlet(ny, nx)), got {grid}"
        )
    grid.check(permeability)
    if permeability.ndim != 3 or not len(permeability):
        raise ValueError(
            f"expected permeabilities of shape (batch, y, x), got {tuple(permeability.shape)}"
        )
    good = (permeability.isfinite() & (permeability > 0)).flatten(1).all(dim=1)
    if not bool(good.all()):
        first = int((~good).nonzero()[0, 0])
        raise ValueError(
            f"the permeability must be positive and finite; {int((~good).sum())} of {len(good)} fields are not, the "
            f"first is number {first} (least value {float(permeability[first].min()):.3g})"
        )
