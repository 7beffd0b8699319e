"""Work of solvers, grids, norms and losses on tensors of one device: a new kind of work is a new row."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from sobolev import Axis, GaussianRandomField, Grid, energy_spectrum, sobolev_norm
from sobolev.grids.grid import AbstractGrid
from sobolev.solvers import (
    AllenCahn,
    Burgers,
    Darcy,
    GrayScott,
    KdV,
    KleinGordon,
    KuramotoSivashinsky,
    NavierStokes,
    ShallowWater,
    SphereGrid,
    integrate,
)
from sobolev.solvers.navier_stokes.states import stream_function, velocity
from sobolev.solvers.shallow_water.states import balanced
from sobolev.training import BandLoss, FrameLoss, SobolevLoss

MIXED = Grid(Axis("z", 6), Axis("y", 7, boundary="dirichlet"), Axis("x", 8, boundary="neumann"))
CIRCLE, SQUARE, TORUS = Grid.periodic(32), Grid.dirichlet(9, 9), Grid.periodic(16, 16)
SPHERE = SphereGrid(12, 24)
ROOM = Grid(
    Axis("z", 8, boundary="neumann"),
    Axis("y", 9, boundary="dirichlet"),
    Axis("x", 10, boundary="neumann"),
)
Device = torch.device | str


def field(grid: AbstractGrid, device: Device) -> Tensor:
    """Return two deterministic fields, made on the CPU whatever the default device."""
    with torch.device("cpu"):
        values = torch.arange(2 * torch.Size(grid.shape).numel(), dtype=torch.float64)
        fields = 1.5 + torch.sin(values).reshape(2, *grid.shape)
    return fields.to(device)


def eddies(device: Device) -> Tensor:
    """Return vorticity that the 2/3 rule keeps."""
    with torch.device("cpu"):
        y, x = torch.meshgrid(*TORUS.points(), indexing="ij")
        vorticity = torch.stack([(math.tau * x).sin(), (math.tau * y).cos()])
    return vorticity.to(device)


def smooth(grid: AbstractGrid, device: Device, *channels: int) -> Tensor:
    """Return fields of the lowest modes, ``(2, *channels, *space)``."""
    with torch.device("cpu"):
        low = torch.zeros(2, *channels, *grid.mode_shape, dtype=torch.float64)
        low.flatten(1)[:, :3] = 0.5
        fields = grid.from_modes(low)
    return fields.to(device)


def linearised(device: Device) -> Tensor:
    """Return residual and tangent about the eddies."""
    flow = NavierStokes(0.1, lambda y, x: (math.tau * y).sin()).in_modes(TORUS, eddies(device))
    v = flow.transform(eddies(device))
    z = flow.velocity(v)
    return torch.cat([flow.residual(v, v, z), flow.tangent(v, v, z), flow.advection(v)])


def gradient(solve: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Return the gradient of the squares of what ``solve`` makes of ``start``."""
    start.requires_grad_()
    return torch.autograd.grad(solve(start).square().sum(), start)[0]


def darcys_gradient(device: Device) -> Tensor:
    """Return that of a pressure in a medium of its own along each axis, with respect to it."""
    values = field(MIXED, device)
    darcy = Darcy(tolerance=1e-12)
    return gradient(
        lambda a: darcy.solve(a, MIXED, boundary=values), torch.stack([values] * 3, dim=1)
    )


WORK: dict[str, Callable[[Device], Tensor]] = {
    "to_modes": lambda d: MIXED.to_modes(field(MIXED, d)),
    "from_modes": lambda d: MIXED.from_modes(torch.ones(2, *MIXED.mode_shape, device=d)),
    "resample": lambda d: MIXED.resample(field(MIXED, d), MIXED.resized(9, 5, 11)),
    "between kinds": lambda d: Grid.neumann(6).resample(torch.ones(6, device=d), Grid.dirichlet(6)),
    "without_border": lambda d: MIXED.without_border(field(MIXED, d)),
    "fading border": lambda d: MIXED.without_border(field(MIXED, d), cells=MIXED.resized(5, 4, 5)),
    "norm": lambda d: sobolev_norm(field(MIXED, d), MIXED, -0.5),
    "spectrum": lambda d: energy_spectrum(field(MIXED, d), MIXED)[1],
    "random field": lambda d: GaussianRandomField(MIXED, 2.0, 3.0).sample(2, device=d),
    "random field on a sphere": lambda d: GaussianRandomField(SPHERE, 2.0, 3.0).sample(2, device=d),
    "Burgers": lambda d: Burgers(0.1).solve(field(CIRCLE, d), CIRCLE, [0.1, 0.2]),
    "Burgers residual": lambda d: Burgers(0.1).residual(field(CIRCLE, d), field(CIRCLE, d), CIRCLE),
    "Darcy": lambda d: Darcy(tolerance=1e-12).solve(field(SQUARE, d), SQUARE),
    "Darcy residual": lambda d: Darcy().residual(field(SQUARE, d), field(SQUARE, d), SQUARE),
    "Darcy's bound": lambda d: Darcy().error_bound(field(SQUARE, d), field(SQUARE, d), SQUARE),
    "Darcy by multigrid": lambda d: Darcy(tolerance=1e-12, preconditioner="multigrid").solve(
        smooth(Grid.dirichlet(33, 41), d).exp(), Grid.dirichlet(33, 41)
    ),
    "Navier–Stokes": lambda d: NavierStokes(0.1, lambda y, x: (math.tau * y).sin()).solve(
        eddies(d), TORUS, [0.1, 0.2]
    ),
    "beta plane": lambda d: NavierStokes(0.1, beta=1.0).solve(eddies(d), TORUS, 0.1),
    "Navier–Stokes residual": lambda d: NavierStokes(0.1).residual(eddies(d), eddies(d), TORUS),
    "Navier–Stokes in modes": linearised,
    "waves between walls": lambda d: integrate(
        KleinGordon(1.0, 1.0, 1.0), smooth(SQUARE, d, 2), SQUARE, 0.1
    ),
    "waves that are exact": lambda d: integrate(KleinGordon(), smooth(SQUARE, d, 2), SQUARE, 0.1),
    "reactions in a box": lambda d: integrate(
        GrayScott(0.03, 0.06), smooth(Grid.neumann(8, 9), d, 2), Grid.neumann(8, 9), [1.0, 2.0]
    ),
    "phases on a sphere": lambda d: integrate(
        AllenCahn(0.1), smooth(SPHERE, d), SPHERE, 0.1, step=0.05
    ),
    "flames on a torus": lambda d: integrate(
        KuramotoSivashinsky(), smooth(TORUS, d), TORUS, 1e-5, step=1e-6
    ),
    "solitons": lambda d: integrate(KdV(0.1), smooth(CIRCLE, d), CIRCLE, [0.01], step=0.01),
    "gradient of phases": lambda d: gradient(
        lambda u: integrate(AllenCahn(0.01), u, TORUS, 0.1, step=0.02), smooth(TORUS, d)
    ),
    "gradient of waves": lambda d: gradient(
        lambda u: integrate(KleinGordon(1.0, 1.0, 1.0), u, SQUARE, 0.02, step=0.01),
        smooth(SQUARE, d, 2),
    ),
    "Navier–Stokes gradient": lambda d: gradient(
        lambda w: NavierStokes(0.1, beta=1.0).solve(w, TORUS, 0.1), eddies(d)
    ),
    "shallow water gradient": lambda d: gradient(
        lambda state: ShallowWater().solve(state, SPHERE, 600.0),
        balanced(ShallowWater(), 1e-6 * field(SPHERE, d), SPHERE),
    ),
    "Darcy between walls": lambda d: Darcy(tolerance=1e-12, preconditioner="multigrid").solve(
        field(ROOM, d), ROOM, boundary=field(ROOM, d), flux={"x": (1.0, 2.0)}
    ),
    "Darcy's gradient": darcys_gradient,
    "velocity": lambda d: velocity(eddies(d), TORUS),
    "stream function": lambda d: stream_function(eddies(d), TORUS),
    "norm on the sphere": lambda d: sobolev_norm(field(SPHERE, d), SPHERE, -0.5),
    "shallow water": lambda d: ShallowWater().solve(
        balanced(ShallowWater(), 1e-6 * field(SPHERE, d), SPHERE), SPHERE, 600.0
    ),
    "loss": lambda d: SobolevLoss(SQUARE)(field(SQUARE, d)[:, None], 2 * field(SQUARE, d)[:, None]),
    "loss of bands and frames": lambda d: FrameLoss(CIRCLE, partial(BandLoss, edges=[30.0]))(
        field(CIRCLE, d)[:, None, None], 2 * field(CIRCLE, d)[:, None, None]
    ),
}
