"""Noise of equal variance in every octave: what training adds to given frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sobolev import Grid, SphereGrid
from sobolev.training.noise import pink_spectrum


@pytest.mark.parametrize(
    "grid", [Grid.periodic(256), Grid.periodic(64, 64, length=(1.0, 3.0)), SphereGrid(32, 64)]
)
def test_pink_noise_has_as_much_in_every_octave(grid):
    """Its variance over the domain is 1; of shells of modes, equal in k to 2k as far as modes are
    dense."""
    spectrum = pink_spectrum(grid)
    dice = torch.Generator().manual_seed(0)
    c = torch.randn(400, *grid.mode_shape, generator=dice, dtype=torch.float64) * spectrum
    u = grid.from_modes(c)
    weights = grid.quadrature() / grid.quadrature().sum()
    space = tuple(range(1, u.ndim))
    assert float((u.square() * weights).sum(space).mean()) == pytest.approx(1.0, rel=0.05)
    assert float((u * weights).sum(space).abs().max()) < 1e-12
    k = grid.eigenvalues().sqrt()
    top = float(k.max()) / (2 if grid.ndim == 2 and isinstance(grid, Grid) else 1) / 2
    power = [
        float(c.square()[:, (k > low) & (k <= 2 * low)].sum(1).mean()) for low in (top / 2, top / 4)
    ]
    assert power[0] == pytest.approx(power[1], rel=0.2)
    assert np.isfinite(power).all()


def test_pink_noise_reaches_the_long_waves_that_white_noise_leaves_alone():
    """Shares of the variance in degrees one to five, on 64 rings of 128 nodes."""
    grid = SphereGrid(64, 128)
    degree = grid.shells()[1]
    long = (degree >= 1) & (degree <= 5)
    pink = pink_spectrum(grid).square()
    assert float(pink[long].sum() / pink.sum()) == pytest.approx(0.44, abs=0.005)
    dice = torch.Generator().manual_seed(0)
    white = grid.to_modes(torch.randn(100, *grid.shape, generator=dice, dtype=torch.float64))
    share = white[:, long].square().sum(1).mean() / (4 * torch.pi)
    assert float(share) == pytest.approx(0.005, abs=0.0005)
