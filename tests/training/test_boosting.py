"""Boosting: each stage learns what the earlier ones leave, and nothing else changes."""

from __future__ import annotations

import json
import math
import os
import shutil

import lightning
import numpy as np
import pytest
import torch
from support.processes import finished
from torch import nn

from sobolev.commands.boosting_cli import boosted as boost_command
from sobolev.datasets import BurgersRecipe, OperatorDataModule, generate
from sobolev.grids.norms import relative_error
from sobolev.operators import FNO, SpecBoost
from sobolev.operators.base import Operator
from sobolev.surrogates import Surrogate
from sobolev.training import FieldLoss, OperatorModule
from sobolev.training.boosting import boost_run
from sobolev.training.boosting.runs import epoch_seconds, scores_of
from sobolev.training.boosting.stages import BoostingModule, boost, error_spectra, parts

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*treespec.*"),
]


def trainer(epochs, **options):
    return lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip


@pytest.fixture
def data(burgers_data):
    return OperatorDataModule(burgers_data, batch_size=4)


def stages():
    return SpecBoost([FNO(1, 1, (1,), width=8, depth=2), FNO(1, 1, (16,), width=8, depth=2)])


def error(surrogate, data):
    items = data.pairs("train")
    with torch.no_grad():
        return relative_error(surrogate(items.inputs), items.outputs, data.grid).mean().item()


@pytest.mark.slow
def test_the_second_stage_learns_what_the_first_leaves(data):
    operator, errors, first = stages(), [], []

    def next_trainer(k):
        if k:
            first.extend(p.clone() for p in operator.stages[0].parameters())
            errors.append(error(module_of(operator, data), data))
        return trainer(5, limit_val_batches=0)

    surrogate = boost(operator, data, next_trainer, learning_rate=2e-2)
    assert error(surrogate, data) < 0.7 * errors[0]
    assert all(
        torch.equal(a, b) for a, b in zip(first, operator.stages[0].parameters(), strict=True)
    )
    spread = operator.scale[1].item()
    assert 0 < spread < 1  # residuals are smaller than the normalised fields
    assert all(p.requires_grad for p in operator.parameters())


def module_of(operator, data):
    return BoostingModule(operator, data, 0).surrogate.eval()


def test_the_scale_is_that_of_the_normalised_residuals(data):
    operator = stages()
    module = BoostingModule(operator, data, 1)
    items, (mean, spread) = data.pairs("train"), data.statistics["velocity"]
    trainer(0).fit(module, data)
    module.on_fit_start()
    operator.active = 1
    with torch.no_grad():
        residual = (items.outputs - module.surrogate.eval()(items.inputs)) / spread
    assert operator.scale[1].item() == pytest.approx(residual.std(correction=0).item(), rel=1e-4)
    assert operator.mean[1].item() == pytest.approx(residual.mean().item(), rel=1e-3, abs=1e-6)
    assert mean == pytest.approx(data.statistics["velocity"][0])


_DISTRIBUTED = """
import warnings; warnings.simplefilter("ignore")
import lightning
from sobolev.datasets import OperatorDataModule
from sobolev.operators import FNO, SpecBoost
from sobolev.training.boosting.stages import BoostingModule
operator = SpecBoost([FNO(1, 1, (3,), width=4, depth=1), FNO(1, 1, (8,), width=4, depth=1)])
module = BoostingModule(operator, OperatorDataModule({data!r}, batch_size=8), 1)
trainer = lightning.Trainer(
    max_steps=2, accelerator="cpu", devices=1, strategy="ddp", logger=False, limit_val_batches=0,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
)
trainer.fit(module, module.data)
assert trainer.global_step == 2
assert (operator.scale[1] > 0).all()
"""


@pytest.mark.slow
def test_a_later_stage_trains_under_ddp(burgers_data):
    """Which waits for all parameters that wanted gradients when it wrapped the module; it does so
    from the second step on."""
    program = _DISTRIBUTED.format(data=str(burgers_data))
    done = finished(program)
    assert done.returncode == 0, done.output


class Band(Operator):
    """A linear operator: a real factor for each Fourier mode of a band."""

    def __init__(self, first, last):
        super().__init__()
        self.in_channels = self.out_channels = 1
        self.first, self.last = first, last
        self.factors = nn.Parameter(torch.zeros(last - first))

    @property
    def ndim(self):
        return 1

    def forward(self, u, size=None):
        u_hat = torch.fft.rfft(u)
        kept = u_hat[..., self.first : self.last] * self.factors
        padding = (self.first, u_hat.shape[-1] - self.last)
        return torch.fft.irfft(nn.functional.pad(kept, padding), n=u.shape[-1])


class SquaredError(FieldLoss):
    def per_sample(self, prediction, target):
        return (prediction - target).square().flatten(1).sum(1)


@pytest.mark.slow
def test_two_linear_stages_on_disjoint_bands_reach_the_least_squares_optimum(burgers_data):
    """Least squares separate over modes, so that fitting one band after the other loses nothing; the
    later stage's rescaling must cancel, or its factors would be off by it."""
    data = OperatorDataModule(burgers_data, batch_size=24)
    operator = SpecBoost([Band(0, 3), Band(3, 9)])
    boost(
        operator, data, lambda k: trainer(100, limit_val_batches=0), loss=lambda grid: SquaredError(),
        learning_rate=0.2, weight_decay=0.0,
    )  # fmt: skip
    items, statistics = data.pairs("train"), data.statistics
    u, y = (
        torch.fft.rfft((fields.double() - statistics[name][0]) / statistics[name][1])[:, 0]
        for fields, name in zip(items[:], (data.inputs[0].name, data.outputs[0].name), strict=True)
    )
    optimum = (y * u.conj()).real.sum(0) / u.abs().square().sum(0)  # of Σ |y − f u|² in each mode
    found = torch.cat([operator.stages[0].factors, operator.scale[1] * operator.stages[1].factors])
    found = found.detach()
    assert operator.scale[1] < 0.9  # so that a scale forgotten would show
    assert found[1:] == pytest.approx(optimum[1:9].float(), rel=2e-2, abs=2e-3)  # û₀ = 0


def test_held_out_no_stage_learns_from_samples_of_another(burgers_data):
    data = OperatorDataModule(burgers_data, batch_size=4, in_memory=False)
    operator = SpecBoost([FNO(1, 1, (4,), width=4, depth=1) for _ in range(3)])
    seen: list[set[float]] = []

    class Watch(lightning.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            seen[-1] |= set(batch[0][:, 0, 0].tolist())

    def next_trainer(k):
        seen.append(set())
        return trainer(1, limit_val_batches=0, callbacks=[Watch()])

    surrogate = boost(operator, data, next_trainer, held_out=0.25)
    everything = set(data.pairs("train").inputs[:, 0, 0].tolist())
    assert [len(part) for part in seen] == [12, 6, 6]
    assert set.union(*seen) == everything  # 24 = 12 + 6 + 6 of them: disjoint
    own = BoostingModule(operator, data, 2, held_out=0.25).data.pairs("train")
    assert set(own.inputs[:, 0, 0].tolist()) == seen[2]
    operator.active = 2
    with torch.no_grad():
        left = (own.outputs - surrogate(own.inputs)) / surrogate.output_scale
    assert operator.scale[2].item() == pytest.approx(left.std(correction=0).item(), rel=1e-4)
    assert len(data.pairs("train")) == 24  # the given module is left as it was


def test_trajectories_are_held_out_whole(flow_data):
    """Windows of one trajectory overlap: apart they would not be strangers."""
    data = OperatorDataModule(flow_data, window=(1, 1))
    operator = SpecBoost([FNO(1, 1, (2, 2), width=2, depth=1) for _ in range(2)])
    first, later = (
        BoostingModule(operator, data, k, held_out=0.3).data.pairs("train") for k in range(2)
    )
    count = len(data.pairs("train").samples)
    assert set(first.samples) | set(later.samples) == set(data.pairs("train").samples)
    assert not set(first.samples) & set(later.samples)
    assert len(later) == round(0.3 * count) * first.per_sample > first.per_sample


def test_parts_are_drawn_by_the_seed():
    same, again, other = (parts(50, 2, 0.4, seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(same, again, strict=True))
    assert not np.array_equal(same[1], other[1])
    for share in (0.5, 0.01, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"each later stage.*below 0\.5.*got"):
            parts(20, 3, share, seed=0)


def test_error_spectra_sum_to_the_mean_square_errors(data):
    """Parseval: over the shells, per variance and unit length."""
    module = BoostingModule(stages(), data, 0)
    surrogate = module.surrogate.eval()
    surrogate.operator.scale[1] = 0.3
    items, length = data.pairs("valid"), 2 * math.pi
    wavenumbers, spectra = error_spectra(surrogate, data)
    assert spectra.shape == (3, len(wavenumbers))
    for k in (0, 1, 2):
        surrogate.operator.active = max(k, 1)
        with torch.no_grad():
            prediction = surrogate(items.inputs) if k else surrogate.output_mean
        error = (items.outputs - prediction) / surrogate.output_scale
        expected = length * error.double().square().mean().item()
        assert spectra[k].sum().item() == pytest.approx(expected, rel=1e-5)


def test_what_is_no_boost_is_refused(data):
    with pytest.raises(ValueError, match="stages of a SpecBoost, got FNO"):
        BoostingModule(FNO(1, 1, (4,)), data, 0)
    with pytest.raises(ValueError, match="stages 0 to 1, got 2"):
        BoostingModule(stages(), data, 2)


def test_a_second_boost_measures_the_scales_anew_and_a_failed_fit_freezes_nothing(data):
    operator = stages()
    operator.scale[1] = 123.0
    boost(operator, data, lambda k: trainer(0))
    assert operator.scale[1].item() < 100

    class Failing(lightning.Callback):
        def on_train_batch_end(self, *_):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        boost(operator, data, lambda k: trainer(k, callbacks=[Failing()]))
    assert all(p.requires_grad for p in operator.parameters())


def test_plain_training_of_stages_without_scale_is_refused(data):
    with pytest.raises(ValueError, match="sobolev boost"):
        trainer(1).fit(OperatorModule(stages(), data), data)


SETTINGS = """
model:
  operator:
    class_path: sobolev.operators.SpecBoost
    init_args:
      hand_over: true
      stages:
        - class_path: sobolev.operators.FNO
          init_args: {in_channels: 1, out_channels: 1, modes: [4], width: 6, depth: 2}
        - class_path: sobolev.operators.FNO
          init_args: {in_channels: 2, out_channels: 1, modes: [8], width: 6, depth: 2}
  learning_rate: 1.0e-2
data: {batch_size: 6, augment: true}
trainer: {max_epochs: 3, accelerator: cpu, logger: false}
"""
_KILLED = """
import os, signal, sys
from sobolev.__main__ import main
from sobolev.training.boosting.stages import BoostingModule
step = BoostingModule.training_step
def fatal(self, batch, batch_idx):
    if (self.stage, self.current_epoch, batch_idx) == (1, 2, 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, batch_idx)
BoostingModule.training_step = fatal
main(sys.argv[1:])
"""


FEW = BurgersRecipe(solver_resolution=64, steps=40)
SAMPLES = {"train": 24, "valid": 4, "test": 6}


@pytest.fixture(scope="module")
def boosted(tmp_path_factory):
    """Arguments of a small boost, and the folder in which it ran undisturbed; its data lie beside."""
    home = tmp_path_factory.mktemp("boost")
    (home / "small.yaml").write_text(SETTINGS)
    place = generate(FEW, home / "data", SAMPLES, progress=False)
    arguments = ["--config", str(home / "small.yaml"), "--data.path", str(place)]
    return arguments, boost_command([*arguments, "--run", str(home / "run")])


def weights(run):
    return Surrogate.load(run / "surrogate").state_dict()


@pytest.mark.slow
def test_a_boost_killed_within_a_stage_resumes_to_the_same_weights(boosted, tmp_path):
    arguments, undisturbed = boosted
    run = tmp_path / "run"
    given = ["boost", *arguments, "--run", str(run)]
    done = finished(_KILLED, *given)
    assert done.returncode == -9, done.output
    assert Surrogate.load(run).operator.active == 1  # what was finished can be used
    kept = (run / "stage-0" / "surrogate" / "model.safetensors").stat().st_mtime_ns
    begun = epoch_seconds(run / "stage-1")
    boost_command([*given[1:], "--resume"])
    assert len(begun) == 2
    assert epoch_seconds(run / "stage-1")[:2] == begun  # not trained again
    expected, found = weights(undisturbed), weights(run)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert found["operator.scale"].min() > 0
    assert (run / "stage-0" / "surrogate" / "model.safetensors").stat().st_mtime_ns == kept


@pytest.mark.slow
@pytest.mark.parametrize("conserve", [False, pytest.param(True, marks=pytest.mark.draws)])
def test_a_boosted_run_says_what_each_stage_left(boosted, tmp_path, conserve):
    arguments, run = boosted
    folder = run.parent / "data"
    if conserve:
        more = ["--run", str(tmp_path / "run"), "--model.conserve", "true"]
        run = boost_command([*arguments, *more])
    data = OperatorDataModule(folder)
    record, surrogate = json.loads((run / "boosting.json").read_text()), Surrogate.load(run)
    assert bool(surrogate.conserved) == conserve
    errors = [stage["valid"]["relative_l2"] for stage in record["stages"]]
    assert surrogate.operator.active == record["active"] == 1 + errors.index(min(errors))
    assert (run / "spectra.png").stat().st_size > (10_000 if conserve else 0)  # which is drawn
    assert (run / "stage-1" / "spectrum.png").is_file()
    items = data.pairs("valid")
    for k, stage in enumerate(record["stages"]):
        surrogate.operator.active = k + 1
        with torch.no_grad():
            error = relative_error(surrogate(items.inputs), items.outputs, data.grid).mean().item()
        assert stage["valid"]["relative_l2"] == pytest.approx(error, rel=1e-4)
        assert stage["epochs"] == 3
    assert surrogate.provenance["training"]["seconds"] == sum(
        s["seconds"] for s in record["stages"]
    )


@pytest.mark.slow
def test_a_boost_in_double_precision_is_judged_like_any(boosted):
    _, run = boosted
    data, surrogate = OperatorDataModule(run.parent / "data"), Surrogate.load(run)
    scores = scores_of(surrogate, data, "valid")
    assert scores_of(surrogate.double(), data, "valid") == pytest.approx(scores, rel=1e-4)


@pytest.mark.slow
def test_a_later_stage_that_does_not_help_is_left_out(boosted, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(
        boost_run,
        "scores_of",
        lambda surrogate, *_: {"relative_l2": float(surrogate.operator.active)},
    )
    monkeypatch.setattr(boost_run.Boost, "_draw", lambda *_: None)  # takes longer than the training
    run = tmp_path / "run"
    shutil.copytree(boosted[1], run)
    again = [*boosted[0], "--run", str(run), "--overwrite", "--epochs", "1"]
    boost_command(again)
    stages = json.loads((run / "boosting.json").read_text())["stages"]
    assert [stage["epochs"] for stage in stages] == [1, 1]  # those that were there are gone
    assert Surrogate.load(run).operator.active == 1
    assert len(Surrogate.load(run).operator.stages) == 2
    assert "no later stage improves on stage 0" in caplog.text


@pytest.mark.slow
def test_a_comparison_matches_parameters_and_averages_the_ensemble(boosted):
    arguments, run = boosted
    data = OperatorDataModule(run.parent / "data")
    again = [*arguments, "--run", str(run), "--resume", "--compare"]
    boost_command(again)
    table, surrogate = json.loads((run / "comparison.json").read_text()), Surrogate.load(run)
    own = sum(p.numel() for p in surrogate.operator.parameters())
    assert table["boosting"]["parameters"] == own
    candidates = [
        abs(sum(p.numel() for p in FNO(1, 1, (8,), width, 2).parameters()) - own)
        for width in range(1, 30)
    ]
    width = 1 + min(range(29), key=candidates.__getitem__)
    assert Surrogate.load(run / "single").operator.width == width
    assert table["single"]["parameters_ratio"] == table["single"]["parameters"] / own
    items = data.pairs("test")
    members = [Surrogate.load(run / "ensemble" / f"member-{k}") for k in range(2)]
    with torch.no_grad():
        mean = torch.stack([member(items.inputs) for member in members]).mean(0)
        assert Surrogate.load(run / "ensemble")(items.inputs) == pytest.approx(mean, abs=1e-6)
    error = relative_error(mean, items.outputs, data.grid).mean().item()
    assert table["ensemble"]["test"]["relative_l2"] == pytest.approx(error, rel=1e-4)
    assert members[0].operator.modes == [4]
    assert members[1].operator.in_channels == 1
    for name, runs in (
        ("single", ["single"]),
        ("ensemble", ["ensemble/member-0", "ensemble/member-1"]),
    ):
        seconds = [epoch_seconds(run / folder) for folder in runs]
        assert table[name]["epochs"] == [len(each) for each in seconds]
        assert table[name]["seconds"] == pytest.approx(sum(map(sum, seconds)))
    kept = (run / "single" / "surrogate" / "model.safetensors").stat().st_mtime_ns
    boost_command(again)
    assert (run / "single" / "surrogate" / "model.safetensors").stat().st_mtime_ns == kept


@pytest.mark.slow
def test_a_boost_goes_on_with_its_own_settings_and_data_only(boosted, tmp_path, caplog):
    arguments, run = boosted
    resumed = [*arguments, "--run", str(run), "--resume"]
    caplog.set_level("INFO", "sobolev")
    boost_command(resumed)
    assert "nothing is left to train" in caplog.text
    with pytest.raises(FileExistsError, match="holds a run already"):
        boost_command([*arguments, "--run", str(run)])
    with pytest.raises(ValueError, match=r"begun with other settings of model\.learning_rate"):
        boost_command([*resumed, "--model.learning_rate", "0.1"])
    with pytest.raises(ValueError, match="begun with other settings of epochs, held_out"):
        boost_command([*resumed, "--epochs", "3", "4", "--held-out", "0.2"])
    with pytest.raises(FileNotFoundError, match=r"no run in .* to resume"):
        boost_command([*arguments, "--run", str(tmp_path / "none"), "--resume"])

    place, aside = run.parent / "data", tmp_path / "data"
    place.rename(aside)
    try:
        generate(FEW, place, SAMPLES, seed=1, progress=False)
        words = r"begun on another data set: .* has other seed, train samples, valid samples"
        with pytest.raises(ValueError, match=words):
            boost_command(resumed)
    finally:
        shutil.rmtree(place)
        aside.rename(place)


@pytest.mark.slow
def test_what_cannot_be_boosted_is_refused_before_anything_is_written(boosted, tmp_path):
    arguments, run = [*boosted[0], "--run", str(tmp_path / "run")], tmp_path / "run"
    fno = {"class_path": "FNO", "init_args": {"in_channels": 1, "out_channels": 1, "modes": [4]}}
    alone = {"class_path": "SpecBoost", "init_args": {"stages": [fno]}}
    for operator, words in ((fno, "stages of a SpecBoost, got FNO"), (alone, "two stages or more")):
        with pytest.raises(ValueError, match=words):
            boost_command([*arguments, "--model.operator", json.dumps(operator)])
    with pytest.raises(
        ValueError, match="one number of at least 1 for all 2 stages, or one for each"
    ):
        boost_command([*arguments, "--epochs", "1", "2", "3"])
    with pytest.raises(ValueError, match="share of the 24 training samples"):
        boost_command([*arguments, "--held-out", "1.5"])
    assert not os.listdir(run) if run.exists() else True
