"""Norms and guaranteed bounds of the error of a pressure."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.solvers.elliptic.fast_poisson import poisson
from sobolev.solvers.elliptic.stiffness import Stiffness


def residual_bound(
    residual: Float[Tensor, " batch *inner"], A: Stiffness
) -> Float[Tensor, " batch"]:
    """Return a guaranteed upper bound of the energy norm of A⁻¹ r for the residual r.

    It is the norm (Σ_faces τ²/a)^½ of the flux τ = W ∇ψ with −∇·(W ∇ψ) = r, which the modes of the grid
    solve exactly (``Darcy.error_bound`` says why it bounds).
    """
    psi = poisson(A.nodes.with_walls(residual), A.nodes.grid, A.weights)
    return A.dual_energy(psi).sqrt()


def relative_to_solution(
    bound: Float[Tensor, " batch"], size: Float[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return the largest ‖u − p‖ / ‖u‖ that ‖u − p‖ ≤ ``bound`` allows, where ``size`` is ‖p‖.

    ‖u‖ is at least size − bound: infinite where that is not positive; 0 where there is no error.
    """
    share = torch.where(bound < size, bound / (size - bound), torch.inf)
    return torch.where(bound == 0, 0.0, share)
