"""A flat operator on the sphere: what it keeps of the sphere's symmetry, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from sobolev import Axis, Grid, SphereGrid
from sobolev.operators import FNO, SFNO, Planar

KINDS = ["neumann", "periodic"]


@pytest.mark.slow
def test_commutes_with_turns_about_the_polar_axis_and_with_no_tilt():
    operator, grid = Planar(FNO(1, 1, (4, 4), width=6, boundary=KINDS)).double(), SphereGrid(16, 32)
    for p in operator.parameters():  # as after training, when no layer is negligible
        torch.nn.init.normal_(p, 0.0, 0.3)
    latitude, longitude = grid.points()
    north, east = latitude.sin()[:, None], latitude.cos()[:, None] * longitude.cos()
    u = (north + 2 * east)[None, None]
    assert torch.allclose(operator(u.roll(5, -1)), operator(u).roll(5, -1), atol=1e-12)
    # a quarter turn that takes the pole to the equator takes one of these fields to the other
    pole, equator = (operator(v.expand(grid.shape)[None, None]) for v in (north, east))
    assert abs(sum_over(equator.square(), grid) / sum_over(pole.square(), grid) - 1) > 0.01


def sum_over(u, grid):
    return (u * grid.quadrature()).sum()


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (lambda: FNO(1, 1, (4, 4), width=4), r"boundary=\['neumann', 'periodic'\]: .*are \['neum"),
        (lambda: FNO(1, 1, (4,), width=4), "two flat axes .*works on 1-dim"),
        (lambda: SFNO(1, 1, SphereGrid(8, 16), width=4), "SFNO works on a sphere"),
    ],
)
def test_operators_of_other_planes_are_refused(operator, message):
    with pytest.raises(ValueError, match=message):
        Planar(operator())


def test_takes_spheres_alone():
    operator = Planar(FNO(1, 1, (4, 4), width=4, boundary=KINDS))
    operator.check_grid(SphereGrid(8, 16, "equiangular"))
    with pytest.raises(ValueError, match="give its operator alone"):
        operator.check_grid(Grid(Axis("lat", 8, boundary="neumann"), Axis("lon", 16)))
