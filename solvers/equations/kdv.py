"""The Korteweg–de Vries equation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.solvers.integrators import Number
from sobolev.solvers.semilinear import Semilinear
from sobolev.solvers.spaces import Field, InModes, Space


class KdV(Semilinear):
    """u_t + u u_x + δ u_xxx = 0 on a circle (Korteweg & de Vries 1895; Zabusky & Kruskal, PRL 1965, has
    δ = 0.022²).

    It conserves ∫u, ∫u² and ∫(u³/3 − δ u_x²); a soliton of speed c is 3c sech²(√(c/δ) (x − ct) / 2).

    Args:
        dispersion: δ, a number or a tensor that may want gradients.
    """

    def __init__(self, dispersion: Number) -> None:
        self.delta = dispersion

    def symbol(self, eigenvalues: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        """Return 0: what is linear is of odd order."""
        return torch.zeros_like(eigenvalues)

    def dispersion(self, *wavenumbers: Float[Tensor, " ..."]) -> Float[Tensor, " k"]:
        """Return δ k³."""
        if len(wavenumbers) != 1:
            raise ValueError(f"KdV lives on one axis, the grid has {len(wavenumbers)}")
        return self.delta * wavenumbers[0] ** 3

    def nonlinear(self, u: Field, space: Space) -> InModes:
        """Return −½ (u²)_x."""
        return space.divergence(-0.5 * u * u)
