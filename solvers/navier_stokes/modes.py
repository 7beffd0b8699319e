"""The Fourier modes of a flow on a torus, and its nonlinear term in them."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sobolev.grids.fourier import TorusModes
from sobolev.grids.grid import Grid


class FlowModes(TorusModes):
    """The modes of a vorticity without its mean: ky = −K … K in rows, kx = 0 … K in columns.

    Storing them from −K upwards, rather than in the order of the FFT, turns the field on the nodes
    by a phase e^{iKx} per axis and its square by e^{2iKx}; the square's modes −K … K are then the
    entries K … 3K of its transform, in one piece, since 3K < n. Padding and cutting are slices.
    """

    def __init__(self, grid: Grid, device: torch.device, *, dealiased: bool = True) -> None:
        super().__init__(grid, device, dealiased=dealiased)
        self.Ky, self.Kx = self.cutoffs
        self.ky, self.kx = self.wavenumbers
        self.k2 = self.ky**2 + self.kx**2
        self.inverse_k2 = torch.where(self.k2 > 0, 1 / self.k2.clamp(min=1e-300), 0.0)
        kx = self.kx.expand_as(self.k2)
        ky = self.ky.expand_as(self.k2)
        # u + iv = ψ_y − iψ_x has the modes (iky + kx) ω̂/|k|², where k runs over all signs
        self.to_velocity = torch.complex(kx, ky) * self.inverse_k2
        self.to_opposite_velocity = -self.to_velocity[:, 1:].flip(-2, -1)
        self.to_twice_velocity = 2 * self.to_velocity
        # −(i/4)(kx − i ky)², and the size of the unscaled transform
        scale = -0.25j / (grid.shape[0] * grid.shape[1])
        self.to_advection = torch.complex(kx, -ky) ** 2 * scale

    def transform(self, u: Float[Tensor, "*batch y x"]) -> Complex[Tensor, "*batch ky kx"]:
        """Return the kept modes of a real field; its mean is cleared."""
        return super().transform(u) * (self.k2 > 0)

    def velocity(self, v: Complex[Tensor, "*batch ky kx"]) -> Complex[Tensor, "*batch y x"]:
        """Return u + iv on the nodes."""
        u_modes = v * (1j * self.ky * self.inverse_k2)
        v_modes = v * (-1j * self.kx * self.inverse_k2)
        return torch.complex(self.inverse(u_modes), self.inverse(v_modes))

    def advection_rates(self, v: Complex[Tensor, "*batch ky kx"]) -> Float[Tensor, "*batch"]:
        """Return the largest |u| kx + |v| ky over the nodes of each sample, 0 for those that are lost."""
        speeds = torch.view_as_real(self.velocity(v)).abs()
        rates = speeds[..., 0] * self.kx.amax() + speeds[..., 1] * self.ky.amax()
        return torch.nan_to_num(rates.flatten(-2).amax(dim=-1), 0.0, 0.0, 0.0)

    def advection(self, v: Complex[Tensor, "*batch ky kx"]) -> Complex[Tensor, "*batch ky kx"]:
        """Return −(u·∇ω)^ from the kept modes ``v`` of ω."""
        return self.advection_from(self.padded(v))

    def padded(
        self,
        v: Complex[Tensor, "*batch ky kx"],
        buffer: Complex[Tensor, "*batch y x"] | None = None,
    ) -> Complex[Tensor, "*batch y x"]:
        """Return the modes of u + iv from −K to K in the corner of an array of zeros."""
        if buffer is None:
            buffer = v.new_zeros((*v.shape[:-2], *self.shape))
        rows = 2 * self.Ky + 1
        middle = self.Kx
        buffer[..., :rows, middle : 2 * self.Kx + 1] = v * self.to_velocity
        opposite = v[..., 1:].flip(-2, -1).conj()  # ω̂(−k) = ω̂(k)*
        buffer[..., :rows, :middle] = opposite * self.to_opposite_velocity
        return buffer

    def advection_from(
        self, padded: Complex[Tensor, "*batch y x"]
    ) -> Complex[Tensor, "*batch ky kx"]:
        """Return −(u·∇ω)^ from the padded modes of u + iv."""
        z = torch.fft.ifft2(padded, norm="forward")
        return self.advection_of(z * z)

    def advection_of(
        self, square: Complex[Tensor, "*batch y x"]
    ) -> Complex[Tensor, "*batch ky kx"]:
        """Return −(u·∇ω)^ from z² = (u + iv)² on the nodes; linear in it."""
        squared = torch.fft.fft2(square)[..., self.Ky : 3 * self.Ky + 1, :]
        # u² − v² and 2uv are real: with Z the modes of z², theirs are (Z(k) ± Z(−k)*)/2
        here = squared[..., 2 * self.Kx : 3 * self.Kx + 1]
        opposite = squared[..., self.Kx : 2 * self.Kx + 1].flip(-2, -1)
        return (self.to_advection * opposite).conj().addcmul(self.to_advection, here)

    def advection_pullback(
        self,
        v: Complex[Tensor, "*batch ky kx"],
        cotangent: Complex[Tensor, "*batch ky kx"],
        buffer: Complex[Tensor, "*batch y x"],
        other: Complex[Tensor, "*batch y x"],
    ) -> Complex[Tensor, "*batch ky kx"]:
        """Return the gradient of ⟨cotangent, advection(v)⟩ in ``v``.

        With z = B v and ``advection`` = A(z²) it is 2 Bᵀ(z̄ Aᵀ cotangent), here by complex conjugates, which
        turn Aᵀ into an fft2 and Bᵀ into an ifft2. Both buffers hold zeros outside the places that
        ``padded`` and this write to.
        """
        K, middle = self.Ky, 2 * self.Kx
        z = torch.fft.ifft2(self.padded(v, buffer), norm="forward")
        rows = other[..., K : 3 * K + 1, :]
        rows[..., self.Kx : middle + 1] = (self.to_advection * cotangent).flip(-2, -1)
        here = self.to_advection * cotangent.conj()
        rows[..., middle] += here[..., 0]
        rows[..., middle + 1 : middle + self.Kx + 1] = here[..., 1:]
        square = torch.fft.fft2(other)
        modes = torch.fft.ifft2(square.mul_(z), norm="forward")[..., : 2 * K + 1, :]
        found = (self.to_twice_velocity * modes[..., self.Kx : middle + 1]).conj_physical_()
        opposite = modes[..., : self.Kx].flip(-2, -1)
        found[..., 1:].addcmul_(self.to_twice_velocity[:, 1:], opposite, value=-1)
        return found
