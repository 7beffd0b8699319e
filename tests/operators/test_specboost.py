"""SpecBoost: stages that sum, and that are trained one after another on what is left."""

from __future__ import annotations

import json
import math

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from sobolev import Grid, SphereGrid
from sobolev.operators import FNO, SFNO, Operator, SpecBoost, operator_from
from sobolev.operators.layers.resampling import resampled


class Multiple(Operator):
    """u ↦ factor · (one channel of u), on periodic axes; exact on every grid."""

    def __init__(self, factor: float, in_channels: int = 1, channel: int = 0) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.channel = in_channels, 1, channel
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    @property
    def ndim(self) -> int:
        return 1

    def forward(self, u, size=None):
        return self.factor * resampled(u[:, [self.channel]], size, ["periodic"])


def scaled(operator: SpecBoost, mean: float, scale: float) -> SpecBoost:
    """With μ and σ of all stages but the first."""
    operator.mean[1:], operator.scale[1:] = mean, scale
    return operator


def field(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def small(modes: int = 4, in_channels: int = 1, **options: object) -> FNO:
    return FNO(in_channels, 1, (modes,), width=6, depth=2, **options)


def built(arguments: dict) -> Operator:
    return operator_from({"class": "SpecBoost", "arguments": arguments})


def test_the_prediction_is_the_sum_of_the_rescaled_stages():
    operator = scaled(SpecBoost([Multiple(2.0), Multiple(3.0), Multiple(-1.0)]), 0.5, 0.25).double()
    u = field(2, 1, 8)
    one, two, three = 2 * u, 2 * u + 0.5 + 0.75 * u, 2 * u + 1.0 + 0.5 * u
    assert torch.allclose(operator(u), three, atol=1e-14)
    for active, expected in ((1, one), (2, two), (3, three)):
        operator.active = active
        assert torch.allclose(operator(u), expected, atol=1e-14)
        assert torch.allclose(operator.partial(u, active), expected, atol=1e-14)
    assert torch.equal(operator.partial(u, 0), torch.zeros_like(u))


def test_later_stages_get_input_and_prediction_so_far_on_the_inputs_grid():
    # stage 1 returns what was handed over, so each stage doubles: 2u, 4u, 8u
    doubling = [Multiple(1.0, in_channels=2, channel=1) for _ in range(2)]
    operator = scaled(SpecBoost([Multiple(2.0), *doubling], hand_over=True), 0.0, 1.0).double()
    grid = Grid.periodic(9)
    u = field(2, 1, 9)
    assert torch.allclose(operator(u), 8 * u, atol=1e-13)
    fine = grid.resized(20)
    assert torch.allclose(operator(u, size=(20,)), 8 * grid.resample(u, fine), atol=1e-12)


@pytest.mark.parametrize("hand_over", [False, True])
def test_a_stage_without_a_fitted_scale_adds_nothing(hand_over):
    first = small()
    operator = SpecBoost([first, small(8, 1 + hand_over)], hand_over=hand_over)
    u = torch.randn(2, 1, 20)
    assert torch.equal(operator(u), first(u))
    assert torch.equal(operator(u, size=(33,)), first(u, size=(33,)))


def test_a_stage_that_is_not_active_is_not_evaluated():
    operator = SpecBoost([Multiple(2.0), Multiple(math.inf)], active=1).double()
    u = field(2, 1, 8)
    assert torch.equal(operator(u), 2 * u)


def test_what_is_active_survives_json():
    stages = [small(), small().description, small()]
    operator = scaled(built({"stages": stages}), 0.2, 0.1)
    operator.active = 2
    again = operator_from(json.loads(json.dumps(operator.description)))
    again.load_state_dict(operator.state_dict())
    assert isinstance(again, SpecBoost)
    assert again.active == 2
    assert again.description == operator.description
    u = torch.randn(2, 1, 20)
    assert torch.equal(again(u), operator(u))


def test_only_the_stage_in_training_gets_gradients_and_the_earlier_ones_stay_in_evaluation_mode():
    operator = scaled(SpecBoost([small(), small(8, 2), small(8, 2)], hand_over=True), 0.0, 0.1)
    operator.train_stage(1)
    operator.train()  # what a trainer calls after each validation
    assert [s.training for s in operator.stages] == [False, True, False]
    operator(torch.randn(2, 1, 20)).sum().backward()
    for k, stage in enumerate(operator.stages):
        assert all(p.requires_grad == (k == 1) for p in stage.parameters())
        assert all((p.grad is not None) == (k == 1) for p in stage.parameters())
    assert list(operator.stage_parameters(1)) == list(operator.stages[1].parameters())
    operator.train_stage(None)
    assert operator.active == 3
    assert all(s.training for s in operator.stages)
    assert all(p.requires_grad for p in operator.parameters())
    assert not any(s.training for s in operator.eval().stages)


def test_stages_are_frozen_before_their_scale_is_known():
    operator = SpecBoost([small(), small(8)])
    operator.freeze_except(1)
    assert [all(p.requires_grad for p in s.parameters()) for s in operator.stages] == [False, True]
    assert operator.active == 2


def test_scales_are_those_of_all_residuals_whatever_their_batches():
    operator = SpecBoost([FNO(1, 2, (3,), width=4), FNO(1, 2, (3,), width=4)]).double()
    residuals = torch.tensor([3.0, 0.01])[:, None] * field(10, 2, 16) + 5.0
    operator.fit_scale(1, residuals.split([1, 6, 3]))
    values = residuals.transpose(0, 1).flatten(1)
    assert torch.allclose(operator.mean[1], values.mean(1), rtol=1e-13)
    assert torch.allclose(operator.scale[1], values.std(1, correction=0), rtol=1e-12)


@pytest.mark.parametrize("size", [20, 40])
@pytest.mark.parametrize("hand_over", [False, True])
def test_a_stage_that_learns_its_target_completes_the_prediction(hand_over, size):
    operator = SpecBoost([small(), small(8, 1 + hand_over)], hand_over=hand_over).double()
    u, y = field(5, 1, 20), field(5, 1, size) + 2
    operator.fit_scale(1, operator.residual(u, y, 1))
    output, target = operator.learning_pair(u, y, 1)
    assert target.mean().item() == pytest.approx(0, abs=1e-12)
    assert target.std(correction=0).item() == pytest.approx(1, abs=1e-12)
    learnt = operator(u, size=(size,)) + operator.scale[1] * (target - output)
    assert torch.allclose(learnt, y, atol=1e-12)


def fitted(operator: SpecBoost, u: Tensor, y: Tensor, k: int, steps: int = 100) -> Tensor:
    """Relative error per mode band after training stage ``k``, ≤ 3 and above."""
    if k:
        operator.fit_scale(k, operator.residual(u, y, k))
    operator.train_stage(k)
    optimizer = torch.optim.Adam(operator.stage_parameters(k), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        output, target = operator.learning_pair(u, y, k)
        (output - target).square().mean().backward()
        optimizer.step()
    wrong, right = (torch.fft.rfft(v).abs().square() for v in (operator(u) - y, y))
    bands = [(0, 4), (4, None)]
    return torch.stack([(wrong[..., a:b].sum() / right[..., a:b].sum()).sqrt() for a, b in bands])


@pytest.mark.slow
def test_a_second_stage_with_more_modes_learns_what_the_first_leaves():
    torch.manual_seed(0)
    c = torch.randn(16, 1, 33, dtype=torch.complex64)
    c[..., 4:8] = c[..., 13:] = c[..., 0] = 0.0
    c[..., 8:13] *= 0.05
    u, y = torch.fft.irfft(c, n=64) * 10, torch.fft.irfft(1j * c, n=64) * 10  # Hilbert's transform
    operator = SpecBoost([small(4), small(14)])
    first, both = fitted(operator, u, y, 0), fitted(operator, u, y, 1)
    assert first[1] > 0.8  # the first stage has no such modes
    assert both[1] < 0.4 * first[1]
    assert both[0] < 1.2 * first[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SpecBoost([]), "at least one stage"),
        (lambda: SpecBoost([s := small(), s]), "weights of its own"),
        (
            lambda: SpecBoost([small(), small()], hand_over=True),
            r"stage 1 needs in_channels=2 \(input and prediction so far\) .* it has 1",
        ),
        (lambda: SpecBoost([small(), small(in_channels=2)]), "in_channels=1 .* it has 2"),
        (lambda: SpecBoost([small(), FNO(1, 2, (4,))]), "out_channels=1 .* it has 2"),
        (lambda: SpecBoost([small(), FNO(1, 1, (4, 4), width=4)]), "ndim=1 .* it has 2"),
        (lambda: SpecBoost([small(), small(boundary="neumann")]), "built for boundary="),
        (
            lambda: built({"stages": [small(), {"class": "FNOO", "arguments": {}}]}),
            "did you mean FNO",
        ),
        (lambda: SpecBoost([SpecBoost([small()]), small()]), "stage 0 is a SpecBoost; give its"),
        (lambda: SpecBoost(["FNO"]), "a mapping of class and arguments.*; got 'FNO'"),
        (lambda: SpecBoost([small().description]), "SpecBoost takes operators; operator_from"),
        (lambda: built({"stages": ["FNO"]}), "a mapping of class and arguments.*; got 'FNO'"),
        (lambda: built({"stages": [{}]}), r"a mapping of class and arguments.*; got \{\}"),
        (
            lambda: built({"stages": [{"class": "FNO", "arguments": {"widht": 3}}]}),
            "no arguments of FNO: .*'",
        ),
        (
            lambda: SpecBoost([FNO(1, 1, (2, 2), width=4), SFNO(1, 1, SphereGrid(8, 16), width=4)]),
            "no grid suits all stages: on SphereGrid.*, stage 0 says: FNO works on flat grids",
        ),
        (
            lambda: SpecBoost([SFNO(1, 1, SphereGrid(8, 16, radius=r), width=4) for r in (1, 2)]),
            "stage 1 says: SFNO was built for a sphere of .* radius=2",
        ),
        (lambda: SpecBoost([small()], active=0), "1 to 1; got 0"),
        (lambda: setattr(SpecBoost([small()]), "active", 2), "1 to 1; got 2"),
        (lambda: setattr(SpecBoost([small()]), "active", 1.0), "1 to 1; got 1.0"),
        (lambda: SpecBoost([small()]).partial(torch.ones(1, 1, 8), -1), "0 to 1; got -1"),
        (lambda: SpecBoost([small()]).partial(torch.ones(1, 1, 8), 2), "0 to 1; got 2"),
        (
            lambda: SpecBoost([small(), small()]).learning_pair(*torch.ones(2, 1, 1, 8), 1),
            "stage 1 has no scale yet",
        ),
        (lambda: SpecBoost([small()]).train_stage(1), "stages 0 to 0, got 1"),
        (lambda: SpecBoost([small(), small()]).train_stage(1), r"fit_scale\(1, residuals\)"),
        (lambda: SpecBoost([small()]).fit_scale(0, torch.ones(2, 1, 8)), "nothing to learn"),
        (lambda: SpecBoost([small()]).fit_scale(0, [torch.full((1, 1, 8), math.nan)]), "finite"),
        (lambda: SpecBoost([small()]).fit_scale(0, []), "no residuals"),
        (lambda: SpecBoost([small()]).fit_scale(0, torch.ones(2, 8)), r"got a tensor of shape"),
    ],
)
def test_bad_input_is_refused(call, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which refuses types itself
    with pytest.raises(ValueError, match=message):
        call()


def test_a_grid_is_checked_by_every_stage():
    with pytest.raises(ValueError, match="built for boundary"):
        SpecBoost([small(), small()]).check_grid(Grid.dirichlet(9))
    SpecBoost([small(), small()]).check_grid(Grid.periodic(9))
