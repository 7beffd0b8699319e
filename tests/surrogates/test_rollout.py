"""Autoregression against exact solutions of linear problems, and gradients against derivatives by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.linalg
import torch
import xarray as xr
from torch import nn

from sobolev import Grid, SphereGrid, Surrogate
from sobolev.datasets.loading.windows import Window
from sobolev.grids.description import axis_coords
from sobolev.grids.variables import Variable
from sobolev.operators import Operator

STEP = 0.1
SPEED, DIFFUSIVITY = torch.tensor([1.0, -0.5])[:, None], torch.tensor([0.01, 0.02])[:, None]
QUANTITIES = [Variable("heat", "temperature", "K"), Variable("salt", "salinity", "1")]
SOURCE = Variable("source", "source of both", "1")
LINE = Grid.periodic(11)


class Transport(Operator):
    """u_t = L u + f with L = −c ∂_x + ν ∂_xx, two quantities of different c and ν, the same f: from
    two frames to the next two, each by the mean of the exact flows from both."""

    in_channels, out_channels, ndim = 5, 4, 1

    def forward(self, u, size=None):
        source, older, newer = u.split([1, 2, 2], dim=1)
        return torch.cat(
            [(flow(newer, source, n) + flow(older, source, n + 1)) / 2 for n in (1, 2)], dim=1
        )


def flow(u, source, steps):
    """e^{tL} u + ∫₀ᵗ e^{sL} f ds, mode by mode."""
    k = 2j * torch.pi * torch.fft.fftfreq(u.shape[-1], 1 / u.shape[-1], dtype=torch.float64)
    rate = (DIFFUSIVITY * k**2 - SPEED * k) * steps * STEP
    small = rate == 0
    integral = torch.where(small, 1.0, (rate.exp() - 1) / torch.where(small, 1.0, rate))
    forced = integral * steps * STEP * torch.fft.fft(source)
    return torch.fft.ifft(rate.exp() * torch.fft.fft(u) + forced).real.to(u.dtype)


class Linear(Operator):
    """u ↦ factor · u + shift, on any grid."""

    in_channels, out_channels = 1, 1

    def __init__(self, factor, shift=0.0, ndim=1):
        super().__init__()
        self.factor, self.shift, self._ndim = nn.Parameter(torch.tensor(factor)), shift, ndim

    @property
    def ndim(self):
        return self._ndim

    def check_grid(self, grid):
        pass

    def forward(self, u, size=None):
        return self.factor * u + self.shift


def in_time(operator, grid, window, static=(), quantities=QUANTITIES, mean=0.0, **record):
    """A surrogate whose variables all have this mean and the standard deviation 2."""
    inputs, outputs = [*static, *window.inputs(quantities)], window.outputs(quantities)
    statistics = {v.name: (mean if v not in static else 0.0, 2.0) for v in [*inputs, *outputs]}
    numbers = [window.history, window.horizon, window.stride]
    record = {"window": numbers, "interval": STEP, "time_units": "s", **record}
    return Surrogate(operator, grid, inputs, outputs, statistics, {"data": record}).eval()


def single(operator, grid=LINE, **options):
    return in_time(operator, grid, Window(), quantities=QUANTITIES[:1], **options)


def exact(start, source, times):
    """The solution by the exponential of dense matrices: (u, f)' = [[L, 1], [0, 0]] (u, f)."""
    n = start.shape[-1]
    k = 2j * np.pi * np.fft.fftfreq(n, 1 / n)
    derivative = np.fft.ifft(k[:, None] * np.fft.fft(np.eye(n), axis=0), axis=0).real
    frames = np.empty((len(start), len(times), 2, n))
    for i, (c, d) in enumerate(zip(SPEED.flatten(), DIFFUSIVITY.flatten(), strict=True)):
        generator = np.zeros((2 * n, 2 * n))
        generator[:n, :n] = d.item() * derivative @ derivative - c.item() * derivative
        generator[:n, n:] = np.eye(n)
        both = np.concatenate([start[:, i], source], axis=-1)
        for j, t in enumerate(times):
            frames[:, j, i] = (both @ scipy.linalg.expm(t * generator).T)[:, :n]
    return frames


@pytest.fixture
def problem():
    """Three forced trajectories with a common source, two given frames and seven more."""
    dice = np.random.default_rng(0)
    source = dice.normal(size=(3, 11))
    return source, exact(dice.normal(size=(3, 2, 11)), source, STEP * np.arange(9))


def dataset_of(frames, source, times, grid=LINE):
    fields = {
        v.name: (("sample", "time", *grid.dims), frames[:, :, i]) for i, v in enumerate(QUANTITIES)
    }
    coords = {"time": ("time", times, {"units": "s"}), "sample": [4, 5, 6], **axis_coords(grid)}
    return xr.Dataset({**fields, "source": (("sample", *grid.dims), source)}, coords)


def test_applications_compose_to_the_flow_of_a_linear_problem(problem):
    """Seven frames in four applications of two, from two frames and a static source."""
    source, frames = problem
    surrogate = in_time(Transport(), LINE, Window(2, 2), [SOURCE], mean=0.3).double()
    given = torch.from_numpy(frames[:, :2]).flatten(1, 2)
    inputs = torch.cat([torch.from_numpy(source)[:, None], given], dim=1)
    found = surrogate.unrolled(inputs, 7)
    assert found.shape == (3, 7, 2, 11)
    np.testing.assert_allclose(found.numpy(), frames[:, 2:], atol=1e-12)


def test_a_dataset_is_continued_in_time(problem):
    source, frames = problem
    surrogate = in_time(Transport(), LINE, Window(2, 2), [SOURCE]).double()
    given = dataset_of(frames[:, :2], source, STEP * np.arange(2))
    found = surrogate.rollout(given, 7, batch_size=2)
    assert dict(found.sizes) == {"sample": 3, "time": 7, "x": 11}
    np.testing.assert_allclose(found.time, STEP * np.arange(2, 9))
    assert (found.time.attrs["units"], found.heat.attrs["units"]) == ("s", "K")
    np.testing.assert_array_equal(found.sample, [4, 5, 6])
    for i, name in enumerate(("heat", "salt")):
        np.testing.assert_allclose(found[name], frames[:, 2:, i], atol=1e-12)
        # the integral grows by t ∫f: transport and diffusion conserve it
        drift = found.time.values[None] - STEP
        drift = drift * source.mean(-1)[:, None] / np.abs(frames[:, 1, i]).mean(-1)[:, None]
        np.testing.assert_allclose(found[f"{name}_drift"], drift, atol=1e-12)
    np.testing.assert_array_equal(found.stable_frames, [7, 7, 7])
    assert json.loads(found.attrs["provenance"])["data"]["window"] == [2, 2, 1]
    step = surrogate.predict(given)
    np.testing.assert_array_equal(step.heat_lead1, found.heat[:, 0])
    np.testing.assert_array_equal(step.salt_lead2, found.salt[:, 1])
    with pytest.raises(ValueError, match="takes 2 frames"):
        surrogate.predict(given.isel(time=slice(0, 1)))
    one = surrogate.rollout(given.isel(sample=1, drop=True), 3)
    np.testing.assert_array_equal(one.salt, found.salt[1, :3])
    assert "sample" not in one.dims


@pytest.mark.parametrize(
    ("reach", "depths"), [(None, [1, 2, 3, 4, 5]), (2, [1, 2, 1, 2, 1]), (1, [1, 1, 1, 1, 1])]
)
def test_gradients_pass_through_so_many_applications(reach, depths):
    """u_n = θⁿ u₀; a path through d applications contributes d θ^{n−1} u₀, and reaches u₀ if d = n."""
    surrogate = single(Linear(0.75)).double()
    u = torch.randn(2, 1, 11, dtype=torch.float64, requires_grad=True)
    frames = surrogate.unrolled(u, 5, gradient_frames=reach)
    for n, depth in enumerate(depths, start=1):
        theta, start = surrogate.operator.factor, (u,) if depth == n else ()
        found = torch.autograd.grad(frames[:, n - 1].sum(), [theta, *start], retain_graph=True)
        assert found[0].item() == pytest.approx(depth * 0.75 ** (n - 1) * u.sum().item(), rel=1e-10)
        assert not start or torch.allclose(found[1], torch.tensor(0.75**n, dtype=torch.float64))


def test_the_pushforwards_gradient_is_that_of_the_last_application_alone(problem):
    """Against applications chained by hand, each on detached frames, with history and source."""

    class Scaled(Transport):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(0.9, dtype=torch.float64))

        def forward(self, u, size=None):
            return self.factor * super().forward(u)

    source, frames = (torch.from_numpy(v) for v in problem)
    surrogate = in_time(Scaled(), LINE, Window(2, 2), [SOURCE]).double()
    u = torch.cat([source[:, None], frames[:, :2].flatten(1, 2)], dim=1)
    surrogate.unrolled(u, 6, gradient_frames=1).square().sum().backward()
    by_hand = 0.0
    for _ in range(3):
        new = surrogate(u)
        by_hand += torch.autograd.grad(new.square().sum(), surrogate.operator.factor)[0]
        u = torch.cat([source[:, None], new.detach()], dim=1)
    assert torch.allclose(surrogate.operator.factor.grad, by_hand, rtol=1e-12)


@pytest.mark.parametrize(
    "grid", [Grid.periodic(8, 6), Grid.neumann(9), SphereGrid(8, 16, radius=3.0)], ids=str
)
def test_drift_is_relative_to_the_integral_of_a_quantity_of_one_sign(grid):
    """u ↦ u + ¼ per step; ∫u₀ is twice the volume."""
    surrogate = single(Linear(1.0, 0.125, grid.ndim), grid)  # normalised: in units of 2
    points = torch.meshgrid(*grid.points(), indexing="ij")[0]
    on_sphere = isinstance(grid, SphereGrid)  # where the mean of sin²(latitude) is ⅓
    wave = points.sin() ** 2 - 1 / 3 if on_sphere else (2 * torch.pi * points).cos()
    given = xr.Dataset(
        {"heat": (("time", *grid.dims), (2 + wave)[None].numpy())},
        {"time": [1.5], **axis_coords(grid)},
    )
    found = surrogate.rollout(given, 6)
    np.testing.assert_allclose(found.heat_drift, 0.125 * np.arange(1, 7), rtol=1e-6)
    np.testing.assert_allclose(found.time, 1.5 + STEP * np.arange(1, 7))


def test_a_rollout_that_blows_up_is_kept_as_far_as_it_is_finite():
    """Factors of 10¹⁰ leave float32 after three frames, of 3 exceed ten times the start after two; at
    its training mean a sample does not move."""
    wave = 2 * torch.cos(2 * torch.pi * LINE.points()[0]).numpy()
    values = (5 + wave * np.array([1.0, 0.0])[:, None])[:, None]
    given = xr.Dataset(
        {"heat": (("member", "time", "x"), values)}, {"time": [0.0], **axis_coords(LINE)}
    )
    found = single(Linear(1e10), mean=5.0).rollout(given, 5)
    assert found.heat.dims == ("member", "time", "x")
    np.testing.assert_array_equal(found.stable_frames, [0, 5])
    assert found.heat[0, :3].notnull().all()
    assert found.heat[0, 3:].isnull().all()
    assert found.heat_drift[0].notnull().values.tolist() == [True] * 3 + [False] * 2
    np.testing.assert_allclose(found.heat[1], 5.0)
    slower = single(Linear(3.0), mean=5.0).rollout(given, 5)
    np.testing.assert_array_equal(slower.stable_frames, [2, 5])
    assert slower.heat.notnull().all()


def test_the_state_slides(problem):
    source, frames = (torch.from_numpy(v) for v in problem)
    surrogate = in_time(Transport(), LINE, Window(2, 2), [SOURCE])
    u = torch.cat([source[:, None], frames[:, :2].flatten(1, 2)], dim=1)
    state = surrogate.state_of(u)
    assert torch.equal(state.inputs, u)
    assert torch.equal(state.advanced(frames[:, 2:3]).frames, frames[:, 1:3])
    assert torch.equal(state.advanced(frames[:, 2:7]).frames, frames[:, 5:7])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.isel(time=slice(0, 1)), r"takes 2 frames, 0.1 apart.*\[0\.\].*slice\(0, 2\)"),
        (lambda d: d.assign_coords(time=[0.0, 0.2]), "takes 2 frames, 0.1 apart"),
        (lambda d: d.drop_vars("time"), "no coordinate 'time'"),
        (
            lambda d: d.assign_coords(time=("time", [0.0, 0.1], {"units": "hours"})),
            "units 'hours'.*'s'",
        ),
        (lambda d: d.drop_vars("salt"), "starts from frames of heat, salt along time.*no salt"),
        (lambda d: d.assign(heat=d.heat[:, 0]), r"has heat along \('sample', 'x'\)"),
        (lambda d: d.drop_vars("source"), "the dataset lacks source"),
        (lambda d: d.assign(heat=d.heat.where(d.time > 0)), "heat_lag1 holds NaN"),
    ],
)
def test_unfit_datasets_are_refused_by_name(problem, change, message):
    source, frames = problem
    surrogate = in_time(Transport(), LINE, Window(2, 2), [SOURCE])
    given = dataset_of(frames[:, :2], source, [0.0, STEP])
    with pytest.raises(ValueError, match=message):
        surrogate.rollout(change(given), 2)


def test_what_is_not_in_time_cannot_be_rolled_out(problem):
    source, frames = problem
    given = dataset_of(frames[:, :1], source, [0.0])
    still = Surrogate(Linear(1.0), LINE, QUANTITIES[:1], QUANTITIES[:1], {"heat": (0.0, 1.0)})
    assert still.window is None
    assert still.interval is None
    with pytest.raises(ValueError, match="maps single fields"):
        still.rollout(given, 2)
    with pytest.raises(ValueError, match="maps single fields"):
        still.unrolled(torch.ones(1, 1, 11), 2)
    with pytest.raises(ValueError, match="does not know when its frames are"):
        single(Linear(1.0), interval=None).rollout(given, 2)
    for wrong in ({"frames": 0}, {"frames": 2, "gradient_frames": 0}):
        with pytest.raises(ValueError, match=r"whole numbers of at least 1; \w*frames has"):
            single(Linear(1.0)).unrolled(torch.ones(1, 1, 11), **wrong)
