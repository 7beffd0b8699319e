"""Rotated fields on the sphere, made and compared without our own transform."""

from __future__ import annotations

import math

import scipy.special
import torch
from torch import Tensor

from sobolev import SphereGrid


def nodes(grid: SphereGrid) -> Tensor:
    """Unit vectors of the nodes, ``(nlat, nlon, 3)``."""
    latitude, longitude = torch.meshgrid(*grid.points(), indexing="ij")
    flat = latitude.cos()
    return torch.stack([flat * longitude.cos(), flat * longitude.sin(), latitude.sin()], dim=-1)


def rotation() -> Tensor:
    """Any rotation."""
    q, r = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    q = q * r.diagonal().sign()
    return q * torch.linalg.det(q)


def polynomial(points: Tensor) -> Tensor:
    """Two polynomials of degree 3 in (x, y, z), without symmetry, ``(1, 2, *points)``."""
    x, y, z = points.unbind(-1)
    first = 0.3 + x - 0.5 * y * z + x * x * y - 0.7 * z * z
    second = 0.5 * z**3 - x * y * z + 0.4 * y * y - 0.8 * y + 0.2 * x
    return torch.stack([first, second])[None]


def value_at(points: Tensor, field: Tensor, grid: SphereGrid) -> Tensor:
    """``(..., nlat, nlon)`` at any unit vectors ``(n, 3)``, by scipy's harmonics: ``(..., n)``."""
    x, y, z = points.unbind(-1)
    colatitude = torch.atan2(torch.hypot(x, y), z).numpy()
    longitude = torch.atan2(y, x).numpy()
    basis = []
    for l in range(grid.lmax):
        for m in range(-l, l + 1):
            h = scipy.special.sph_harm_y(l, abs(m), colatitude, longitude)
            part = torch.from_numpy(h.real if m >= 0 else h.imag)
            basis.append(part * (-1) ** m * (math.sqrt(2) if m else 1) / grid.radius)
    return grid.to_modes(field) @ torch.stack(basis)
