"""Solutions that others have published: phases, solitons, waves, flame fronts and a shock."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import scipy.io
import torch
from torch import Tensor

from sobolev.grids import Grid
from sobolev.solvers import (
    AllenCahn,
    Burgers,
    KdV,
    KuramotoSivashinsky,
    Schroedinger,
    integrate,
)

FOREIGN = Path(__file__).parents[3] / "shared" / "data" / "foreign"
pytestmark = pytest.mark.skipif(not FOREIGN.is_dir(), reason=f"public files are not in {FOREIGN}")


def frames(file: str, field: str, time: str) -> tuple[Tensor, Tensor]:
    """Return a file's fields, ``(time, x)``, and its times."""
    content = scipy.io.loadmat(FOREIGN / file)
    return torch.as_tensor(content[field].T).double(), torch.as_tensor(content[time]).flatten()


def errors(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).norm(dim=-1) / wanted.norm(dim=-1)


@pytest.mark.parametrize(
    ("file", "equation", "accuracy"),
    [
        ("AC", AllenCahn(1e-4, 5.0), 1e-3),
        ("KdV", KdV(0.0025), 1e-3),
        ("NLS", Schroedinger(), 1e-3),
    ],
)
def test_solutions_of_the_pinns(file, equation, accuracy):
    """Those of Raissi et al. (2019), by Chebfun: we agree to what their files hold."""
    content = scipy.io.loadmat(FOREIGN / "pinns" / f"{file}.mat")
    u = torch.as_tensor(content["uu"].T)
    u = torch.stack([u.real, u.imag], dim=1) if u.is_complex() else u
    x, times = content["x"].flatten(), content["tt"].flatten()
    length = (x[1] - x[0]) * len(x) if len(x) == u.shape[-1] else x[-1] - x[0]
    grid = Grid.periodic(u.shape[-1], length=float(length), origin=float(x[0]))
    some = [0, len(times) // 3, len(times) - 1]
    found = integrate(equation, u[:1].double(), grid, times[some].tolist())
    for i, number in enumerate(some):
        assert (found[0, i] - u[number]).norm() < accuracy * u[number].norm(), number


def test_flame_fronts_of_the_pinns():
    """The file does not say its equation. Regression of u_t on u u_x, u_xx and u_xxxx gives −1.59155, −0.168869 and
    −0.00190111 to 4e-7: Kuramoto–Sivashinsky on a circle of 6π until t = 15, mapped to [−1, 1] and [0, 1]."""
    u, times = frames("pinns/KS.mat", "uu", "tt")
    assert torch.equal(u[:, 0], u[:, -1])  # both ends are stored
    u = u[:, :-1]
    some = [67, 200]
    grid = Grid.periodic(512, length=6 * math.pi)
    found = integrate(KuramotoSivashinsky(), u[:1], grid, (15 * times[some]).tolist())
    assert (errors(found[0], u[some]) < 1e-7).all()


def test_chaotic_flame_fronts_and_their_statistics():
    """We follow the file to its end at t = 100, where errors have grown a thousandfold; in steps of 0.02 they are
    4e-6. Fronts from other initial fields have the deviation and the mean wavenumber of its later half."""
    u, times = frames("deephpms/KS_chaotic.mat", "usol", "t")
    assert torch.equal(u[:, 0], u[:, -1])  # both ends are stored, as its x says
    u = u[:, :-1]
    grid = Grid.periodic(511, length=32 * math.pi)
    some = [50, 125, 250]
    found = integrate(KuramotoSivashinsky(), u[:1], grid, times[some].tolist(), step=0.05)
    assert (errors(found[0], u[some]) < torch.tensor([1e-6, 1e-5, 1e-3])).all()

    torch.manual_seed(0)
    x = grid.points()[0] / 16
    waves = [torch.randn(4, 1) * torch.cos(j * x + 7 * torch.rand(4, 1)) for j in range(1, 9)]
    coarse = Grid.periodic(256, length=32 * math.pi)
    start = grid.resample(sum(waves[1:], waves[0]).double(), coarse) / 2
    late = integrate(KuramotoSivashinsky(), start, coarse, list(range(60, 160, 2)), step=0.2)
    assert late.std() == pytest.approx(u[125:].std().item(), rel=0.06)
    assert mean_wavenumber(late) == pytest.approx(mean_wavenumber(u[125:]), rel=0.03)


def mean_wavenumber(u: Tensor) -> float:
    power = torch.fft.rfft(u).abs().square().flatten(0, -2).mean(0)[:60]
    return float((power * torch.arange(60)).sum() / power.sum())


def test_the_shock_of_burgers():
    """ν = 0.01/π from −sin πx. It is odd, so that walls of zeros and a circle of length 2 are the same."""
    u, times = frames("pinns/burgers_shock.mat", "usol", "t")
    every, some = 8, [33, 99]
    grid = Grid.periodic(255 * every, length=2.0, origin=-1.0)
    start = -torch.sin(math.pi * grid.points()[0])[None]
    found = integrate(Burgers(0.01 / math.pi), start, grid, times[some].tolist())
    picked = found[0, :, ::every]  # the file stores both ends
    assert (errors(torch.cat([picked, picked[:, :1]], dim=1), u[some]) < 1e-6).all()
