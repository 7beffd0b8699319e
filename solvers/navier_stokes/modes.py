"""The Fourier modes of a flow on a torus, and its nonlinear term in them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sobolev.grids.grid import Grid


class FlowModes:
    """The Fourier modes that the 2/3 rule keeps, or all but the Nyquist modes for linear maps: ky =
    −K … K in rows, kx = 0 … K in columns.

    Storing them from −K upwards, rather than in the order of the FFT, turns the field on the nodes
    by a phase e^{−iKx} per axis and its square by e^{−2iKx}; the square's modes −K … K are then the
    entries K … 3K of its transform, in one piece, since 3K < n. Padding and cutting are slices.
    """

    def __init__(self, grid: Grid, device: torch.device, *, dealiased: bool = True) -> None:
        self.grid = grid
        self.shape = grid.shape
        self.Ky, self.Kx = ((n - 1) // (3 if dealiased else 2) for n in grid.shape)
        base_y, base_x = (2 * math.pi / axis.length for axis in grid.axes)
        integers = torch.arange(-max(self.Ky, self.Kx), max(self.Ky, self.Kx) + 1, device=device)
        whole = integers.double()
        self.ky = base_y * whole[integers.abs() <= self.Ky][:, None]
        self.kx = base_x * whole[(integers >= 0) & (integers <= self.Kx)]
        self.k2 = self.ky**2 + self.kx**2
        self.inverse_k2 = torch.where(self.k2 > 0, 1 / self.k2.clamp(min=1e-300), 0.0)
        self.to_velocity = torch.complex(self.kx.expand_as(self.k2), self.ky.expand_as(self.k2))
        self.to_velocity = self.to_velocity * self.inverse_k2
        self.to_opposite_velocity = -self.to_velocity[:, 1:].flip(-2, -1)
        # −(i/4)(kx − i ky)², and the size of the unscaled transform
        to_advection = torch.complex(self.kx.expand_as(self.k2), -self.ky.expand_as(self.k2)) ** 2
        self.to_advection = to_advection * (-0.25j / (grid.shape[0] * grid.shape[1]))
        self.mean = (self.Ky, 0)

    def transform(self, u: Tensor) -> Tensor:
        """Kept modes of a real field, ``(..., y, x) -> (..., 2K + 1, K + 1)``; the mean is cleared."""
        full = torch.fft.rfft2(u, norm="forward")[..., : self.Kx + 1]
        kept = torch.cat([full[..., -self.Ky :, :], full[..., : self.Ky + 1, :]], dim=-2)
        return kept * (self.k2 > 0)

    def inverse(self, v: Tensor) -> Tensor:
        """The real field of kept modes."""
        ny, nx = self.shape
        full = v.new_zeros((*v.shape[:-2], ny, nx // 2 + 1))
        full[..., : self.Ky + 1, : self.Kx + 1] = v[..., self.Ky :, :]
        full[..., ny - self.Ky :, : self.Kx + 1] = v[..., : self.Ky, :]
        return torch.fft.irfft2(full, s=self.shape, norm="forward")

    def velocity(self, v: Tensor) -> Tensor:
        """u + iv on the nodes."""
        u_modes = v * (1j * self.ky * self.inverse_k2)
        v_modes = v * (-1j * self.kx * self.inverse_k2)
        return torch.complex(self.inverse(u_modes), self.inverse(v_modes))

    def advection_rates(self, v: Tensor) -> Tensor:
        """The largest |u| kx + |v| ky over the nodes of each sample, 0 for those that are lost."""
        z = torch.view_as_real(self.velocity(v)).abs()
        fastest = (z[..., 0] * self.kx.amax() + z[..., 1] * self.ky.amax()).flatten(-2).amax(dim=-1)
        return torch.nan_to_num(fastest, 0.0, 0.0, 0.0)

    def advection(self, v: Tensor) -> Tensor:
        """−(u·∇ω)^ from the kept modes ``v`` of ω."""
        return self.advection_from(self.padded(v))

    def padded(self, v: Tensor, buffer: Tensor | None = None) -> Tensor:
        """The modes of u + iv from −K to K in the corner of an array of zeros."""
        if buffer is None:
            buffer = v.new_zeros((*v.shape[:-2], *self.shape))
        rows, middle, columns = 2 * self.Ky + 1, self.Kx, 2 * self.Kx + 1
        buffer[..., :rows, middle:columns] = v * self.to_velocity
        opposite = v[..., 1:].flip(-2, -1).conj()  # ω̂(−k) = ω̂(k)*
        buffer[..., :rows, :middle] = opposite * self.to_opposite_velocity
        return buffer

    def advection_from(self, padded: Tensor) -> Tensor:
        """Transform, square, transform back, and take the modes of the two real products apart."""
        z = torch.fft.ifft2(padded, norm="forward")
        return self.advection_of(z * z)

    def advection_of(self, square: Tensor) -> Tensor:
        """−(u·∇ω)^ from z² on the nodes; linear in it."""
        squared = torch.fft.fft2(square)[..., self.Ky : 3 * self.Ky + 1, :]
        here = squared[..., 2 * self.Kx : 3 * self.Kx + 1]
        opposite = squared[..., self.Kx : 2 * self.Kx + 1].flip(-2, -1)
        return (self.to_advection * opposite).conj().addcmul(self.to_advection, here)
