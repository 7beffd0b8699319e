"""Complex Fourier modes of real fields on a torus, up to a cutoff."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sobolev.grids.grid import AbstractGrid, Grid


class TorusModes:
    """The modes k = 0 … K along the last axis, and −K … K, in this order, along the others.

    Those of the last axis with k < 0 follow from û(−k) = û(k)*. Modes are scaled like means over the
    nodes: û(0) is the mean of u.

    Args:
        grid: periodic axes.
        device: where the wavenumbers lie.
        dealiased: keep the modes of the 2/3 rule, K = (n − 1)//3, so that the product of two fields
            is free of aliasing; else all but the Nyquist modes, K = (n − 1)//2.

    >>> grid = Grid.periodic(8, length=2 * math.pi)
    >>> modes = TorusModes(grid, torch.device("cpu"))
    >>> modes.wavenumbers[0].tolist()
    [0.0, 1.0, 2.0]
    >>> modes.transform(grid.points()[0].cos()).abs().round(decimals=12).tolist()
    [0.0, 0.5, 0.0]

    Raises:
        ValueError: if an axis is not periodic.
    """

    def __init__(self, grid: AbstractGrid, device: torch.device, *, dealiased: bool = True) -> None:
        if not isinstance(grid, Grid) or any(axis.boundary != "periodic" for axis in grid.axes):
            raise ValueError(f"Fourier modes are those of periodic axes, got {grid}")
        self.grid = grid
        self.shape = grid.shape
        self.cutoffs = tuple((n - 1) // (3 if dealiased else 2) for n in grid.shape)
        self._dims = tuple(range(-grid.ndim, 0))
        self._outer_axes = list(zip(self._dims, self.cutoffs, self.shape, strict=True))[:-1]
        self.wavenumbers = self._wavenumbers(device)
        """Angular wavenumbers along each axis, in float64, each of a shape that broadcasts to modes."""

    def _wavenumbers(self, device: torch.device) -> tuple[Float[Tensor, " ..."], ...]:
        found = []
        for dim, axis, K in zip(self._dims, self.grid.axes, self.cutoffs, strict=True):
            first = 0 if dim == -1 else -K
            whole = torch.arange(first, K + 1, dtype=torch.float64, device=device)
            found.append((2 * math.pi / axis.length * whole).reshape(-1, *[1] * (-1 - dim)))
        return tuple(found)

    def transform(
        self, u: Float[Tensor, "*batch_and_space"]
    ) -> Complex[Tensor, "*batch_and_modes"]:
        """Return the modes of real fields; along each axis only those that the axes before it have kept are
        transformed."""
        v = torch.fft.rfft(u, norm="forward").narrow(-1, 0, self.cutoffs[-1] + 1)
        for dim, K, _ in reversed(self._outer_axes):
            v = torch.fft.fft(v, dim=dim, norm="forward")
            negative = v.narrow(dim, v.shape[dim] - K, K)
            v = torch.cat([negative, v.narrow(dim, 0, K + 1)], dim=dim)
        return v

    def inverse(self, v: Complex[Tensor, "*batch_and_modes"]) -> Float[Tensor, "*batch_and_space"]:
        """Return the real fields of modes."""
        for dim, K, n in self._outer_axes:
            cut_off = list(v.shape)
            cut_off[dim] = n - (2 * K + 1)
            parts = [v.narrow(dim, K, K + 1), v.new_zeros(cut_off), v.narrow(dim, 0, K)]
            v = torch.fft.ifft(torch.cat(parts, dim=dim), dim=dim, norm="forward")
        return torch.fft.irfft(v, n=self.shape[-1], norm="forward")
