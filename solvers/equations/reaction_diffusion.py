"""Reactions of substances that diffuse."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.solvers.integrators import Number
from sobolev.solvers.semilinear import Semilinear
from sobolev.solvers.spaces import Field, Space


class Growth(Semilinear):
    """u_t = D Δu + r u + N(u).

    Args:
        diffusivity: D.
        rate: r.
    """

    def __init__(self, diffusivity: Number, rate: Number = 1.0) -> None:
        self.diffusivity = diffusivity
        self.rate = rate

    def symbol(self, eigenvalues: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        """Return r − D λ."""
        return self.rate - self.diffusivity * eigenvalues


class FisherKPP(Growth):
    """u_t = D Δu + r u (1 − u) (Fisher 1937; Kolmogorov, Petrovsky & Piskunov 1937): fronts of speed 2√(rD).

    Args:
        diffusivity: D.
        rate: r.
    """

    def nonlinear(self, u: Field, space: Space) -> Field:
        """Return −r u²."""
        return -self.rate * u**2


class GrayScott(Semilinear):
    """u_t = D_u Δu − u v² + F (1 − u), v_t = D_v Δv + u v² − (F + k) v (Gray & Scott 1983; Pearson, Science
    1993, whose patterns live on a square of side 2.5 with the default diffusivities).

    Args:
        feed: F.
        kill: k.
        diffusivities: D_u and D_v.
    """

    channels = ("u", "v")

    def __init__(
        self,
        feed: Number,
        kill: Number,
        diffusivities: tuple[Number, Number] = (2e-5, 1e-5),
    ) -> None:
        self.feed = feed
        self.kill = kill
        self.diffusivities = diffusivities

    def symbol(self, eigenvalues: Float[Tensor, "*modes"]) -> Float[Tensor, " 2 *modes"]:
        """Return −D_u λ − F and −D_v λ − F − k."""
        fast, slow = self.diffusivities
        return torch.stack(
            [-fast * eigenvalues - self.feed, -slow * eigenvalues - self.feed - self.kill]
        )

    def nonlinear(self, state: Field, space: Space) -> Field:
        """Return F − u v² and u v²."""
        u, v = state.unbind(1)
        reaction = u * v**2
        return torch.stack([self.feed - reaction, reaction], dim=1)


class FitzHughNagumo(Semilinear):
    """u_t = D Δu + u − u³/3 − w, w_t = ε (u + a − b w) (FitzHugh 1961, Nagumo et al. 1962): an excitable
    membrane.

    Args:
        diffusivity: D.
        rate: ε, of the recovery.
        offset: a.
        decay: b.
    """

    channels = ("u", "w")

    def __init__(
        self,
        diffusivity: Number,
        rate: Number = 0.08,
        offset: Number = 0.7,
        decay: Number = 0.8,
    ) -> None:
        self.diffusivity = diffusivity
        self.rate = rate
        self.offset = offset
        self.decay = decay

    def symbol(self, eigenvalues: Float[Tensor, "*modes"]) -> Float[Tensor, " 2 *modes"]:
        """Return 1 − D λ and −ε b: what couples the two is not stiff."""
        membrane = 1 - self.diffusivity * eigenvalues
        return torch.stack([membrane, -self.rate * self.decay * torch.ones_like(eigenvalues)])

    def nonlinear(self, state: Field, space: Space) -> Field:
        """Return −u³/3 − w and ε (u + a)."""
        u, w = state.unbind(1)
        return torch.stack([-(u**3) / 3 - w, self.rate * (u + self.offset)], dim=1)
