"""What equations find on a grid: derivatives that are exact, products free of aliasing, and refusals."""

from __future__ import annotations

import math

import jaxtyping
import pytest
import torch
from torch import Tensor

from sobolev.grids import AbstractGrid, Axis, Grid, SphereGrid
from sobolev.solvers import AllenCahn, FitzHughNagumo, Semilinear, integrate
from sobolev.solvers.spaces import space_on

CPU = torch.device("cpu")
WALLS = Grid.neumann(18, length=2.0)
ENDS = Grid.dirichlet(17, length=2.0)
TORUS = Grid.periodic(12, 15, length=(2.0, 3.0))
MIXED = Grid(
    Axis("z", 12, length=3.0),
    Axis("y", 13, length=2.0, boundary="dirichlet"),
    Axis("x", 14, boundary="neumann"),
)
BALL = SphereGrid(16, 32)


def kept(grid: AbstractGrid) -> Tensor:
    """A field with all the modes that the rule keeps."""
    torch.manual_seed(0)
    space = space_on(grid, CPU)
    return space.to_nodes(space.to_modes(torch.randn(2, *grid.shape, dtype=torch.float64)))


def test_derivatives_between_walls_and_around():
    z, y, x = torch.meshgrid(*MIXED.points(), indexing="ij")
    a, b, c = 2 * math.pi / 3, 3 * math.pi / 2, 2 * math.pi
    u = (a * z).cos() * (b * y).sin() * (c * x).cos()
    space = space_on(MIXED, CPU)
    found = space.gradient(u)
    right = (
        -a * (a * z).sin() * (b * y).sin() * (c * x).cos(),
        b * (a * z).cos() * (b * y).cos() * (c * x).cos(),
        -c * (a * z).cos() * (b * y).sin() * (c * x).sin(),
    )
    for one, other in zip(found, right, strict=True):
        assert torch.allclose(one, other, atol=1e-12)
    laplacian = space.to_nodes(space.laplacian(u).modes)
    assert torch.allclose(laplacian, -(a**2 + b**2 + c**2) * u, atol=1e-10)


def test_divergence_gradient_and_laplacian_agree_on_a_torus():
    space, u = space_on(TORUS, CPU), kept(TORUS)
    once = space.divergence(*space.gradient(u))
    twice = 3.0 * once - once - space.laplacian(u) + (-once)
    assert twice.modes.abs().max() < 1e-12 * once.modes.abs().max()
    with pytest.raises(ValueError, match="one part for each axis, 2 here; got 1"):
        space.divergence(u)


@pytest.mark.parametrize("grid", [TORUS, WALLS, BALL], ids=str)
def test_products_of_kept_fields_are_free_of_aliasing(grid):
    """On twice the nodes nothing can alias: the modes that are kept here must be the same."""
    fine = grid.resized(*(2 * n for n in grid.shape))
    a, b = kept(grid)
    exact = grid.to_modes(fine.resample(fine_product(a, b, grid, fine), grid))
    space = space_on(grid, CPU)
    found = grid.to_modes(space.product(a, b))
    inside = grid.to_modes(space.product(torch.randn_like(a), torch.ones_like(a))).abs() > 1e-12
    assert torch.allclose(found[inside], exact[inside], atol=1e-11 * float(found.abs().max()))
    alias = grid.to_modes(a * b)[~inside]
    assert alias.abs().max() > 1e-6  # of which the rest is full


def fine_product(a: Tensor, b: Tensor, grid: AbstractGrid, fine: AbstractGrid) -> Tensor:
    return grid.resample(a, fine) * grid.resample(b, fine)


class Drifting(Semilinear):
    """Two channels that are carried along, one turning into the other."""

    channels = ("a", "b")

    def symbol(self, eigenvalues):
        zero, one = torch.zeros_like(eigenvalues), torch.ones_like(eigenvalues)
        return torch.stack([torch.stack([zero, one]), torch.stack([-one, zero])])

    def dispersion(self, k):
        return -2.0 * k


def test_odd_derivatives_act_on_each_channel_alone():
    grid = Grid.periodic(16, length=2 * math.pi)
    x = grid.points()[0]
    start = torch.stack([x.sin(), torch.zeros_like(x)])[None]
    found = integrate(Drifting(), start, grid, 0.7)
    moved = (x - 1.4).sin()
    assert torch.allclose(found[0], torch.stack([math.cos(0.7) * moved, -math.sin(0.7) * moved]))


class Complex(AllenCahn):
    def symbol(self, eigenvalues):
        return 1j * eigenvalues


@pytest.mark.parametrize(
    ("equation", "grid", "message"),
    [
        (
            Complex(0.1),
            WALLS,
            "symbol is complex, and the eigenfunctions of .* are real; two channels",
        ),
        (
            FitzHughNagumo(-0.1),
            WALLS,
            "FitzHughNagumo is not well-posed: its mode with the wavenumber",
        ),
    ],
)
def test_symbols_that_do_not_fit_are_refused(equation, grid, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    channels = [2] if equation.channels else []
    with pytest.raises(ValueError, match=message):
        integrate(equation, torch.zeros(1, *channels, *grid.shape), grid, 1.0)
