"""The fast Poisson solve by sines."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.grids.grid import Grid


class FastPoisson:
    """(−Δ)⁻¹ on the inner nodes: sines diagonalise the five-point matrix, with eigenvalues (2
    sin(kh/2)/h)².

    The sine transforms are matrix products in float32, cheaper at 421² than FFTs of odd extensions
    in float64 (``benchmarks/darcy_solver.py`` times both). Conjugate gradients ask of a
    preconditioner that it be symmetric and fixed, not that it be precise.
    """

    def __init__(self, grid: Grid, device: torch.device) -> None:
        bases = (axis.basis(axis.points(device))[:, 1:-1] * axis.spacing**0.5 for axis in grid.axes)
        self.sines = [values.float() for values in bases]
        self.eigenvalues = five_point_eigenvalues(grid, device).float()

    def __call__(
        self, f: Float[Tensor, "batch inner_y inner_x"]
    ) -> Float[Tensor, "batch inner_y inner_x"]:
        Sy, Sx = self.sines
        # scaled, so that small residuals stay within float32's range; a residual of zero stays zero
        scale = f.abs().amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(f.dtype).tiny)
        modes = Sy @ (f / scale).float() @ Sx / self.eigenvalues
        return (Sy @ modes @ Sx).double() * scale


def five_point_eigenvalues(grid: Grid, device: torch.device) -> Float[Tensor, "mode_y mode_x"]:
    """Return (2 sin(kh/2)/h)², summed over the axes: those of the five-point −Δ, float64."""
    y, x = (
        (2 / axis.spacing * (axis.wavenumbers(device) * axis.spacing / 2).sin()).square()
        for axis in grid.axes
    )
    return y[:, None] + x
