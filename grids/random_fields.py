"""Gaussian random fields on any grid, each sample from a stream of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.grids.grid import AbstractGrid
from sobolev.grids.streams import stream


class GaussianRandomField:
    """N(0, σ²(−Δ + τ²)^−α) on a grid, by its Karhunen–Loève expansion.

    Every eigenfunction of the grid's Laplacian gets an independent normal coefficient of variance
    σ²(λ + τ²)^−α. The grid's physical length and boundary kind matter: the papers of Li et al.
    write 7^{3/2} for a σ² of 343 and scale differently from script to script (docs/data.md lists
    the conventions).

    Args:
        grid: where the field lives and which boundary condition it obeys.
        alpha: smoothness α; draws lie in H^s for s < α − d/2.
        tau: inverse length scale τ ≥ 0.
        sigma: scale σ (not its square).
        zero_mean: leave out the constant mode (periodic and Neumann grids).

    >>> from sobolev.solvers import Grid
    >>> field = GaussianRandomField(Grid.periodic(64), alpha=2.0, tau=5.0, sigma=25.0)
    >>> field.sample(3, seed=1).shape
    torch.Size([3, 64])
    """

    def __init__(
        self,
        grid: AbstractGrid,
        alpha: float,
        tau: float,
        sigma: float = 1.0,
        zero_mean: bool = True,
    ) -> None:
        if not (tau >= 0 and sigma > 0 and math.isfinite(alpha)):
            raise ValueError(
                f"need tau >= 0, sigma > 0 and a finite alpha, got {tau=}, {sigma=}, {alpha=}"
            )
        self.grid = grid
        self.alpha = alpha
        self.tau = tau
        self.sigma = sigma
        self.zero_mean = zero_mean
        constant = grid.eigenvalues() == 0
        if tau == 0 and not zero_mean and bool(constant.any()):
            raise ValueError(
                "tau=0 gives the constant mode infinite variance; use zero_mean=True or tau > 0"
            )

    def standard_deviations(self, device: torch.device | str = "cpu") -> Float[Tensor, "*modes"]:
        """Return the standard deviation of each mode's coefficient, in float64."""
        eigenvalues = self.grid.eigenvalues(device)
        scale = self.sigma * (eigenvalues + self.tau**2) ** (-self.alpha / 2)
        if not self.zero_mean:
            return scale
        return torch.where(eigenvalues == 0, torch.zeros_like(scale), scale)

    def sample(
        self, count: int, seed: int = 0, *, device: torch.device | str = "cpu"
    ) -> Float[Tensor, " count *space"]:
        """Return ``count`` fields, in float64; field i depends on ``(seed, i)``
        alone."""
        if count < 0:
            raise ValueError(f"count must not be negative, got {count}")
        return self.draw([stream(seed, i) for i in range(count)], device=device)

    def draw(
        self, streams: Sequence[np.random.Generator], *, device: torch.device | str = "cpu"
    ) -> Float[Tensor, " stream *space"]:
        """Return one field from each random stream, in float64."""
        if not streams:
            return torch.empty(0, *self.grid.shape, dtype=torch.float64, device=device)
        noise = np.empty((len(streams), *self.grid.mode_shape))
        for target, generator in zip(noise, streams, strict=True):
            generator.standard_normal(out=target)
        coefficients = torch.from_numpy(noise).to(device) * self.standard_deviations(device)
        return self.grid.from_modes(coefficients)
