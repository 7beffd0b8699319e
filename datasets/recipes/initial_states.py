"""Random initial states that evolution equations start from: smooth fields and spots."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.grids import AbstractGrid, Axis, GaussianRandomField, Grid, SphereGrid


def smooth_fields(
    grid: AbstractGrid,
    streams: Sequence[np.random.Generator],
    *,
    alpha: float,
    tau: float,
    deviation: float,
) -> Float[Tensor, " stream *space"]:
    """Draw from N(0, σ²(−Δ + τ²)^−α) without its mean, σ such that the variance is ``deviation``² in the
    mean over the domain."""
    field = GaussianRandomField(grid, alpha, tau)
    variance = field.standard_deviations().square().sum() / grid.quadrature().sum()
    return deviation / variance.sqrt() * field.draw(streams)


def random_spots(
    grid: AbstractGrid,
    dice: np.random.Generator,
    *,
    most: int,
    width: float,
) -> Float[Tensor, "*space"]:
    """Draw 1 − Π_j (1 − b_j) for one to ``most`` bumps b_j = exp(−r_j²/2w²) at random places: between 0 and 1,
    and 1 only in the middle of a spot.

    On a sphere r is the chord. At walls spots are mirrored, with a change of sign where fields vanish.
    """
    count = int(dice.integers(1, most + 1))
    places = dice.random((count, grid.ndim))
    rest = torch.ones(grid.shape, dtype=torch.float64, device="cpu")
    for place in places:
        rest = rest * (1 - _bump(grid, place, width))
    return 1 - rest


def _bump(
    grid: AbstractGrid, place: Float[np.ndarray, " axis"], width: float
) -> Float[Tensor, "*space"]:
    """Return a bump about a place whose coordinates, or shares of the sphere's area, lie between 0 and 1."""
    if isinstance(grid, SphereGrid):
        latitude, longitude = grid.points()
        height = 2 * place[0] - 1
        cosine = height * latitude.sin()[:, None] + math.sqrt(1 - height**2) * (
            latitude.cos()[:, None] * torch.cos(longitude - 2 * math.pi * place[1])
        )
        return torch.exp((cosine - 1) / width**2)
    assert isinstance(grid, Grid)
    bump = torch.ones((), dtype=torch.float64, device="cpu")
    for axis, share in zip(grid.axes, place, strict=True):
        bump = bump[..., None] * _bump_on(axis, float(share), width)
    return bump


def _bump_on(axis: Axis, share: float, width: float) -> Float[Tensor, " x"]:
    """Return a bump along an axis, with the images that its ends make."""
    x = axis.points() - axis.origin
    near, length = share * axis.length, axis.length

    def bump(centre: float) -> Float[Tensor, " x"]:
        return torch.exp(-((x - centre) ** 2) / (2 * width**2))

    if axis.boundary == "dirichlet":
        return bump(near) - bump(-near) - bump(2 * length - near)
    images = (
        (near - length, near + length)
        if axis.boundary == "periodic"
        else (-near, 2 * length - near)
    )
    rest = 1 - bump(near)
    for image in images:
        rest = rest * (1 - bump(image))
    return 1 - rest
