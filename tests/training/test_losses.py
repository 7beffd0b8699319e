"""Losses and metrics against their definitions on fixed arrays."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from sobolev import Grid, sobolev_norm
from sobolev.training import BandLoss, FrameLoss, SobolevLoss, SumLoss


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


def test_losses_add_up_and_scale():
    grid = Grid.periodic(16)
    p, y = pair(3, 1, 16)
    a, b = SobolevLoss(grid, 0.0), SobolevLoss(grid, 1.0)
    expected = a(p, y) + 0.1 * b(p, y)
    assert torch.allclose((a + 0.1 * b)(p, y), expected)
    by_classes = SumLoss(grid, [SobolevLoss, partial(SobolevLoss, order=1.0)], weights=[1.0, 0.1])
    assert torch.allclose(by_classes(p, y), expected)
    assert torch.allclose(SumLoss(grid, [SobolevLoss])(p, y), a(p, y))


def test_band_loss_judges_each_band_by_its_own_energy():
    """Errors of 1 % at the large scale and 50 % at a small one of a thousandth of the energy."""
    grid = Grid.periodic(64)
    x = 2 * torch.pi * grid.points()[0]
    coarse, fine = torch.cos(x), 1e-3 * torch.cos(20 * x)
    y, p = (coarse + fine)[None, None], (1.01 * coarse + 1.5 * fine)[None, None]
    loss = BandLoss(grid, [2 * torch.pi * 10], weights=[1.0, 2.0])
    assert loss(p, y).item() == pytest.approx(0.01 + 2 * 0.5, rel=1e-10)
    assert BandLoss(grid, [60.0])(p, y).item() == pytest.approx(0.255, rel=1e-10)


def test_band_loss_has_gradient_zero_where_a_band_is_met():
    grid = Grid.periodic(16)
    y = torch.randn(2, 1, 16, dtype=torch.float64)
    p = (y + torch.cos(2 * torch.pi * grid.points()[0])).requires_grad_()
    BandLoss(grid, [20.0])(p, y).backward()
    assert p.grad.isfinite().all()
    assert p.grad.abs().max() > 0
    same = y.clone().requires_grad_()
    BandLoss(grid, [20.0])(same, y).backward()
    assert not same.grad.any()


@pytest.mark.parametrize(
    "make", [SobolevLoss, partial(SobolevLoss, order=1.0), partial(BandLoss, edges=[20.0])], ids=str
)
def test_a_target_of_zero_adds_nothing(make):
    grid = Grid.periodic(16)
    p, y = pair(4, 1, 16)
    y[1] = 0.0
    p.requires_grad_()
    loss = make(grid)
    found = loss(p, y)
    found.backward()
    others = [0, 2, 3]
    assert found.item() == pytest.approx(0.75 * loss(p[others], y[others]).item(), rel=1e-12)
    assert not p.grad[1].any()
    assert p.grad[others].abs().amin() > 0
    exact = torch.zeros(2, 1, 16, dtype=torch.float64, requires_grad=True)
    loss(exact, exact.detach()).backward()
    assert not exact.grad.any()


def test_frames_of_zero_add_nothing():
    grid = Grid.periodic(16)
    p, y = pair(3, 2, 1, 16)
    y[:, 0] = 0.0
    expected = SobolevLoss(grid)(p[:, 1], y[:, 1]) / 2
    assert FrameLoss(grid)(p, y).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bands_in_which_a_target_has_rounding_alone_add_nothing(dtype):
    grid = Grid.periodic(64)
    x = 2 * torch.pi * grid.points()[0].to(dtype)
    y = torch.cos(3 * x).expand(2, 1, -1)
    p = 1.5 * y + 0.1 * torch.cos(20 * x)
    loss = BandLoss(grid, [2 * torch.pi * 10], weights=[1.0, 1.0])
    assert loss(p, y).item() == pytest.approx(0.5, rel=1e-4)


def test_one_band_of_all_modes_is_the_relative_l2_error():
    grid = Grid.neumann(12, 10)
    p, y = pair(3, 2, 12, 10)
    loss = BandLoss(grid, [1e-9], weights=[0.0, 1.0])  # the mean alone is below the edge
    p = p - p.mean((-2, -1), keepdim=True)
    y = y - y.mean((-2, -1), keepdim=True)
    p[:, :, 0, 0] += 1.0  # another mean: the weight 0 leaves it out
    without_mean = p - p.mean((-2, -1), keepdim=True)
    y_with_mean = y + 1.0
    expected = SobolevLoss(grid, 0.0)(without_mean, y)
    assert loss(p, y_with_mean).item() == pytest.approx(expected.item(), rel=1e-10)


def test_frame_loss_is_the_mean_of_the_frames_losses():
    grid = Grid.periodic(16)
    p, y = pair(3, 2, 4, 16)  # two frames of four variables
    loss = SobolevLoss(grid, 1.0)
    expected = (loss(p[:, 0], y[:, 0]) + loss(p[:, 1], y[:, 1])) / 2
    found = FrameLoss(grid, partial(SobolevLoss, order=1.0))(p, y)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("make", [SobolevLoss, partial(BandLoss, edges=[9.0])], ids=str)
def test_other_losses_take_a_trajectory_as_one_field_of_many_channels(make):
    p, y = pair(3, 2, 4, 16)
    loss = make(Grid.periodic(16))
    assert loss(p, y).item() == pytest.approx(loss(p.flatten(1, 2), y.flatten(1, 2)).item())


def test_bad_arguments_are_refused():
    grid = Grid.periodic(8)
    with pytest.raises(ValueError, match="a real number"):
        SobolevLoss(grid, order=True)
    with pytest.raises(ValueError, match="differ in shape"):
        SobolevLoss(grid)(torch.zeros(1, 1, 8), torch.zeros(1, 2, 8))
    with pytest.raises(ValueError, match="ascending"):
        BandLoss(grid, [3.0, 2.0])
    with pytest.raises(ValueError, match="make 2 bands"):
        BandLoss(grid, [10.0], weights=[1.0])
    with pytest.raises(ValueError, match="no mode of the grid falls into band 1"):
        BandLoss(grid, [1e3])
    with pytest.raises(ValueError, match=r"takes \(batch, time, variables.* 1 space.*\(1, 3, 8\)"):
        FrameLoss(grid)(torch.zeros(1, 3, 8), torch.zeros(1, 3, 8))
    with pytest.raises(ValueError, match="makes a FieldLoss for a grid"):
        FrameLoss(grid, SobolevLoss(grid))
    with pytest.raises(ValueError, match="a weight for each, got 1 and 2"):
        SumLoss(grid, [SobolevLoss], weights=[1.0, 2.0])
    with pytest.raises(ValueError, match="weight is a real number, got nan"):
        SumLoss(grid, [SobolevLoss], weights=[float("nan")])
    with pytest.raises(ValueError, match="factor is a real number"):
        SobolevLoss(grid) * float("nan")


def test_fields_without_channels_are_fields_with_one():
    grid = Grid.periodic(8, 6)
    p, y = pair(3, 8, 6)
    assert torch.equal(SobolevLoss(grid)(p, y), SobolevLoss(grid)(p[:, None], y[:, None]))
