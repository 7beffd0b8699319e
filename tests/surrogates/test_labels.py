"""What a prediction says of its samples: their labels and its own time, and nothing else of the input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from sobolev import Grid, Surrogate
from sobolev.certification import certified
from sobolev.datasets import DarcyRecipe
from sobolev.datasets.loading.windows import Window
from sobolev.grids.description import axis_coords
from sobolev.grids.variables import Variable
from sobolev.operators import FNO

HEAT, SOURCE = Variable("heat", "temperature", "K"), Variable("source", "source", "1")
LINE = Grid.periodic(8)


def still() -> Surrogate:
    """A surrogate that maps heat to source, and is not in time."""
    scales = {"heat": (0.0, 1.0), "source": (0.0, 1.0)}
    return Surrogate(operator(1, 1), LINE, [HEAT], [SOURCE], scales).eval()


def moving(window: Window, static: list[Variable] | None = None, **record) -> Surrogate:
    """A surrogate from frames of heat, half a second apart, to the frames that follow."""
    inputs = [*(static or []), *window.inputs([HEAT])]
    outputs = window.outputs([HEAT])
    scales = {v.name: (0.0, 1.0) for v in [*inputs, *outputs]}
    numbers = [window.history, window.horizon, window.stride]
    data = {"window": numbers, "interval": 0.5, "time_units": "s", **record}
    network = operator(len(inputs), len(outputs))
    return Surrogate(network, LINE, inputs, outputs, scales, {"data": data}).eval()


def operator(inputs: int, outputs: int) -> FNO:
    return FNO(inputs, outputs, modes=(3,), width=2, depth=1)


def trajectories(frames: int = 4) -> xr.Dataset:
    """Three trajectories from time 0 on, with what a data set says of them and what a user added."""
    heat = torch.randn(3, frames, 8, generator=torch.Generator().manual_seed(0)).numpy()
    return xr.Dataset(
        {"heat": (("sample", "time", "x"), heat), "source": ("x", np.ones(8))},
        {
            "sample": [4, 5, 6],
            "time": ("time", 0.5 * np.arange(frames), {"units": "s"}),
            "status": ("sample", np.zeros(3, dtype=np.int8)),
            "error_estimate": ("sample", np.zeros(3)),
            "station": ("sample", ["a", "b", "c"], {"note": "mine"}),
            "mask": (("sample", "x"), np.ones((3, 8))),
            "level": 500.0,
            **axis_coords(LINE),
        },
    )


def test_a_prediction_has_its_samples_labels_and_nothing_else_of_the_input():
    prediction = still().predict(trajectories().isel(time=0, drop=True))
    assert set(prediction.coords) == {"sample", "station", "x"}
    assert prediction.station.values.tolist() == ["a", "b", "c"]
    assert prediction.station.attrs == {"note": "mine"}
    assert prediction.sample.values.tolist() == [4, 5, 6]
    unnamed = trajectories().isel(time=0, drop=True).drop_vars("sample")
    assert still().predict(unnamed).sample.values.tolist() == [0, 1, 2]
    one = still().predict(trajectories().isel(time=0, sample=1))
    assert set(one.coords) == {"x"}


def test_samples_over_two_levels_keep_both():
    given = trajectories().drop_vars(["sample", "status", "error_estimate", "station"])
    stacked = given.transpose("sample", "time", "x").stack(case=("sample", "time"))
    prediction = still().predict(stacked)
    assert prediction.source.dims == ("case", "x")
    assert prediction.indexes["case"].equals(stacked.indexes["case"])


def test_rollouts_have_the_labels_too():
    rollout = moving(Window(2)).rollout(trajectories(2), 3)
    assert set(rollout.coords) == {"sample", "station", "time", "x"}
    np.testing.assert_allclose(rollout.time, [1.0, 1.5, 2.0])


@pytest.mark.parametrize("history", [1, 2])
def test_the_time_is_that_of_the_predicted_frame(history):
    prediction = moving(Window(history)).predict(trajectories(history))
    assert prediction.heat.dims == ("sample", "x")
    assert (float(prediction.time), prediction.time.attrs["units"]) == (0.5 * history, "s")


def test_the_time_of_a_single_frame_is_one_interval_on():
    surrogate = moving(Window())
    assert float(surrogate.predict(trajectories().isel(time=2)).time) == 1.5
    each = trajectories().isel(time=0, drop=True).assign_coords(time=("sample", [7, 8, 9]))
    np.testing.assert_allclose(surrogate.predict(each).time, [7.5, 8.5, 9.5])
    assert surrogate.predict(each).time.dims == ("sample",)


def test_frames_of_one_trajectory_are_predicted_from_one_by_one():
    given = trajectories().isel(sample=0)
    prediction = moving(Window(), [SOURCE]).predict(given)
    assert prediction.heat.dims == ("time", "x")
    np.testing.assert_allclose(prediction.time, [0.5, 1.0, 1.5, 2.0])
    first = moving(Window()).predict(given.isel(time=slice(0, 1)))
    np.testing.assert_allclose(first.time, [0.5])


def test_a_time_that_cannot_be_known_is_left_out():
    frame = trajectories().isel(time=2)
    hours = frame.assign_coords(time=((), 2.0, {"units": "hours"}))
    for surrogate, given in (
        (moving(Window(), interval=None), frame),
        (moving(Window()), hours),
        (moving(Window(horizon=2)), frame),
        (moving(Window()), frame.drop_vars("time")),
    ):
        assert "time" not in surrogate.predict(given).variables
    # several frames are of several times
    assert "time" not in moving(Window(2, 2)).predict(trajectories(2)).variables
    with pytest.raises(ValueError, match="does not know when its frames are"):
        moving(Window(), interval=None).predict(trajectories().isel(sample=0))


@pytest.mark.parametrize("along", ["samples", "dimension"])
@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("source", lambda given: still().predict(given.isel(time=0, drop=True))),
        ("heat_lead1", lambda given: moving(Window(2, 2)).predict(given)),
        ("heat_drift", lambda given: moving(Window(2)).rollout(given, 2)),
        ("stable_frames", lambda given: moving(Window(2)).rollout(given, 2)),
    ],
)
def test_a_coordinate_called_like_an_output_is_refused(name, act, along):
    given = trajectories(2).drop_vars("source")
    if along == "samples":
        given = given.assign_coords({name: ("sample", np.arange(3.0))})
        message = f"the samples have a coordinate '{name}', which is .*rename the coordinate or"
    else:
        given = given.rename(sample=name)
        message = f"the samples lie along '{name}', which is .*; rename the dimension"
    with pytest.raises(ValueError, match=message):
        act(given)


def test_a_bound_of_before_does_not_pass_for_a_bound():
    network = FNO(1, 1, modes=(2, 2), width=2, depth=1, boundary="dirichlet")
    scales = {"permeability": (7.0, 4.5), "pressure": (0.005, 0.003)}
    grid = Grid.dirichlet(9, 9)
    origin = {"data": {"recipe": DarcyRecipe().configuration(), "resolution": [9, 9]}}
    surrogate = Surrogate(network, grid, DarcyRecipe.inputs, DarcyRecipe.outputs, scales, origin)
    given = xr.Dataset(
        {"permeability": (("sample", *grid.dims), np.full((2, 9, 9), 3.0))},
        {"error_bound": ("sample", np.zeros(2)), **axis_coords(grid)},
    )
    with pytest.raises(ValueError, match="have a coordinate 'error_bound', which is an output's"):
        certified(surrogate, given)
    assert (certified(surrogate, given.drop_vars("error_bound")).error_bound > 0).all()
