"""All pairs of frames as training data, the time between them an input: on the heat equation, whose every later
frame is known from every earlier one."""

from __future__ import annotations

from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
import xarray as xr

from sobolev import Surrogate
from sobolev.__main__ import main
from sobolev.datasets import OperatorDataModule, open_dataset, store_fields
from sobolev.operators import FNO, Modulated
from sobolev.training import OperatorModule

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings(
        "ignore:.*does not have many workers.*", "ignore:.*number of training batches.*"
    ),
]
NODES = 16
X = np.arange(NODES) / NODES
TIMES = np.array([0.0, 0.1, 0.25, 0.5, 1.0])  # not evenly spaced
RATES = 0.02 * (2 * np.pi * np.arange(NODES // 2 + 1)) ** 2


def heated(u: np.ndarray, time: np.ndarray | float) -> np.ndarray:
    """Solutions of u_t = 0.02 u_xx on a circle of length 1, a time after u, along the last axis."""
    decay = np.exp(-RATES * np.asarray(time)[..., None])
    return np.fft.irfft(decay * np.fft.rfft(u), n=NODES)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    dice = np.random.default_rng(0)
    waves = [np.cos(2 * np.pi * k * X + p) for k in (0, 1, 2) for p in (0, np.pi / 2)]
    first = dice.normal(size=(40, len(waves))) @ np.array(waves)
    frames = np.stack([heated(first, t) for t in TIMES], axis=1)
    rods = xr.Dataset(
        {"heat": (("rod", "time", "x"), frames, {"units": "K"}), "depth": ("rod", dice.random(40))},
        coords={"x": X, "time": ("time", TIMES, {"units": "s"})},
    )
    path = tmp_path_factory.mktemp("lead") / "rods"
    return store_fields(
        rods, path, inputs=["depth"], outputs=["heat"], sample="rod", time="time", boundary="periodic",
        splits={"train": 0.8, "valid": 0.1, "test": 0.1}, symmetries=["reflections"], progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def surrogate(data) -> Surrogate:
    lightning.seed_everything(0, verbose=False)
    module = OperatorDataModule(data, window="all-to-all", augment=True)
    operator = Modulated(FNO(1, 1, modes=(4,), width=16), parameters=2)
    training = OperatorModule(operator, module, learning_rate=5e-3)
    lightning.Trainer(
        max_epochs=30, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(training, module)  # fmt: skip
    return training.surrogate.eval()


@pytest.mark.parametrize("in_memory", [True, False])
def test_items_are_all_pairs_with_the_time_between_them(data, in_memory):
    module = OperatorDataModule(data, window="all-to-all", in_memory=in_memory)
    items = module.pairs("train")
    assert len(items) == 32 * 10
    inputs, outputs = (part.double().numpy() for part in items[:])
    lead, depth, heat = inputs.transpose(1, 0, 2)
    assert np.ptp(lead, axis=1).max() == np.ptp(depth, axis=1).max() == 0
    np.testing.assert_allclose(outputs[:, 0], heated(heat, lead[:, 0]), atol=2e-6)
    pairs = sorted(b - a for i, a in enumerate(TIMES) for b in TIMES[i + 1 :])
    np.testing.assert_allclose(sorted(lead[:10, 0]), pairs, rtol=1e-6)
    assert [v.name for v in module.inputs] == ["lead_time", "depth", "heat"]
    about = module.parameters[0]
    assert (about.units, about.low, about.high) == ("s", pytest.approx(0.1), 1.0)
    mean, spread = module.statistics["lead_time"]
    assert mean == pytest.approx(np.mean(pairs))
    assert spread == pytest.approx(np.std(pairs))


def test_one_surrogate_predicts_any_time_ahead_and_says_when(data, surrogate):
    first = open_dataset(data, "test").load().isel(sample=0, time=1)
    leads = np.array([0.15, 0.4, 0.7])  # of which training has none
    found = surrogate.predict(first.assign(lead_time=("lead_time", leads)))
    expected = heated(np.broadcast_to(first.heat.values, (3, NODES)), leads)
    assert np.linalg.norm(found.heat - expected) < 0.05 * np.linalg.norm(expected)
    np.testing.assert_allclose(found.time, 0.1 + leads, rtol=1e-6)
    assert found.time.attrs["units"] == "s"
    with pytest.warns(
        UserWarning, match="lead_time is 3, and the surrogate was trained from 0.1 to"
    ):
        surrogate.predict(first.assign(lead_time=3.0))


def test_frames_of_a_trajectory_are_each_taken_ahead(data, surrogate):
    rod = open_dataset(data, "test").load().isel(sample=1)
    found = surrogate.predict(rod.assign(lead_time=0.25))
    np.testing.assert_allclose(found.time, TIMES + 0.25)
    alone = surrogate.predict(rod.isel(time=2).assign(lead_time=0.25))
    np.testing.assert_allclose(found.heat[2], alone.heat, atol=1e-5)


def test_a_rollout_is_refused_with_what_to_ask_instead(data, surrogate):
    rods = open_dataset(data, "test").isel(time=[0])
    with pytest.raises(ValueError, match="told how far ahead to predict: give predict"):
        surrogate.rollout(rods.assign(lead_time=0.1), 3)


def test_it_is_saved_evaluated_and_drawn_over_the_time_ahead(data, surrogate, tmp_path, capsys):
    loaded = Surrogate.load(surrogate.save(tmp_path / "run" / "surrogate"))
    assert loaded.meaning.cut == "all-to-all"
    u = torch.randn(2, 3, NODES).abs()
    assert torch.equal(loaded(u), surrogate(u))
    assert "all-to-all" in surrogate.provenance.protocol
    words = ["evaluate", str(tmp_path / "run"), "--data", str(data), "--no-solver-timing"]
    assert main(words) == 0
    assert " 40 " in capsys.readouterr().out  # ten pairs of each of four rods
    assert "lead_time" in (tmp_path / "run" / "evaluation" / "report.html").read_text()


@pytest.mark.parametrize("window", ["all", [1], [1, 2, 3, 4]])
def test_other_words_for_a_window_are_refused(data, window):
    with pytest.raises(ValueError, match=r"or all-to-all, got"):
        OperatorDataModule(data, window=window)


def test_two_frames_have_one_distance(data, tmp_path):
    two = open_dataset(data, "train").isel(time=[0, 1]).load()
    path = store_fields(
        two, tmp_path / "two", inputs=["depth"], outputs=["heat"], sample="sample", time="time",
        boundary="periodic", progress=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"2 frames have pairs of one distance at most; give"):
        OperatorDataModule(path, window="all-to-all").pairs("train")
