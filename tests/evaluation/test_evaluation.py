"""What an evaluation finds: numbers by their published definitions, rollouts without given frames, costs."""

from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from sobolev import Grid, Surrogate
from sobolev.datasets import BurgersRecipe, Manifest, OperatorDataModule, Recipe, open_dataset
from sobolev.datasets.recipes.capabilities import Loosenable, scaled
from sobolev.evaluation import cheaper_solves
from sobolev.evaluation.break_even import BreakEven
from sobolev.evaluation.cheaper_solves import Solve, SolverProblem
from sobolev.evaluation.comparison import Comparison, evaluate
from sobolev.evaluation.judged import evaluate_run
from sobolev.evaluation.record import finite
from sobolev.evaluation.rollouts import roll_out, whole_window
from sobolev.grids.variables import Variable
from sobolev.operators import FNO

GRID = Grid.periodic(8, length=2 * math.pi)
SCALES = {"h": (3.0, 2.0), "q": (-1.0, 0.5), "f": (0.0, 1.0)}


def of(quantities):
    """A surrogate of these outputs on ``GRID``; only its meaning matters."""
    outputs = [Variable(name, name, "m") for name in quantities]
    operator = FNO(1, len(outputs), modes=(2,), width=2, depth=1)
    return Surrogate(operator, GRID, [Variable("f", "force", "N")], outputs, SCALES)


def of_flow(data, history=2, horizon=1, stride=1):
    """An untrained surrogate of the windows of trajectories."""
    module = OperatorDataModule(data, window=(history, horizon, stride))
    operator = FNO(history, horizon, modes=(3, 3), width=4, depth=1)
    return Surrogate(
        operator, module.grid, module.inputs, module.outputs, module.statistics, {"data": module.provenance}
    ).eval()  # fmt: skip


def fixed():
    """Two quantities of three samples, float64: targets, and predictions off by some of each."""
    dice = np.random.default_rng(0)
    y = dice.standard_normal((3, 2, 8)) + np.array([3.0, -1.0])[:, None]
    return y, y + 0.1 * dice.standard_normal((3, 2, 8))


def norm(u, order):
    """‖u‖_{H^s} of fields on a circle of length 2π, by numpy's FFT."""
    k = np.fft.fftfreq(8, 1 / 8)
    return np.sqrt(((1 + k**2) ** order * np.abs(np.fft.fft(u) / 8) ** 2).sum(-1))


def test_measures_are_the_published_ones():
    y, p = fixed()
    single = Comparison(GRID, torch.zeros(3, 1, 8), *map(torch.from_numpy, (y[:, :1], p[:, :1])), of("h"))  # fmt: skip
    found = single.measured()
    assert list(found) == [None]
    u, e = y[:, 0], p[:, 0] - y[:, 0]
    rms = np.sqrt((e**2).mean(-1))
    expected = {
        **{f"relative_{name}": norm(e, s) / norm(u, s) for name, s in (("l2", 0), ("h1", 1), ("h-1", -1))},
        "nrmse": rms / np.sqrt((u**2).mean(-1)),
        "vrmse": rms / u.std(-1),
        "max_error": np.abs(e).max(-1) / 2.0,  # in standard deviations of h
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_allclose(found[None][name], values, rtol=1e-12, err_msg=name)
    k, bins, square = single.spectral_error()
    assert float(bins.sum()) == pytest.approx(square, rel=1e-12)
    assert square == pytest.approx((e**2).mean() / 4, rel=1e-12)
    np.testing.assert_allclose(k, np.arange(5))
    integrals = single.integrals()["h"]
    assert integrals["error"] == pytest.approx(np.abs(e.mean(-1)).mean(), rel=1e-12)
    assert integrals["mean"] == pytest.approx(np.abs(u.mean(-1)).mean(), rel=1e-12)
    assert integrals["rms"] == pytest.approx(np.sqrt((u**2).mean()), rel=1e-12)


def test_several_quantities_are_measured_about_their_means_together_and_each():
    y, p = fixed()
    found = Comparison(GRID, torch.zeros(3, 1, 8), *map(torch.from_numpy, (y, p)), of("hq")).measured()  # fmt: skip
    assert list(found) == [None, "h", "q"]
    mean, scale = (np.array([SCALES[v][i] for v in "hq"])[:, None] for i in (0, 1))
    e, u = (p - y) / scale, (y - mean) / scale
    together = np.sqrt((e**2).sum((1, 2)) / (u**2).sum((1, 2)))
    np.testing.assert_allclose(found[None]["relative_l2"], together, rtol=1e-12)
    for i, name in enumerate("hq"):
        each = norm(e[:, i], 0) / norm(u[:, i], 0)
        np.testing.assert_allclose(found[name]["relative_l2"], each, rtol=1e-12)
        nrmse = np.sqrt(((p - y)[:, i] ** 2).mean(-1) / (y[:, i] ** 2).mean(-1))
        np.testing.assert_allclose(found[name]["nrmse"], nrmse, rtol=1e-12)
    shares = (np.stack([found[n]["nrmse"] for n in "hq"])).mean(0)
    np.testing.assert_allclose(found[None]["nrmse"], shares, rtol=1e-12)  # a mean over channels


@pytest.mark.parametrize(("history", "horizon", "stride"), [(2, 1, 1), (1, 2, 2), (3, 2, 1)])
def test_rollouts_score_every_frame_that_was_not_given(flow_data, history, horizon, stride):
    surrogate = of_flow(flow_data, history, horizon, stride)
    module = OperatorDataModule(flow_data, window=whole_window(surrogate, Manifest.read(flow_data)))
    found = roll_out(surrogate, module, trajectories=2)
    stored = open_dataset(flow_data, "test").vorticity[:2].values
    later = stored[:, ::stride][:, history:]
    np.testing.assert_array_equal(found.targets[:, :, 0], later)
    np.testing.assert_allclose(found.times, stride * 0.1 * np.arange(1, later.shape[1] + 1))
    frames = list(torch.from_numpy(stored[:, ::stride][:, :history]).unbind(1))
    while len(frames) < history + later.shape[1]:
        frames += surrogate(torch.stack(frames[-history:], 1)).unbind(1)
    predicted = torch.stack(frames[history:], 1)[:, : later.shape[1]].detach().numpy()
    np.testing.assert_allclose(found.predictions[:, :, 0], predicted, rtol=1e-5, atol=1e-6)
    p, y = (u.reshape(*u.shape[:2], -1).astype(float) for u in (predicted, later))
    each = np.sqrt(((p - y) ** 2).sum(-1) / (y**2).sum(-1))
    np.testing.assert_allclose(found.errors(), each, rtol=1e-4)
    whole = np.sqrt(((p - y) ** 2).sum((1, 2)) / (y**2).sum((1, 2)))
    np.testing.assert_allclose(found.whole_error(), whole, rtol=1e-4)
    kept = stored[:, (history - 1) * stride].reshape(2, 1, -1)
    persistence = np.sqrt(((kept - y) ** 2).sum(-1) / (y**2).sum(-1))
    np.testing.assert_allclose(found.persistence(), persistence, rtol=1e-4)
    drift = np.abs(p.mean(-1) - kept.mean(-1))
    np.testing.assert_allclose(found.drift(found.predictions)[:, :, 0], drift, rtol=1e-3, atol=1e-7)


def test_a_rollout_that_blows_up_is_counted_and_spoils_no_other(flow_data):
    surrogate = of_flow(flow_data)
    module = OperatorDataModule(flow_data, window=whole_window(surrogate, Manifest.read(flow_data)))
    good = roll_out(surrogate, module)
    perfect = replace(good, predictions=good.targets)
    assert perfect.whole_error().max() == 0
    assert perfect.summary()["correlation_time"] == {
        "threshold": 0.8, "mean": pytest.approx(0.6), "median": pytest.approx(0.6), "never_lost": 3,
    }  # fmt: skip
    burst = good.targets.clone()
    burst[1, 2:] = torch.inf
    found = replace(good, predictions=burst).summary()
    assert found["finite"] == 2
    assert found["correlation_time"]["mean"] == pytest.approx((0.6 + 0.2 + 0.6) / 3)
    assert found["relative_l2"]["median"] == [0.0] * 6
    assert found["relative_l2"]["p90"][1:3] == [0.0, math.inf]
    assert np.isfinite(found["last_frame_spectrum"]["prediction"]["vorticity"]).all()


SOLVE = Solve(64, "steps 8", 0.01, 3.0)
PAID = BreakEven(0.02, 8, 1.0, SOLVE, False, (SOLVE,), 500.0, 100.0, 50, 2.0)


def test_break_even_is_what_was_spent_over_what_is_saved():
    assert PAID.fields == (500.0 + 100.0) / (3.0 - 1.0)
    assert PAID.verdict == "after 300"
    slow = replace(PAID, seconds_per_field=3.0)
    assert slow.fields is None
    assert slow.verdict.startswith("never: the classical solver is as accurate")
    unknown = replace(PAID, training_seconds=None)
    assert unknown.fields is None
    assert "does not record" in unknown.verdict


@dataclass(frozen=True)
class Toy(Loosenable, Recipe):
    """A solver of error 1/n + 1/steps, which takes n · steps seconds a field."""

    steps: int = 64
    solver_resolution: int = 64
    clock: tuple[deque[float], ...] = ()  # recipes copy lists

    inputs = outputs = (Variable("u", "u", "1"),)

    def grid(self, resolution):
        return Grid.periodic(resolution)

    def solve(self, inputs, grid):
        if grid.shape[0] < 8:
            raise ValueError("needs 8 nodes")
        self.clock[0][0] += len(inputs) * grid.shape[0] * self.steps
        return inputs + (1 / grid.shape[0] + 1 / self.steps)

    draw = refined = solve

    @property
    def setting(self):
        return f"steps {self.steps}"

    def looser(self):
        return scaled(self, "steps", 0.5, last=4)


def test_the_cheapest_solve_of_equal_error_is_found(monkeypatch):
    now = deque([0.0])
    monkeypatch.setattr(cheaper_solves.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(cheaper_solves, "PATIENCE", math.inf)
    grid, fields = Grid.periodic(64), torch.ones(2, 1, 64, dtype=torch.float64)
    error = lambda u: (u - fields).abs().amax((1, 2))  # noqa: E731
    problem = SolverProblem(Toy(clock=(now,)), fields, grid, grid, error)
    for wanted in (0.4, 0.2, 0.1, 0.05):
        tried = list(cheaper_solves.solves(problem, wanted, lambda text: None))
        for s in tried:
            if s.relative_l2 is not None:
                steps = int(s.setting.split()[1])
                assert s.relative_l2 == pytest.approx(1 / s.resolution + 1 / steps)
                assert s.seconds_per_field == s.resolution * steps
            else:
                assert s.remark == "needs 8 nodes"
        best = min(s.seconds_per_field for s in tried if s.relative_l2 and s.relative_l2 <= wanted)
        sizes = [8, 12, 16, 24, 32, 48, 64]
        every = [n * m for n in sizes for m in (4, 8, 16, 32, 64) if 1 / n + 1 / m <= wanted]
        assert best == min(every)
        assert len(tried) < 20  # of 35


def test_a_coarse_burgers_solve_is_judged_on_the_evaluation_grid():
    recipe = BurgersRecipe(solver_resolution=128, steps=40)
    fine, grid = recipe.grid(128), recipe.grid(64)
    inputs = recipe.draw([np.random.default_rng(i) for i in range(2)])
    truth = fine.subsample(recipe.solve(inputs, fine), grid)
    error = lambda u: (u - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)  # noqa: E731
    found, _ = cheaper_solves._judged(SolverProblem(recipe, inputs, fine, grid, error), 32)
    coarse = recipe.grid(32)
    again = recipe.solve(fine.resample(inputs, coarse), coarse)[:, 0].numpy()
    spectrum = np.fft.rfft(again)  # trigonometric interpolation from 32 to 64 nodes
    spectrum[:, 16] /= 2
    upon = 2 * np.fft.irfft(np.pad(spectrum, [(0, 0), (0, 16)]), n=64)
    exact = truth[:, 0].numpy()
    expected = np.linalg.norm(upon - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert found.relative_l2 == pytest.approx(expected.mean(), rel=1e-9)
    assert found.setting == "steps 40"


def strict(text):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.slow
def test_json_is_strict_and_its_numbers_are_those_of_the_fields(flow_data, tmp_path):
    surrogate = of_flow(flow_data)
    surrogate.record(training={"seconds": 12.0})
    more = {**surrogate.provenance["data"], "train_samples": 30}
    before = {"data": more, "training": {"seconds": 3.0}}
    surrogate.record(start=before)
    folder = surrogate.save(tmp_path / "run" / "surrogate")
    (score,) = evaluate_run(folder.parent, flow_data, trajectories=2).scores
    written = strict((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())
    assert written["schema"] == 1
    assert written["scores"][0]["relative_l2"] == score.relative_l2
    _, comparison = evaluate(surrogate, flow_data, 16)
    error = (comparison.predictions - comparison.targets).flatten(1).double().norm(dim=1)
    expected = (error / comparison.targets.flatten(1).double().norm(dim=1)).mean()
    assert score.relative_l2 == pytest.approx(float(expected), rel=1e-5)
    assert written["rollouts"]["trajectories"] == 2
    assert written["rollouts"]["predicted_frames"] == 6
    paid = written["break_even"]
    assert paid["training_seconds"] == 15.0
    drawn = surrogate.provenance["data"]
    assert drawn["train_samples"] + drawn["valid_samples"] == 12
    assert paid["data_samples"] == 30 + drawn["valid_samples"]  # of the training that used most
    assert paid["solver"]["relative_l2"] <= paid["relative_l2"] or paid["solver_is_reference"]
    assert "calibrat" in written["no_certificates"]


@pytest.mark.slow
def test_what_it_went_on_from_other_data_cost_is_not_known(flow_data, tmp_path):
    surrogate = of_flow(flow_data)
    surrogate.record(training={"seconds": 12.0})
    data = {**surrogate.provenance["data"], "seed": 99}
    surrogate.record(start={"data": data, "training": {"seconds": 3.0}, "protocol": "one <step>"})
    kept = {surrogate.outputs[0].name: surrogate.inputs[-1].name}
    surrogate.meaning = replace(surrogate.meaning, conserved=kept)
    surrogate.save(tmp_path / "alone")
    evaluate_run(tmp_path / "alone", flow_data, trajectories=2, out=tmp_path / "out")
    written = strict((tmp_path / "out" / "evaluation.json").read_text())
    assert written["break_even"] is None
    assert "other data" in written["no_break_even"]
    assert written["run"]["conserved"] == surrogate.conserved
    report = (tmp_path / "out" / "report.html").read_text()
    assert f"integrals kept</th><td>{surrogate.outputs[0].name}<" in report
    assert "went on from</th><td>a surrogate, weights not recorded: one &lt;step&gt;<" in report


@pytest.mark.slow
def test_predictions_that_are_not_finite_become_null(burgers_data, tmp_path):
    module = OperatorDataModule(burgers_data)
    surrogate = Surrogate(
        FNO(1, 1, modes=(4,), width=4, depth=1), module.grid, module.inputs, module.outputs,
        module.statistics,
    )  # fmt: skip
    next(surrogate.operator.parameters()).data.fill_(torch.nan)
    surrogate.save(tmp_path / "alone")
    twice = [64, (64,)]  # the same nodes, judged once
    scores = evaluate_run(tmp_path / "alone", burgers_data, twice, out=tmp_path / "out").scores
    assert len(scores) == 1
    assert scores[0].relative_l2 == math.inf
    written = strict((tmp_path / "out" / "evaluation.json").read_text())
    assert written["scores"][0]["relative_l2"] is None
    assert written["break_even"] is None
    assert "not finite" in written["no_break_even"]
    assert finite({"a": (math.inf, 1.0, {"b": math.nan})}) == {"a": [None, 1.0, {"b": None}]}
