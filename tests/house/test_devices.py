"""With another default device every solver still computes where its input lies.

A tensor made without ``device=`` would land on the meta device and fail here, as it would fail on a user's GPU.
"""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from sobolev import Axis, GaussianRandomField, Grid, energy_spectrum, sobolev_norm
from sobolev.solvers import (
    AllenCahn,
    Burgers,
    Darcy,
    KdV,
    KleinGordon,
    NavierStokes,
    ShallowWater,
    SphereGrid,
    integrate,
)
from sobolev.solvers.navier_stokes.states import stream_function, velocity
from sobolev.solvers.shallow_water.states import balanced
from sobolev.training import BandLoss, FrameLoss, RelativeError, SobolevLoss

MIXED = Grid(Axis("z", 6), Axis("y", 7, boundary="dirichlet"), Axis("x", 8, boundary="neumann"))
CIRCLE, SQUARE, TORUS = Grid.periodic(32), Grid.dirichlet(9, 9), Grid.periodic(16, 16)
SPHERE = SphereGrid(12, 24)


ROOM = Grid(
    Axis("z", 8, boundary="neumann"),
    Axis("y", 9, boundary="dirichlet"),
    Axis("x", 10, boundary="neumann"),
)


def field(grid):
    """A deterministic field on the CPU, whatever the default device."""
    with torch.device("cpu"):
        values = torch.arange(2 * torch.Size(grid.shape).numel(), dtype=torch.float64)
        return 1.5 + torch.sin(values).reshape(2, *grid.shape)


def eddies():
    """Vorticity that the 2/3 rule keeps."""
    with torch.device("cpu"):
        y, x = torch.meshgrid(*TORUS.points(), indexing="ij")
        return torch.stack([(math.tau * x).sin(), (math.tau * y).cos()])


def smooth(grid, *channels):
    """Fields of the lowest modes, ``(2, *channels, *space)``."""
    with torch.device("cpu"):
        low = torch.zeros(2, *channels, *grid.mode_shape, dtype=torch.float64)
        low.flatten(1)[:, :3] = 0.5
        return grid.from_modes(low)


def gradient(solve, start):
    """The gradient of the squares of what ``solve`` makes of ``start``."""
    start.requires_grad_()
    return torch.autograd.grad(solve(start).square().sum(), start)[0]


def linearised():
    """Residual and tangent about the eddies."""
    flow = NavierStokes(0.1, lambda y, x: (math.tau * y).sin()).in_modes(TORUS, eddies())
    v = flow.transform(eddies())
    z = flow.velocity(v)
    return torch.cat([flow.residual(v, v, z), flow.tangent(v, v, z), flow.advection(v)])


def darcys_gradient():
    """Of a pressure in a medium of its own along each axis, with respect to it."""
    a = torch.stack([field(MIXED)] * 3, dim=1).requires_grad_()
    pressure = Darcy().solve(a, MIXED, boundary=field(MIXED))
    return torch.autograd.grad(pressure.square().sum(), a)[0]


WORK = {
    "to_modes": lambda: MIXED.to_modes(field(MIXED)),
    "from_modes": lambda: MIXED.from_modes(torch.ones(2, *MIXED.mode_shape, device="cpu")),
    "resample": lambda: MIXED.resample(field(MIXED), MIXED.resized(9, 5, 11)),
    "between kinds": lambda: Grid.neumann(6).resample(
        torch.ones(6, device="cpu"), Grid.dirichlet(6)
    ),
    "without_border": lambda: MIXED.without_border(field(MIXED)),
    "fading border": lambda: MIXED.without_border(field(MIXED), cells=MIXED.resized(5, 4, 5)),
    "norm": lambda: sobolev_norm(field(MIXED), MIXED, -0.5),
    "spectrum": lambda: energy_spectrum(field(MIXED), MIXED)[1],
    "random field": lambda: GaussianRandomField(MIXED, 2.0, 3.0).sample(2),
    "Burgers": lambda: Burgers(0.1).solve(field(CIRCLE), CIRCLE, [0.1, 0.2]),
    "Burgers residual": lambda: Burgers(0.1).residual(field(CIRCLE), field(CIRCLE), CIRCLE),
    "Darcy": lambda: Darcy().solve(field(SQUARE), SQUARE),
    "Darcy residual": lambda: Darcy().residual(field(SQUARE), field(SQUARE), SQUARE),
    "Darcy's bound": lambda: Darcy().error_bound(field(SQUARE), field(SQUARE), SQUARE),
    "Darcy by multigrid": lambda: Darcy(preconditioner="multigrid").solve(field(SQUARE), SQUARE),
    "Darcy between walls": lambda: Darcy(preconditioner="multigrid").solve(
        field(ROOM), ROOM, boundary=field(ROOM), flux={"x": (1.0, 2.0)}
    ),
    "Darcy's gradient": darcys_gradient,
    "Navier–Stokes": lambda: NavierStokes(0.1, lambda y, x: (math.tau * y).sin()).solve(
        eddies(), TORUS, [0.1, 0.2]
    ),
    "beta plane": lambda: NavierStokes(0.1, beta=1.0).solve(eddies(), TORUS, 0.1),
    "Navier–Stokes residual": lambda: NavierStokes(0.1).residual(eddies(), eddies(), TORUS),
    "Navier–Stokes in modes": linearised,
    "Navier–Stokes gradient": lambda: gradient(
        lambda w: NavierStokes(0.1, beta=1.0).solve(w, TORUS, 0.1), eddies()
    ),
    "gradient of waves": lambda: gradient(
        lambda u: integrate(KleinGordon(1.0, 1.0, 1.0), u, SQUARE, 0.02, step=0.01),
        smooth(SQUARE, 2),
    ),
    "waves between walls": lambda: integrate(
        KleinGordon(1.0, 1.0, 1.0), smooth(SQUARE, 2), SQUARE, 0.1
    ),
    "phases on a sphere": lambda: integrate(AllenCahn(0.1), smooth(SPHERE), SPHERE, 0.1, step=0.05),
    "solitons": lambda: integrate(KdV(0.1), smooth(CIRCLE), CIRCLE, [0.01], step=0.01),
    "velocity": lambda: velocity(eddies(), TORUS),
    "stream function": lambda: stream_function(eddies(), TORUS),
    "norm on the sphere": lambda: sobolev_norm(field(SPHERE), SPHERE, -0.5),
    "shallow water": lambda: ShallowWater().solve(
        balanced(ShallowWater(), 1e-6 * field(SPHERE), SPHERE), SPHERE, 600.0
    ),
    "shallow water gradient": lambda: gradient(
        lambda state: ShallowWater().solve(state, SPHERE, 600.0),
        balanced(ShallowWater(), 1e-6 * field(SPHERE), SPHERE),
    ),
    "loss": lambda: SobolevLoss(SQUARE)(field(SQUARE)[:, None], 2 * field(SQUARE)[:, None]),
    "loss of bands and frames": lambda: FrameLoss(CIRCLE, partial(BandLoss, edges=[30.0]))(
        field(CIRCLE)[:, None, None], 2 * field(CIRCLE)[:, None, None]
    ),
}


@pytest.mark.parametrize("name", WORK)
def test_work_stays_where_its_input_is(name):
    expected = WORK[name]()
    with torch.device("meta"):
        got = WORK[name]()
    assert got.device.type == "cpu"
    assert torch.equal(got, expected)


def test_metrics_do_too():
    with torch.device("meta"):
        metric = RelativeError(SQUARE)
        metric.update(field(SQUARE)[:, None], 2 * field(SQUARE)[:, None])
        assert metric.compute().item() == pytest.approx(0.5)
