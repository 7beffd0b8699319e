"""The fast Poisson solve by the modes of the grid."""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.grids.grid import Grid
from sobolev.solvers.elliptic.unknowns import Unknowns


class FastPoisson:
    """(−Δ)⁻¹ on the unknowns, or (−∇·W∇)⁻¹ with a weight for each axis of each sample.

    The modes of the grid (sines, cosines, Fourier modes) diagonalise its difference matrix, with
    eigenvalues (2 sin(kh/2)/h)². Where no wall holds the pressure, constants go to zero.

    The transforms are matrix products in float32, cheaper at 421² than FFTs of odd extensions
    in float64 (``benchmarks/darcy_solver.py`` times both). Conjugate gradients ask of a
    preconditioner that it be symmetric and fixed, not that it be precise.
    """

    def __init__(
        self,
        grid: Grid,
        device: torch.device,
        weights: Float[Tensor, "batch axes"] | None = None,
    ) -> None:
        nodes = Unknowns(grid)
        self.bases = []
        for axis, walled in zip(grid.axes, nodes.walled, strict=True):
            values = axis.basis(axis.points(device)) * axis.spacing**0.5
            self.bases.append((values[:, 1:-1] if walled else values).float())
        self.eigenvalues = difference_eigenvalues(grid, device, weights).float()

    def __call__(self, f: Float[Tensor, " batch *inner"]) -> Float[Tensor, " batch *inner"]:
        # scaled, so that small residuals stay within float32's range; a residual of zero stays zero
        space = tuple(range(1, f.ndim))
        scale = f.abs().amax(dim=space, keepdim=True)
        scale = scale.clamp(min=torch.finfo(f.dtype).tiny)
        modes = torch.div(f, scale, out=torch.empty_like(f, dtype=torch.float32))
        for i, basis in enumerate(self.bases):
            modes = _along(i + 1, basis, modes)
        modes /= self.eigenvalues
        for i, basis in enumerate(self.bases):
            modes = _along(i + 1, basis.T, modes)
        return modes * scale  # in float64


def poisson(
    f: Float[Tensor, " batch *space"],
    grid: Grid,
    weights: Float[Tensor, "batch axes"] | None = None,
) -> Float[Tensor, " batch *space"]:
    """Return (−∇·W∇)⁻¹ f likewise, to the precision of ``f``: by FFTs, fields on all nodes."""
    return grid.from_modes(grid.to_modes(f) / difference_eigenvalues(grid, f.device, weights))


def difference_eigenvalues(
    grid: Grid, device: torch.device, weights: Float[Tensor, "batch axes"] | None = None
) -> Float[Tensor, "*batch_and_modes"]:
    """Return (2 sin(kh/2)/h)², summed over the axes by their weights: those of the difference matrix,
    float64; infinite for the constant, which has no inverse."""
    lines = []
    for i, axis in enumerate(grid.axes):
        line = 2 / axis.spacing * (axis.wavenumbers(device) * axis.spacing / 2).sin()
        line = line.square().view(-1, *[1] * (grid.ndim - 1 - i))
        each = (-1, *[1] * grid.ndim)
        lines.append(line if weights is None else weights[:, i].view(each) * line)
    eigenvalues = functools.reduce(torch.add, lines)
    return eigenvalues.masked_fill(eigenvalues == 0, torch.inf)


def _along(
    dim: int, matrix: Float[Tensor, "n m"], t: Float[Tensor, " batch *from_space"]
) -> Float[Tensor, " batch *to_space"]:
    """Return the matrix products with the lines of ``t`` along ``dim``."""
    if dim == t.ndim - 1:
        return t @ matrix.T
    product = matrix @ t.flatten(dim + 1)
    return product.view(*t.shape[:dim], len(matrix), *t.shape[dim + 1 :])
