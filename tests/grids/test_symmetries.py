"""The groups that recipes declare: closed, free of repetitions, and inverted."""

from __future__ import annotations

import pytest
import torch

from sobolev import Axis, Grid, SphereGrid
from sobolev.grids.symmetries import (
    check_symmetries,
    elements,
    exchanges_axes,
    turned,
    turned_back,
)

TORUS, SQUARE = Grid.periodic(6, 6), Grid.dirichlet(5, 5)
GROUPS = [
    (["odd reflection"], Grid.periodic(7), 2),
    (["odd reflection"], Grid.dirichlet(7), 2),
    (["reflections"], Grid.dirichlet(4, 5, 6), 8),
    (["reflections", "transposition"], SQUARE, 8),
    (["reflections", "transposition"], TORUS, 8),
    (["quarter turns"], TORUS, 4),
    (["quarter turns", "shifts"], TORUS, 4),
    (["transposition"], SQUARE, 2),
    (["shifts"], TORUS, 1),
    (["diagonal glides"], Grid.periodic(8, 8), 8),
]
each_group = pytest.mark.parametrize(("symmetries", "grid", "order"), GROUPS)


@each_group
def test_elements_make_a_group(symmetries, grid, order):
    """Of so many different maps, the identity first; the product of any two is one of them."""
    u = torch.randn(grid.shape)
    orbit = [turned(u, grid, symmetries, c) for c in elements(symmetries, grid.ndim)]
    assert len(orbit) == order
    assert torch.equal(orbit[0], u)

    def position(v):
        (found,) = [i for i, w in enumerate(orbit) if torch.equal(v, w)]
        return found

    for v in orbit:
        images = {position(turned(v, grid, symmetries, c)) for c in elements(symmetries, grid.ndim)}
        assert len(images) == order


@each_group
def test_turning_back(symmetries, grid, order):
    """On grids of unequal sizes too, whose axes some elements exchange."""
    shape = [n * (1 + i) for i, n in enumerate(grid.shape)]
    u = torch.randn(2, 3, *shape)
    for coins in elements(symmetries, grid.ndim):
        v = turned(u, grid, symmetries, coins)
        crosswise = exchanges_axes(symmetries, coins)
        assert list(v.shape[2:]) == (shape[::-1] if crosswise else shape)
        assert torch.equal(turned_back(v, grid, symmetries, coins), u)


def test_reflections_mean_the_same_on_every_grid():
    """u(x) ↦ u(−x) on a circle, u(1 − x) between walls, whatever the nodes."""
    for n in (8, 13):
        x = Grid.periodic(n).points()[0]
        u = torch.sin(2 * torch.pi * x) + torch.cos(4 * torch.pi * x)
        mirrored = -torch.sin(2 * torch.pi * x) + torch.cos(4 * torch.pi * x)
        image = turned(u, Grid.periodic(n), ["odd reflection"], (1, 0))
        torch.testing.assert_close(image, -mirrored)
        y = Grid.dirichlet(n).points()[0]
        image = turned(y**3, Grid.dirichlet(n), ["reflections"], (1, 0))
        torch.testing.assert_close(image, (1 - y) ** 3)


def test_diagonal_glides_are_what_they_say_and_leave_the_forcing_alone():
    """ω(1/8 − x, 1/8 − y) and −ω(y + 1/4, x + 1/4), of an arbitrary function and of the forcing, a
    density that the reflection turns to its negative."""
    for n in (8, 24):
        grid = Grid.periodic(n, n)
        y, x = torch.meshgrid(*grid.points(), indexing="ij")
        w = lambda y, x: torch.sin(2 * torch.pi * (x + 2 * y)) + torch.cos(4 * torch.pi * x)  # noqa: E731
        f = lambda y, x: torch.sin(2 * torch.pi * (x + y)) + torch.cos(2 * torch.pi * (x + y))  # noqa: E731
        half = turned(w(y, x), grid, ["diagonal glides"], (1, 0, 0))
        torch.testing.assert_close(half, w(1 / 8 - y, 1 / 8 - x))
        glided = turned(w(y, x), grid, ["diagonal glides"], (0, 1, 0))
        torch.testing.assert_close(glided, -w(x + 1 / 4, y + 1 / 4))
        for coins in elements(["diagonal glides"], 2):
            torch.testing.assert_close(turned(f(y, x), grid, ["diagonal glides"], coins), f(y, x))


@pytest.mark.parametrize("act", [turned, turned_back])
def test_nodes_that_glides_do_not_take_to_nodes_are_refused_both_ways(act):
    grid = Grid.periodic(36, 36)
    with pytest.raises(
        ValueError, match=r"8 divides their number; got \(36, 36\), take \(40, 40\)"
    ):
        act(torch.randn(36, 36), grid, ["diagonal glides"], (1, 0, 0))


@pytest.mark.parametrize(
    ("symmetries", "grid", "message"),
    [
        (["rotations"], TORUS, "got 'rotations'"),
        (["reflections"], SphereGrid(8, 16), "flat grids"),
        (["odd reflection"], TORUS, "one of lines"),
        (["transposition"], Grid(Axis("y", 8), Axis("x", 8, 2.0)), "need a square"),
        (["quarter turns"], Grid.periodic(8), "need a square"),
        (["quarter turns"], SQUARE, "need periodic axes"),
        (["diagonal glides"], Grid.dirichlet(8, 8), "need periodic axes"),
        (["diagonal glides"], TORUS, "8 divides"),
        (["diagonal glides", "shifts"], Grid.periodic(8, 8), "no other"),
    ],
)
def test_refuses_symmetries_that_the_grid_lacks(symmetries, grid, message):
    with pytest.raises(ValueError, match=message):
        check_symmetries(symmetries, grid)
