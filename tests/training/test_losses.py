"""Losses and metrics against their definitions on fixed arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sobolev import Grid, sobolev_norm
from sobolev.training import RelativeError, SobolevLoss


def pair(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype), torch.randn(*shape, dtype=dtype)


def test_order_zero_is_the_relative_l2_error_of_the_fno_paper():
    """mean over samples of ‖p − y‖₂/‖y‖₂, each norm over all values of a sample (their LpLoss)."""
    p, y = pair(5, 2, 16, 12)
    a, b = p.numpy().reshape(5, -1), y.numpy().reshape(5, -1)
    expected = (np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).mean()
    assert SobolevLoss(Grid.periodic(16, 12), order=0.0)(p, y).item() == pytest.approx(
        expected, rel=1e-12
    )


def test_dirichlet_loss_agrees_with_plain_sums_on_fields_that_vanish_on_the_border():
    grid = Grid.dirichlet(9, 9)
    p, y = (grid.without_border(u) for u in pair(3, 1, 9, 9))
    plain = ((p - y).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1)).mean()
    assert SobolevLoss(grid, order=0)(p, y).item() == pytest.approx(plain.item(), rel=1e-12)


@pytest.mark.parametrize("order", [-1.0, 0.5, 2.0])
def test_absolute_loss_is_the_norm_of_the_difference(order):
    grid = Grid.neumann(8, 7)
    p, y = pair(3, 1, 8, 7)
    expected = sobolev_norm((p - y)[:, 0], grid, order).mean()
    assert SobolevLoss(grid, order, relative=False)(p, y).item() == pytest.approx(
        expected.item(), rel=1e-12
    )


def test_positive_orders_weigh_fine_scales_and_negative_ones_coarse_scales():
    grid = Grid.periodic(64)
    x = grid.points()[0]
    y = torch.cos(2 * torch.pi * x)[None, None]
    fine, coarse = y + 0.1 * torch.cos(40 * torch.pi * x), 1.1 * y
    assert SobolevLoss(grid, 1.0)(fine, y) > 5 * SobolevLoss(grid, 1.0)(coarse, y)
    assert SobolevLoss(grid, -1.0)(fine, y) < SobolevLoss(grid, -1.0)(coarse, y) / 5


def test_metric_weighs_samples_not_batches():
    grid = Grid.periodic(16)
    p, y = pair(7, 1, 16, dtype=torch.float32)
    metric = RelativeError(grid)
    for part in (slice(0, 5), slice(5, 7)):
        metric.update(p[part], y[part])
    p, y = p.double(), y.double()
    expected = ((p - y).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1)).mean()
    assert metric.compute().item() == pytest.approx(expected.item(), rel=1e-12)
    assert metric.compute().dtype == torch.float64


def test_bad_arguments_are_refused():
    grid = Grid.periodic(8)
    with pytest.raises(ValueError, match="a real number"):
        SobolevLoss(grid, order=True)
    with pytest.raises(ValueError, match="differ in shape"):
        SobolevLoss(grid)(torch.zeros(1, 1, 8), torch.zeros(1, 2, 8))


def test_fields_without_channels_are_fields_with_one():
    grid = Grid.periodic(8, 6)
    p, y = pair(3, 8, 6)
    assert torch.equal(SobolevLoss(grid)(p, y), SobolevLoss(grid)(p[:, None], y[:, None]))
