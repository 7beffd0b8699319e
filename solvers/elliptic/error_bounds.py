"""Norms and guaranteed bounds of the error of a pressure."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.grids.grid import Grid
from sobolev.solvers.elliptic.fast_poisson import five_point_eigenvalues
from sobolev.solvers.elliptic.stiffness import Stiffness
from sobolev.solvers.inner_products import dot


def energy_norm(
    u: Float[Tensor, "#batch y x"], A: Stiffness, grid: Grid
) -> Float[Tensor, " batch"]:
    """Return (uᵀA u)^½ as an integral, of fields that vanish on the border."""
    inner = u[:, 1:-1, 1:-1]
    cell = math.prod(axis.spacing for axis in grid.axes)
    return (cell * dot(A(inner), inner)).sqrt()


def residual_bound(
    residual: Float[Tensor, "batch y x"], A: Stiffness, grid: Grid
) -> Float[Tensor, " batch"]:
    """Return a guaranteed upper bound of the energy norm of A⁻¹ r for the residual r.

    It is the norm (Σ_faces τ²/a)^½ of the flux τ = ∇ψ with −Δ_h ψ = r, which sines solve exactly
    (``Darcy.error_bound`` says why it bounds).
    """
    eigenvalues = five_point_eigenvalues(grid, residual.device)
    psi = grid.from_modes(grid.to_modes(residual) / eigenvalues)
    hy, hx = A.spacings
    south = (psi[:, 1:, 1:-1] - psi[:, :-1, 1:-1]).square() / (hy**4 * A.north_south)
    east = (psi[:, 1:-1, 1:] - psi[:, 1:-1, :-1]).square() / (hx**4 * A.west_east)
    return (hy * hx * (south.flatten(1).sum(1) + east.flatten(1).sum(1))).sqrt()


def relative_to_solution(
    bound: Float[Tensor, " batch"], size: Float[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return the largest ‖u − p‖ / ‖u‖ that ‖u − p‖ ≤ ``bound`` allows, where ``size`` is ‖p‖.

    ‖u‖ is at least size − bound: infinite where that is not positive; 0 where there is no error.
    """
    share = torch.where(bound < size, bound / (size - bound), torch.inf)
    return torch.where(bound == 0, 0.0, share)
