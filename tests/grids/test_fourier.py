"""Complex Fourier modes up to a cutoff, on a line, a torus and in three dimensions."""

from __future__ import annotations

import math

import pytest
import torch

from sobolev import GaussianRandomField, Grid
from sobolev.grids.fourier import TorusModes

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(9,), (12,), (8, 12), (9, 7), (6, 8, 7)])
@pytest.mark.parametrize("dealiased", [True, False])
def test_fields_within_the_cutoff_come_back_and_others_are_cut(shape, dealiased):
    grid = Grid.periodic(*shape, length=2.5)
    modes = TorusModes(grid, CPU, dealiased=dealiased)
    u = GaussianRandomField(grid, alpha=2.0, tau=3.0, zero_mean=False).sample(3)
    cut = modes.inverse(modes.transform(u))
    torch.testing.assert_close(modes.inverse(modes.transform(cut)), cut)
    torch.testing.assert_close(cut.mean(dim=tuple(range(1, u.ndim))), u.flatten(1).mean(1))
    coarse = grid.resized(*(2 * K + 1 for K in modes.cutoffs))  # carries these modes and no more
    torch.testing.assert_close(coarse.resample(grid.resample(u, coarse), grid), cut)


def test_wavenumbers_differentiate():
    grid = Grid.periodic(16, 24, length=(2 * math.pi, 3.0))
    modes = TorusModes(grid, CPU)
    y, x = torch.meshgrid(*grid.points(), indexing="ij")
    u = torch.sin(3 * y) * torch.cos(4 * math.pi / 3 * x)
    ky, kx = modes.wavenumbers
    v = modes.transform(u)
    along_y = 3 * torch.cos(3 * y) * torch.cos(4 * math.pi / 3 * x)
    along_x = -4 * math.pi / 3 * torch.sin(3 * y) * torch.sin(4 * math.pi / 3 * x)
    torch.testing.assert_close(modes.inverse(1j * ky * v), along_y)
    torch.testing.assert_close(modes.inverse(1j * kx * v), along_x)


def test_axes_with_ends_are_refused():
    with pytest.raises(ValueError, match="periodic axes"):
        TorusModes(Grid.dirichlet(8), CPU)
