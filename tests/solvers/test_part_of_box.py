"""Flow in a part of a rectangle: exact where the parts are rectangles themselves."""

from __future__ import annotations

import pytest
import torch

from sobolev.grids import Axis, Grid
from sobolev.solvers import Darcy
from sobolev.solvers.elliptic.part_of_box import solve_in_domain

GRID = Grid(Axis("y", 17, 0.5, boundary="dirichlet"), Axis("x", 33, 1.0, boundary="dirichlet"))


def medium() -> torch.Tensor:
    dice = torch.Generator().manual_seed(0)
    return 1 + 9 * torch.rand(2, 17, 33, generator=dice, dtype=torch.float64)


def test_the_whole_rectangle_is_darcys():
    a = medium()
    whole = torch.ones(a.shape, dtype=torch.bool)
    found = solve_in_domain(a, whole, GRID, 2.0)
    expected = Darcy(tolerance=1e-12).solve(a, GRID, 2.0)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_a_wall_leaves_two_rectangles_that_do_not_know_each_other():
    a = medium()
    domain = torch.ones(a.shape, dtype=torch.bool)
    domain[:, :, 12] = False
    found = solve_in_domain(a, domain, GRID, 1.0)
    for place, length in ((slice(0, 13), 12 / 32), (slice(12, 33), 20 / 32)):
        size = place.stop - place.start
        part = Grid(GRID.axes[0], Axis("x", size, length, boundary="dirichlet"))
        expected = Darcy(tolerance=1e-12).solve(a[:, :, place].contiguous(), part, 1.0)
        torch.testing.assert_close(found[:, :, place], expected, rtol=1e-8, atol=1e-10)


def test_a_domain_without_inner_nodes_is_refused():
    nothing = torch.zeros(1, 17, 33, dtype=torch.bool)
    nothing[:, 0] = True
    with pytest.raises(ValueError, match="no node inside"):
        solve_in_domain(medium()[:1], nothing, GRID, 1.0)
