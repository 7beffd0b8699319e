"""Scalars as inputs: what they change, and what they leave as it was."""

from __future__ import annotations

import json
from collections.abc import Sequence

import jaxtyping
import numpy as np
import pytest
import torch
from support.operators import CASES, shallow
from support.rotations import nodes, polynomial, rotation, value_at
from torch import Tensor, nn
from torch.nn import functional as F

from sobolev import Grid, SphereGrid
from sobolev.operators import (
    FNO,
    GFNO,
    SFNO,
    Modulated,
    Operator,
    Planar,
    SpatioTemporalFNO,
    SpecBoost,
    Trajectory,
    operator_from,
)
from sobolev.operators.layers.film import Film

PLAIN = {
    name: case
    for name, case in CASES.items()
    if not any(isinstance(part, (Modulated, SpecBoost)) for part in case.build().modules())
}
each_operator = pytest.mark.parametrize("case", PLAIN.values(), ids=PLAIN)


def awake(operator: Operator) -> Operator:
    """As after training: scales and shifts depend on the scalars."""
    for part in operator.modules():
        if isinstance(part, Modulated):
            nn.init.normal_(part.network[-1].weight, 0.0, 0.2)
            nn.init.normal_(part.network[-1].bias, 0.0, 0.2)
    return operator


def with_scalars(p: Tensor, u: Tensor) -> Tensor:
    """``(batch, scalars)`` as constant channels before those of the field."""
    return torch.cat(
        [p.reshape(*p.shape, *[1] * (u.ndim - 2)).expand(*p.shape, *u.shape[2:]), u], 1
    )


@each_operator
def test_training_begins_with_the_operator_as_it_is(case):
    operator, u = shallow(case.build()), case.input()
    modulated = Modulated(operator, 2)
    assert (modulated.in_channels, modulated.out_channels) == (4, 1)
    found = modulated(with_scalars(torch.randn(2, 2), u))
    assert torch.allclose(found, operator(u), rtol=1e-5, atol=1e-6)


@each_operator
def test_every_layer_is_scaled_and_shifted_by_functions_of_the_scalars_alone(case):
    operator = Modulated(case.build())
    u, p = case.input(), torch.randn(2, 1)
    channels = operator.operator.film_channels
    assert len(channels) == operator.operator.description["arguments"].get("depth", len(channels))
    before = operator(with_scalars(p, u))
    before.square().sum().backward()
    gradient = operator.network[-1].weight.grad
    for width, layer in zip(channels, gradient.split([2 * w for w in channels]), strict=True):
        for part in layer.split(width):  # the scales and the shifts
            assert (part.abs().sum(1) > 0).float().mean() > 0.9
    awake(operator)
    after = operator(with_scalars(p, u))
    assert (after - before).norm() > 0.01 * before.norm()
    alone = operator(with_scalars(p[1:], u[1:]))  # no sample takes the scalars of another
    assert torch.allclose(after[1:], alone, rtol=1e-4, atol=1e-5)


@each_operator
def test_recomputed_layers_get_the_scalars_that_they_had(case):
    """Two calls with different scalars before one backward pass, as in a rollout."""
    operator, u = awake(Modulated(shallow(case.build()))), case.input()
    calls = [with_scalars(p, u) for p in torch.randn(2, 2, 1)]

    def gradients() -> list[Tensor]:
        operator.zero_grad()
        sum(operator(v).square().sum() for v in calls).backward()
        return [p.grad.clone() for p in operator.parameters()]

    plain = gradients()
    operator.checkpointing = True
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(), strict=True))


def test_a_step_of_training_reaches_the_whole_network():
    operator = Modulated(FNO(1, 1, (4,), width=4, depth=1), parameters=2)
    optimizer = torch.optim.SGD(operator.parameters(), lr=0.1)
    u = with_scalars(torch.randn(3, 2), torch.randn(3, 1, 9))
    assert operator.network[-1].weight.abs().max() == operator.network[-1].bias.abs().max() == 0
    for _ in range(2):
        optimizer.zero_grad()
        operator(u).square().sum().backward()
        optimizer.step()
    assert all(p.grad.abs().max() > 0 for p in operator.network.parameters())


def test_the_modulation_of_the_paper_set_by_hand():
    """One linear layer without a kernel: what is projected is (1 + γ) (W v + b) + β."""
    fno = FNO(1, 1, (2,), width=3, depth=1).double()
    operator = Modulated(fno).double()
    nn.init.zeros_(fno.blocks[0].kernel.weight)
    nn.init.normal_(operator.network[-1].bias)
    gamma, beta = operator.network[-1].bias.split(3)
    u = torch.randn(2, 1, 8, dtype=torch.float64)
    v = fno.blocks[0].skip(fno.lift(u.movedim(1, -1)))
    expected = fno.project((1 + gamma) * v + beta).movedim(-1, 1)
    found = operator(with_scalars(torch.zeros(2, 1, dtype=torch.float64), u))
    assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet", "neumann"])
@pytest.mark.parametrize("modes", [3, 100])  # by products and, on periodic axes, by the FFT
def test_a_modulation_in_the_weights_is_that_of_the_layers_output(boundary, modes):
    """The FNO's plain block scales and shifts coefficients and weights; the values are the same."""
    block = FNO(1, 1, (modes,), width=4, depth=1, boundary=boundary).double().blocks[0]
    nn.init.normal_(block.kernel.weight)
    v = torch.randn(2, 256, 4, dtype=torch.float64)
    film = Film(torch.randn(2, 4).double(), torch.randn(2, 4).double())
    transforms = block.kernel.modes.between((256,), (256,), v)
    assert bool(transforms.forward) == (modes == 3 or boundary != "periodic")
    expected = film(block(v, transforms))
    assert torch.allclose(block(v, transforms, film), expected, atol=1e-11)


def test_shifts_commute_as_without():
    operator = awake(Modulated(FNO(1, 1, (4, 4), width=6, depth=2))).double()
    u = with_scalars(torch.randn(2, 1), torch.randn(2, 1, 9, 9)).double()
    assert torch.allclose(operator(u.roll((3, -5), (2, 3))), operator(u).roll((3, -5), (2, 3)))


@pytest.mark.parametrize("group", ["p4", "p4m"])
def test_turns_and_reflections_commute_as_without(group):
    pair = {"in": [[0, 1]]}  # counted without the scalars, which stay scalars
    operator = awake(Modulated(GFNO(2, 1, (3, 3), width=3, depth=2, group=group, vectors=pair)))
    operator = operator.double()
    p, u = torch.randn(2, 1).double(), torch.randn(2, 2, 9, 9).double()
    result = operator(with_scalars(p, u))
    y, x = u.rot90(dims=(2, 3)).unbind(1)
    turned = operator(with_scalars(p, torch.stack([-x, y], 1)))
    assert torch.allclose(turned, result.rot90(dims=(2, 3)), atol=1e-12)
    y, x = u.flip(3).unbind(1)
    mirrored = operator(with_scalars(p, torch.stack([y, -x], 1)))
    assert torch.allclose(mirrored, result.flip(3), atol=1e-12) == (group == "p4m")


def test_a_modulated_sfno_is_one_function_on_every_grid_and_turns_with_its_input():
    """To rounding on grids, and to the aliasing of GELU on its inner grid under rotations."""
    grid, other = SphereGrid(17, 34), SphereGrid(21, 40)
    sfno = SFNO(2, 1, grid, degrees=4, width=6, depth=2)
    operator, p = awake(Modulated(sfno)).double(), torch.ones(1, 1, dtype=torch.float64)
    turn = rotation()
    still, coarse, fine = (
        operator(with_scalars(p, polynomial(points)), size=grid.shape)
        for points in (nodes(grid) @ turn, nodes(grid), nodes(other))
    )
    assert torch.allclose(coarse, fine, atol=1e-11)
    points = nodes(grid).flatten(0, 1)[::50]
    turned = value_at(points, still[0], grid)
    assert torch.allclose(turned, value_at(points @ turn, coarse[0], grid), atol=1e-5)
    assert coarse.std() > 1e-3


class Outside(Operator):
    """Somebody else's: two hidden channels, squashed between two linear maps."""

    in_channels = out_channels = ndim = 1

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 2, 1), nn.Conv1d(2, 1, 1)

    @property
    def film_channels(self) -> list[int]:
        return [2]

    def forward(self, u: Tensor, size: Sequence[int] | None = None, *, films=None) -> Tensor:
        v = self.run(self.first, u)
        return self.second(F.gelu(v if films is None else films[0](v, channels=1)))


def test_an_operator_from_outside_is_modulated_if_it_says_how():
    operator, u = Modulated(Outside()), torch.randn(2, 1, 7)
    before = operator(with_scalars(torch.ones(2, 1), u))
    assert torch.equal(before, operator.operator(u))
    assert not torch.equal(awake(operator)(with_scalars(torch.ones(2, 1), u)), before)
    again = operator_from(json.loads(json.dumps(operator.description)), [Outside])
    assert again.description == operator.description


def test_the_number_of_scalars_may_be_numpys(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which takes Python's alone
    assert json.dumps(Modulated(small(), np.int64(2)).description) == json.dumps(
        Modulated(small(), 2).description
    )


def test_inside_and_around_a_trajectory_are_one_operator():
    inner = SpatioTemporalFNO(1, 1, (3, 3, 2), width=4, depth=2, latent_steps=3)
    around = awake(Modulated(Trajectory(inner, history=3, horizon=2), parameters=2))
    inside = Modulated(inner, parameters=2)
    inside.network.load_state_dict(around.network.state_dict())
    inside = Trajectory(inside, history=3, horizon=2, static=2)
    assert inside.in_channels == around.in_channels == 5
    u = with_scalars(torch.randn(2, 2), torch.randn(2, 3, 7, 8))
    assert torch.equal(around(u), inside(u))


def test_inside_and_around_a_plane_are_one_operator():
    flat = FNO(1, 1, (3, 3), width=4, depth=1, boundary=["neumann", "periodic"])
    around = awake(Modulated(Planar(flat)))
    inside = Modulated(flat)
    inside.network.load_state_dict(around.network.state_dict())
    u = with_scalars(torch.randn(2, 1), torch.randn(2, 1, 8, 16))
    assert torch.equal(around(u), Planar(inside)(u))
    around.check_grid(SphereGrid(8, 16))
    with pytest.raises(ValueError, match="give its operator alone"):
        around.check_grid(Grid.periodic(8, 16))


def test_each_stage_of_a_boost_has_a_modulation_of_its_own():
    stages = [Modulated(FNO(channels, 1, (3,), width=4, depth=1)) for channels in (1, 2)]
    operator = awake(SpecBoost(stages, hand_over=True))
    operator.scale.fill_(1.0)
    u = with_scalars(torch.randn(2, 1), torch.randn(2, 1, 9))
    first = stages[0](u)
    assert torch.allclose(operator(u), first + stages[1](torch.cat([u, first], 1)), atol=1e-6)


def test_a_modulated_stage_beside_an_sfno_must_suit_its_sphere():
    sfno = SFNO(1, 1, SphereGrid(8, 16), width=4, depth=1)
    other = SFNO(1, 1, SphereGrid(8, 16, "equiangular"), width=4, depth=1)
    with pytest.raises(ValueError, match="no grid suits all stages"):
        SpecBoost([Modulated(sfno), Modulated(other)])


def heated(u: Tensor, viscosities: Tensor) -> Tensor:
    """What each viscosity makes of the fields on a circle, exp(−ν k²) û: ``(viscosity, batch, n)``."""
    k = torch.arange(u.shape[-1] // 2 + 1)
    decay = (-viscosities[:, None, None] * k**2).exp()
    return torch.fft.irfft(torch.fft.rfft(u) * decay, n=u.shape[-1])


def test_learns_heat_conduction_at_several_viscosities():
    """To half the error that no map of the field alone can go below: on fields that each occur with every
    viscosity, the best of them predicts the mean over the viscosities."""
    viscosities = torch.tensor([0.002, 0.01, 0.05])
    scalars = torch.tensor([-1.0, 0.0, 1.0])

    def pairs(count: int) -> tuple[Tensor, Tensor]:
        u = torch.fft.irfft(torch.randn(count, 6, dtype=torch.complex64), n=16, norm="forward")
        y = heated(u, viscosities)
        inputs = with_scalars(scalars.repeat_interleave(count)[:, None], u.repeat(3, 1)[:, None])
        return inputs, y.flatten(0, 1)[:, None]

    operator = Modulated(FNO(1, 1, (6,), width=16, depth=1))
    optimizer = torch.optim.Adam(operator.parameters())
    for step in range(80):
        optimizer.param_groups[0]["lr"] = 2e-2 * (1 - step / 80)
        inputs, targets = pairs(32)
        optimizer.zero_grad()
        ((operator(inputs) - targets).norm() / targets.norm()).backward()
        optimizer.step()
    inputs, targets = pairs(64)
    of_each = targets.unflatten(0, (3, 64))
    blind = (of_each - of_each.mean(0)).norm() / targets.norm()
    with torch.no_grad():
        assert (operator(inputs) - targets).norm() / targets.norm() < 0.5 * blind


class Plain(Operator):
    """Somebody else's that says nothing of its layers."""

    in_channels = out_channels = ndim = 1

    def forward(self, u: Tensor, size: Sequence[int] | None = None) -> Tensor:
        return u


def small() -> FNO:
    return FNO(1, 1, (3,), width=4, depth=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Modulated(small(), 0), "Modulated needs whole .* at least 1; parameters has 0"),
        (lambda: Modulated(small(), 1.0), "parameters has 1.0"),
        (lambda: Modulated(small(), hidden=0), "hidden has 0"),
        (lambda: Modulated("FNO"), "Modulated takes operators"),
        (lambda: Modulated(Plain()), "forward takes films.*; Plain has no film_channels"),
        (lambda: Modulated(SpecBoost([small()])), "SpecBoost is not modulated as a whole"),
        (lambda: Modulated(Modulated(small())), "already; give that one all parameters"),
        (lambda: Modulated(small())(torch.zeros(2, 1, 9)), "in_channels=2, got 1 channels"),
    ],
)
def test_bad_input_is_refused(call, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which refuses types itself
    with pytest.raises(ValueError, match=message):
        call()
