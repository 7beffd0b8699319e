"""Frames as channels: which channel goes where in time."""

from __future__ import annotations

import json

import jaxtyping
import pytest
import torch

from sobolev import Grid
from sobolev.datasets.loading.items import FromMemory, Items
from sobolev.datasets.loading.windows import Window
from sobolev.operators import FNO, Operator, SpatioTemporalFNO, Trajectory, operator_from

KINDS = ["periodic", "dirichlet", "neumann"]


class Delayed(Operator):
    """(static, a, b) at times 0 … n − 1 ↦ (b, static · a) at n times from the latest back."""

    boundary = KINDS

    def __init__(self) -> None:
        super().__init__()
        self.in_channels, self.out_channels = 3, 2

    @property
    def ndim(self) -> int:
        return 3

    def forward(self, u, size=None):
        assert tuple(size[:-1]) == tuple(u.shape[2:-1])
        static, a, b = u.unbind(1)
        return torch.stack([b, static * a], dim=1).flip(-1)[..., : size[-1]]


def window(history: int, horizon: int) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """A batch of two items as a data module cuts it, and the arrays it was cut from."""
    arrays = {
        "s": torch.randn(2, 4, 5).numpy(),
        "a": torch.randn(2, history + horizon, 4, 5).numpy(),
        "b": torch.randn(2, history + horizon, 4, 5).numpy(),
    }
    items = Items(
        FromMemory(arrays, torch.arange(2).numpy()), torch.arange(2).numpy(), ["s"], ["a", "b"],
        times=range(history + horizon), window=Window(history, horizon),
    )  # fmt: skip
    return items.inputs, items.outputs, arrays


def test_frames_and_variables_are_those_of_a_data_window():
    u, _, arrays = window(history=4, horizon=2)
    operator = Trajectory(Delayed(), history=4, horizon=2, static=1)
    assert (operator.in_channels, operator.out_channels) == (1 + 4 * 2, 2 * 2)
    s, a, b = (torch.from_numpy(arrays[name]) for name in "sab")
    latest, before = 3, 2
    expected = torch.stack([b[:, latest], s * a[:, latest], b[:, before], s * a[:, before]], dim=1)
    assert torch.equal(operator(u), expected)


def test_identity_in_time_returns_the_input_frames():
    class Identity(Operator):
        in_channels = out_channels = 2
        ndim = 3

        def forward(self, u, size=None):
            return u

    u = torch.randn(3, 10, 4, 5)
    assert torch.equal(Trajectory(Identity(), history=5, horizon=5)(u), u)


def test_repeated_frames_are_channels_at_every_output_time():
    seen = []

    class Recorder(Operator):
        in_channels, out_channels, ndim = 5, 1, 3

        def forward(self, u, size=None):
            seen.append((u, tuple(size)))
            return u[:, :1]

    u = torch.randn(2, 5, 4, 6)
    operator = Trajectory(Recorder(), history=2, horizon=3, static=1, repeat=True)
    assert (operator.in_channels, operator.out_channels) == (5, 3)
    assert operator(u).shape == (2, 3, 4, 6)
    v, size = seen[0]
    assert size == (4, 6, 3)
    assert all(torch.equal(v[..., t], u) for t in range(3))


@pytest.mark.parametrize("repeat", [False, True])
def test_an_fno_with_a_nodal_time_axis_goes_to_any_horizon_and_grid(repeat):
    kinds = ["periodic", "periodic", "dirichlet"]
    fno = FNO(4 if repeat else 1, 1, (3, 3, 3), width=4, depth=2, boundary=kinds, positions=True)
    operator = Trajectory(fno, history=4, horizon=7, repeat=repeat)
    u = torch.randn(2, 4, 8, 9)
    assert operator(u).shape == (2, 7, 8, 9)
    assert operator(u, size=(12, 10)).shape == (2, 7, 12, 10)


def test_a_trajectory_operator_is_the_operator_on_its_own_axis_order():
    inner = SpatioTemporalFNO(1, 1, (3, 3, 2), width=6, depth=2, latent_steps=3)
    operator = Trajectory(inner, history=3, horizon=2)
    u = torch.randn(2, 3, 7, 8)
    expected = inner(u.movedim(1, -1)[:, None], size=(7, 8, 2))[:, 0].movedim(-1, 1)
    assert torch.equal(operator(u), expected)


def test_configuration_survives_json():
    inner = FNO(3, 2, (2, 2, 2), width=4, boundary=KINDS)
    operator = Trajectory(inner, history=2, horizon=3, static=1, repeat=True)
    again = operator_from(json.loads(json.dumps(operator.description)))
    assert again.description == operator.description
    assert again.boundary == KINDS[:-1]
    assert "operator" in operator.configuration


def test_the_grid_is_that_of_space():
    operator = Trajectory(Delayed(), history=2, horizon=1, static=1)
    operator.check_grid(Grid(Grid.periodic(4, 4).axes[0], Grid.dirichlet(5).axes[0]))
    with pytest.raises(
        ValueError, match="works on 2-dimensional fields here, the data are 1-dimensional"
    ):
        operator.check_grid(Grid.periodic(4))
    with pytest.raises(ValueError, match="the data's axes are"):
        operator.check_grid(Grid.periodic(4, 4))


def test_the_inner_operators_demands_on_the_grid_hold():
    flow = SpatioTemporalFNO(2, 2, (2, 2, 2), width=4, solenoidal=True)
    operator = Trajectory(flow, history=2, horizon=1)
    operator.check_grid(Grid.periodic(4, 4))
    with pytest.raises(ValueError, match="space axes of one length"):
        operator.check_grid(Grid.periodic(4, 4, length=(1.0, 2.0)))


def test_checkpointing_reaches_the_operator():
    operator = Trajectory(Delayed(), history=2, horizon=1, static=1)
    operator.checkpointing = True
    assert operator.operator.checkpointing


def nodal() -> FNO:
    return FNO(1, 1, (3, 3), width=4, depth=1, boundary=["periodic", "dirichlet"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Trajectory(Delayed(), 0, 1), "history has 0"),
        (lambda: Trajectory(Delayed(), 1, 0), "horizon has 0"),
        (lambda: Trajectory(FNO(1, 1, (4,), width=4), 1, 1), "FNO has one axis in all"),
        (lambda: Trajectory(Delayed(), 1, 1, static=3), "must hold 3 static"),
        (lambda: Trajectory(Delayed(), 1, 1, static=-1), "0 or more; got -1"),
        (lambda: Trajectory(Delayed(), 1, 1, static=1.0), "0 or more; got 1.0"),
        (lambda: Trajectory("FNO", 1, 1), "a mapping of class and arguments.*; got 'FNO'"),
        (lambda: Trajectory(Delayed(), 2, 1, repeat=True), "and 2 frames of each variable"),
        (lambda: Trajectory(nodal(), 3, 2), "needs at least 3 times, got horizon=2"),
        (lambda: Trajectory(nodal(), 1, 3), "needs at least 3 times, got history=1"),
        (
            lambda: Trajectory(Delayed(), 2, 1, static=1)(torch.zeros(1, 4, 3, 3)),
            "in_channels=5, got 4 channels",
        ),
    ],
)
def test_bad_input_is_refused(call, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which refuses types itself
    with pytest.raises(ValueError, match=message):
        call()
