"""Sobolev norms against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from sobolev import Axis, Grid, energy_spectrum, sobolev_norm

ORDERS = (-1.0, -0.5, 0.0, 1.0, 2.0)
L = 1.7


def mode(axis: Axis, k: int) -> tuple[torch.Tensor, float]:
    """The k-th eigenfunction with amplitude 1 on the nodes, and its wavenumber; ∫ of its square is
    L/2."""
    x = axis.points() - axis.origin
    if axis.boundary == "periodic":
        return torch.sin(2 * math.pi * k * x / L + 0.3), 2 * math.pi * k / L
    function = torch.sin if axis.boundary == "dirichlet" else torch.cos
    return function(math.pi * k * x / L), math.pi * k / L


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("boundary", ["periodic", "dirichlet", "neumann"])
@pytest.mark.parametrize("size", [16, 33, 256])
def test_norm_in_one_dimension(order, boundary, size):
    axis = Axis("x", size, L, 0.4, boundary)
    (u, k), (v, l) = mode(axis, 2), mode(axis, 5)
    # eigenfunctions are orthogonal in every H^s, so that squares add up
    exact = math.sqrt(L / 2 * ((1 + k**2) ** order + 9 * (1 + l**2) ** order))
    assert sobolev_norm(u + 3 * v, Grid(axis), order=order).item() == pytest.approx(
        exact, rel=1e-10
    )


@pytest.mark.parametrize("order", ORDERS)
def test_norm_in_three_dimensions_with_mixed_boundaries(order):
    axes = [
        Axis(n, s, L, boundary=b)
        for n, s, b in zip("zyx", (12, 17, 9), ("periodic", "dirichlet", "neumann"), strict=True)
    ]
    (u, k), (v, l), (w, m) = (mode(axis, j) for axis, j in zip(axes, (3, 4, 2), strict=True))
    field = u[:, None, None] * v[:, None] * w
    exact = (L / 2) ** 1.5 * (1 + k**2 + l**2 + m**2) ** (order / 2)
    assert sobolev_norm(field, Grid(*axes), order=order).item() == pytest.approx(exact, rel=1e-10)


def test_constant_has_norm_one_over_the_unit_square_at_every_order():
    for order in ORDERS:
        assert sobolev_norm(
            torch.ones(8, 6, dtype=torch.float64), Grid.neumann(8, 6), order
        ).item() == pytest.approx(1)


def test_order_one_is_the_integral_of_field_and_gradient():
    grid = Grid.periodic(64, 48, length=(1.0, 2.0))
    y, x = grid.points()
    u = torch.exp(torch.sin(2 * math.pi * y))[:, None] * torch.cos(math.pi * x)
    uy, ux = (
        2 * math.pi * torch.cos(2 * math.pi * y)[:, None] * u,
        -math.pi * (torch.exp(torch.sin(2 * math.pi * y))[:, None] * torch.sin(math.pi * x)),
    )
    integral = (u**2 + ux**2 + uy**2).mean() * 2.0
    assert sobolev_norm(u, grid, 1.0).square().item() == pytest.approx(integral.item(), rel=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_refining_the_grid_does_not_change_the_norm_of_a_resolved_field(order):
    coarse, fine = Grid.dirichlet(17, 19), Grid.dirichlet(50, 64)
    u = coarse.without_border(torch.randn(4, 17, 19, dtype=torch.float64))
    on_coarse, on_fine = (
        sobolev_norm(u, coarse, order),
        sobolev_norm(coarse.resample(u, fine), fine, order),
    )
    assert torch.allclose(on_coarse, on_fine, rtol=1e-12)


def test_batches_dtypes_and_gradients():
    grid = Grid.periodic(8, 6)
    u = torch.randn(2, 3, 8, 6, requires_grad=True)
    norms = sobolev_norm(u, grid, -0.5)
    assert norms.shape == (2, 3)
    assert norms.dtype == torch.float32
    zero = torch.zeros(8, 6, requires_grad=True)
    sobolev_norm(zero, grid, 1.0).backward()
    assert torch.equal(zero.grad, torch.zeros(8, 6))
    assert torch.autograd.gradcheck(
        lambda v: sobolev_norm(v, grid, 1.0), (u.detach().double().requires_grad_(),)
    )


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet", "neumann"])
def test_shells_of_the_spectrum_sum_to_the_squared_norm(boundary):
    grid = Grid(Axis("y", 16, boundary=boundary), Axis("x", 12, boundary=boundary))
    u = torch.randn(5, 16, 12, dtype=torch.float64)
    k, energy = energy_spectrum(u, grid)
    assert torch.allclose(energy.sum(-1), sobolev_norm(u, grid).square())
    assert energy.shape == (5, len(k))


def test_spectrum_of_one_mode_sits_in_its_shell():
    grid = Grid.periodic(32, 32, length=2 * math.pi)
    y, x = grid.points()
    k, energy = energy_spectrum(torch.cos(3 * y[:, None] + 4 * x), grid)
    assert k[energy.argmax()].item() == pytest.approx(5.0)
    assert energy.max().item() == pytest.approx(energy.sum().item())
