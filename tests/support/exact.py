"""Exact solutions that the solvers are held against."""

from __future__ import annotations

import torch
from torch import Tensor

from sobolev import Grid


def cole_hopf(initial: Tensor, viscosity: float, time: float, grid: Grid) -> Tensor:
    """Burgers' solution u = −2ν φ_x/φ with φ_t = ν φ_xx and φ₀ = exp(−∫u₀/2ν); u₀ has mean 0."""
    n = grid.shape[0]
    k = torch.arange(n // 2 + 1, dtype=torch.float64) * 2 * torch.pi / grid.axes[0].length
    v = torch.fft.rfft(initial)
    integral = torch.fft.irfft(
        torch.cat([torch.zeros_like(v[..., :1]), v[..., 1:] / (1j * k[1:])], -1), n=n
    )
    phi = torch.fft.rfft(torch.exp((integral.amin(-1, keepdim=True) - integral) / (2 * viscosity)))
    phi = phi * torch.exp(-viscosity * k**2 * time)
    return -2 * viscosity * torch.fft.irfft(1j * k * phi, n=n) / torch.fft.irfft(phi, n=n)
