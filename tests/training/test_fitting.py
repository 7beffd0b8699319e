"""``sobolev train``: what is validated is saved, what is killed resumes exactly, what is wrong is said."""

from __future__ import annotations

import csv
import json
import logging
import math
import shutil
import signal

import pytest
import torch
import yaml
from lightning.pytorch.strategies import SingleDeviceStrategy
from support.processes import finished
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sobolev import Surrogate
from sobolev.__main__ import main
from sobolev.commands.train import trained as train
from sobolev.datasets import BurgersRecipe, generate
from sobolev.datasets.store.locks import locked
from sobolev.training import OperatorModule
from sobolev.training.callbacks.learning_rates import steepest

# What Lightning and torch warn about by themselves, in code that is not ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]

FNO = {
    "class_path": "sobolev.operators.FNO",
    "init_args": {"in_channels": 1, "out_channels": 1, "modes": [4], "width": 8, "depth": 2},
}


@pytest.fixture
def options(tmp_path, burgers_data):
    """A configuration of 3 steps an epoch, as arguments; more may follow."""
    content = {
        "model": {"operator": FNO, "learning_rate": 0.01},
        "data": {"path": str(burgers_data), "batch_size": 8, "augment": True},
        "trainer": {"max_epochs": 4, "accelerator": "cpu"},
    }
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(content))

    def arguments(run, *more):
        return [str(a) for a in ("--config", file, "--run", tmp_path / run, *more)]

    return arguments


def weights(run):
    return Surrogate.load(run / "surrogate").state_dict()


def assert_equal_bits(a, b):
    assert all(torch.equal(a[name], b[name]) for name in a)


def refusal(capsys, *arguments):
    """The line on standard error of a command that must end with exit code 2."""
    try:
        code = main(["train", *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    return capsys.readouterr().err


KILLED = """
import os, signal, sys
from sobolev.__main__ import main
from sobolev.training import OperatorModule

step = OperatorModule.training_step

def fatal(self, batch, index):
    if self.global_step == 7:  # the second step of the third epoch
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, index)

OperatorModule.training_step = fatal
main(["train", *sys.argv[1:]])
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(tmp_path, options, monkeypatch):
    """SIGKILL within an epoch; the folder moves; the next start gets SIGTERM; the third is cut off
    while it writes its checkpoint; the fourth ends with equal bits, averaged weights, the optimizer's
    bases and all."""
    more = (
        "--ema", 0.8, "--patience", 50, "--trainer.max_epochs", 5,
        "--model.optimizer", "SOAP", "--model.optimizer.interval", 2,
    )  # fmt: skip
    whole = weights(train(options("whole", *more)))
    killed = finished(KILLED, *options("killed", *more))
    assert killed.returncode == -signal.SIGKILL, killed.output
    run = (tmp_path / "killed").rename(tmp_path / "moved")
    litter = run / "checkpoints" / ".last.ckpt.0123.part"
    litter.write_bytes(b"half")

    step = OperatorModule.training_step

    def terminated(self, batch, index):
        if self.global_step == 10:
            signal.raise_signal(signal.SIGTERM)
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(OperatorModule, "training_step", terminated)
        assert main(["train", *options("moved", *more, "--resume")]) == 130

    save, saved = torch.save, []

    def cut_off(checkpoint, file):
        saved.append(checkpoint["epoch"])
        save(checkpoint, file)
        if saved.count(3) == 2:  # best.ckpt of the fourth epoch is there, last.ckpt half written
            file.truncate(file.tell() // 2)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", cut_off)
        assert main(["train", *options("moved", *more, "--resume")]) == 130
    assert saved == [3, 3]
    assert not litter.exists()
    assert not (run / "surrogate").exists()
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 2
    train(options("moved", *more, "--resume"))
    assert_equal_bits(whole, weights(run))
    assert Surrogate.load(run / "surrogate").provenance["training"]["best_epoch"] == 5
    assert not list(run.rglob("*.part"))


@pytest.mark.slow
def test_a_resumed_run_does_not_read_its_start_again(tmp_path, options, monkeypatch):
    """Which is gone by then, and had another normalisation: weights, averages and record are those of
    an undisturbed run."""
    start = train(options("first", "--data.train_samples", 12))
    more = ("--model.start", start, "--ema", 0.8)
    whole = train(options("whole", *more))
    step = OperatorModule.training_step

    def terminated(self, batch, index):
        if self.global_step == 7:
            signal.raise_signal(signal.SIGTERM)
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(OperatorModule, "training_step", terminated)
        assert main(["train", *options("cut", *more)]) == 130
    shutil.rmtree(start)
    resumed = train(options("cut", *more, "--resume"))
    assert_equal_bits(weights(whole), weights(resumed))
    records = [Surrogate.load(run / "surrogate").provenance["start"] for run in (whole, resumed)]
    assert records[0] == records[1]
    assert records[0]["data"]["train_samples"] == 12


@pytest.mark.slow
def test_what_is_refused_leaves_a_finished_run_alone(tmp_path, options, capsys):
    before = weights(train(options("run")))
    wrong = ("--overwrite", "--model.optimizer", "torch.optim.Rprop")
    said = refusal(capsys, *options("run", *wrong))
    assert "made of parameters, lr and weight_decay" in said
    assert "unexpected keyword argument 'weight_decay'" in said
    booster = {"class_path": "sobolev.operators.SpecBoost", "init_args": {"stages": [FNO, FNO]}}
    for run in ("run", "fresh"):
        operator = ("--model.operator", json.dumps(booster))
        assert "one after another" in refusal(capsys, *options(run, "--overwrite", *operator))
    assert not (tmp_path / "fresh").exists()
    for bits in ("16", "bf16"):  # whose tensors cannot be multiplied with those of the data
        said = refusal(capsys, *options("fresh", "--trainer.precision", f"{bits}-true"))
        assert f"give {bits}-mixed" in said
        assert not (tmp_path / "fresh").exists()
    endless = ("--overwrite", "--trainer.max_epochs", -1)
    assert "give trainer.max_epochs or trainer.max_steps" in refusal(
        capsys, *options("run", *endless)
    )
    assert_equal_bits(before, weights(tmp_path / "run"))


@pytest.mark.slow
def test_a_resumed_run_knows_its_data_wherever_they_lie(tmp_path, options, burgers_data, capsys):
    """Another data set under the same path, or the same one under another."""
    place = tmp_path / "scratch-1"
    shutil.copytree(burgers_data, place)
    run = train(options("run", "--data.path", place, "--trainer.max_epochs", 1))
    before = weights(run)
    place.rename(tmp_path / "scratch-2")
    resume = ("--resume", "--trainer.max_epochs", 1)
    train(options("run", "--data.path", tmp_path / "scratch-2", *resume))
    recipe = BurgersRecipe(solver_resolution=128, steps=40)
    generate(recipe, place, {"train": 24, "valid": 4}, resolution=64, seed=7, progress=False)
    said = refusal(capsys, *options("run", "--data.path", place, *resume))
    assert "begun on another data set" in said
    assert "has other seed, train samples, valid samples now" in said
    assert_equal_bits(before, weights(run))


def test_a_second_writer_in_a_run_folder_is_refused(tmp_path, options, capsys):
    """While the first one trains; it is not harmed."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("that: of the first")
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_text("its own")
    with locked(tmp_path / "run"):
        said = refusal(capsys, *options("run", "--overwrite"))
    assert "another process is writing to" in said
    assert (tmp_path / "run" / "config.yaml").read_text() == "that: of the first"
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").read_text() == "its own"


@pytest.mark.slow
def test_averaged_weights_are_validated_picked_and_saved(tmp_path, options, monkeypatch):
    """Against the recursion w̄ ← 0.7 w̄ + 0.3 w, begun at the weights after the first step."""
    after_step, validated = [], []

    def values(module):
        return torch.cat([p.detach().flatten() for p in module.parameters()])

    def on_train_batch_end(self, *_):
        after_step.append(values(self).clone())

    judge = OperatorModule.validation_step

    def validation_step(self, batch, index):
        validated.append(values(self).clone())
        judge(self, batch, index)

    monkeypatch.setattr(OperatorModule, "on_train_batch_end", on_train_batch_end)
    monkeypatch.setattr(OperatorModule, "validation_step", validation_step)
    run = train(options("run", "--ema", 0.7))
    average, expected = after_step[0], []
    for step, w in enumerate(after_step):
        average = 0.7 * average + 0.3 * w if step else w
        expected.append(average)
    record = Surrogate.load(run / "surrogate").provenance["training"]
    best = record["best_epoch"] - 1
    for epoch in range(4):
        torch.testing.assert_close(validated[epoch], expected[3 * epoch + 2])
        assert (validated[epoch] - after_step[3 * epoch + 2]).abs().max() > 1e-3
    saved = values(Surrogate.load(run / "surrogate"))
    assert torch.equal(saved, validated[best])
    assert (record["ema"], record["optimizer"]) == (0.7, "AdamW")
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    proper = torch.cat(
        [t.flatten() for n, t in last["current_model_state"].items() if ".operator." in n]
    )
    torch.testing.assert_close(proper.sort().values, after_step[-1].sort().values, rtol=0, atol=0)


@pytest.mark.slow
def test_patience_ends_a_run_and_a_stopped_run_is_complete(options, caplog, monkeypatch):
    """A validation error that is lowest after the first epoch: its weights are saved."""
    caplog.set_level(logging.INFO, "sobolev")
    seen = []

    def validation_step(self, batch, index):
        seen.append([p.detach().clone() for p in self.surrogate.parameters()])
        self.log("valid/relative_l2", torch.tensor(1.0 + self.current_epoch))

    monkeypatch.setattr(OperatorModule, "validation_step", validation_step)
    more = ("--patience", 2, "--trainer.max_epochs", 9)
    run = train(options("run", *more))
    saved = list(Surrogate.load(run / "surrogate").parameters())
    assert all(torch.equal(a, b) for a, b in zip(saved, seen[0], strict=True))
    assert not torch.equal(saved[0], seen[2][0])
    record = Surrogate.load(run / "surrogate").provenance["training"]
    assert (record["epochs"], record["best_epoch"]) == (3, 1)
    assert "3 epochs (stopped early, of 9)" in caplog.text
    train(options("run", *more, "--resume"))
    assert "is complete" in caplog.text
    before = weights(run)
    for file in (run / "surrogate").iterdir():  # as if killed before the surrogate was saved
        file.unlink()
    (run / "surrogate").rmdir()
    train(options("run", *more, "--resume"))
    assert Surrogate.load(run / "surrogate").provenance["training"]["epochs"] == 3
    assert_equal_bits(before, weights(run))


@pytest.mark.slow
@pytest.mark.draws
def test_the_found_learning_rate_trains_as_if_it_had_been_given(tmp_path, options, monkeypatch):
    """Although the trial diverges at its end."""
    plain = OperatorModule.training_step

    def diverging(self, *arguments):
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        return plain(self, *arguments) * (math.nan if rate > 0.5 else 1.0)

    monkeypatch.setattr(OperatorModule, "training_step", diverging)
    more = ("--find-learning-rate", "--ema", 0.9, "--trainer.limit_val_batches", 0)
    found = train(options("found", *more))
    assert (found / "learning_rate.png").stat().st_size > 5000
    rate = Surrogate.load(found / "surrogate").provenance["training"]["learning_rate"]
    assert 1e-4 < rate < 1e-1
    given = train(options("given", "--model.learning_rate", repr(rate), *more[1:]))
    assert_equal_bits(weights(found), weights(given))
    assert [file.name for file in found.glob(".*")] == [".lock"]
    (found / "surrogate").rename(tmp_path / "surrogate")  # as if killed before it was saved
    train(options("found", *more, "--resume"))
    assert_equal_bits(weights(tmp_path), weights(found))
    again = Surrogate.load(found / "surrogate").provenance["training"]
    assert again["learning_rate"] == pytest.approx(rate)


def test_no_learning_rate_is_suggested_where_none_helps():
    with pytest.raises(ArithmeticError, match="fell at no learning rate"):
        steepest([10 ** (-6 + k / 10) for k in range(50)], [1.0 + k / 50 for k in range(50)])


@pytest.mark.slow
def test_mixed_precision_trains_and_saves_float32(tmp_path, options):
    more = ("--trainer.max_epochs", 3, "--trainer.enable_progress_bar", "false")
    full, mixed = (
        train(options(precision, *more, "--trainer.precision", precision))
        for precision in ("32-true", "bf16-mixed")
    )
    a, b = weights(full), weights(mixed)
    assert {t.dtype for t in b.values()} == {torch.float32}
    moved = max(float((a[name] - b[name]).abs().max()) for name in a)
    assert 1e-5 < moved < 0.02  # bf16 has 8 bits: it was used, and led to about the same weights
    scores = [Surrogate.load(r / "surrogate").provenance["training"] for r in (full, mixed)]
    assert scores[1]["valid_relative_l2"] == pytest.approx(scores[0]["valid_relative_l2"], rel=0.02)


@pytest.mark.slow
@pytest.mark.draws
def test_a_run_tells_its_progress_and_draws_its_predictions(tmp_path, options, caplog):
    caplog.set_level(logging.INFO, "sobolev")
    run = train(options("run", "--profile", "--trainer.max_epochs", 5))
    lines = [record.message for record in caplog.records]
    with (run / "metrics.csv").open() as file:
        losses = [row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]]
    for epoch, loss in enumerate(losses):
        assert lines[epoch].startswith(f"epoch {epoch + 1}/5  loss {float(loss):.5f}  valid L² 0.")
    assert lines[0].endswith(" left")
    assert "best in epoch 5: valid relative L² 0." in lines[-1]
    events = EventAccumulator(str(run / "tensorboard"), {"images": 0}).Reload()
    pictures = events.Images("prediction")
    assert 1 <= len(pictures) <= 5
    assert pictures[-1].step == 15
    profile = (run / "profile.txt").read_text()
    shares = {
        line[:32].strip(): float(line.split()[-1 if "ms" in line else -2].rstrip("%"))
        for line in profile.splitlines()[3:11]
        if line[:32].strip() in ("validation", "forward and loss", "backward", "optimiser")
    }
    assert set(shares) == {"validation", "forward and loss", "backward", "optimiser"}
    assert "15 steps of 8 fields" in profile
    assert "own time of operators in steps 6 to 10" in profile
    assert "AdamW" in profile
    assert sum(f.stat().st_size for f in run.rglob("*") if f.is_file()) < 3e6


@pytest.mark.parametrize(
    "more",
    [
        ("--trainer.fast_dev_run", "true"),
        ("--trainer.logger", "false", "--trainer.limit_train_batches", 2),
        ("--trainer.max_epochs", -1, "--trainer.max_steps", 4, "--trainer.limit_val_batches", 0),
        ("--profile", "--trainer.num_sanity_val_steps", 2, "--trainer.max_epochs", 1),
    ],
    ids=["fast_dev_run", "no logger", "max_steps without validation", "profile and sanity check"],
)
def test_lightnings_own_switches_work(tmp_path, options, more):
    run = train(options("run", *more))
    Surrogate.load(run / "surrogate")


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--trainer.limit_val_batches", 0)], ids=["best", "last"])
def test_where_weights_are_sharded_they_are_saved_from_a_checkpoint(options, more, monkeypatch):
    """The strategies that shard need GPUs; one that does not stands for them here."""
    plain = train(options("plain", *more))
    monkeypatch.setattr("sobolev.training.runs.run.SHARDED", SingleDeviceStrategy)
    monkeypatch.setattr(
        OperatorModule, "on_fit_end", lambda self: torch.nn.init.zeros_(next(self.parameters()))
    )
    sharded = train(options("sharded", *more))
    assert_equal_bits(weights(plain), weights(sharded))
    records = [Surrogate.load(run / "surrogate").provenance["training"] for run in (plain, sharded)]
    assert records[0]["valid_relative_l2"] == records[1]["valid_relative_l2"]


@pytest.mark.slow
def test_bad_options_are_refused_in_words(tmp_path, options, capsys):
    run = train(options("run", "--trainer.max_epochs", 1))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    again = options("run", "--trainer.max_epochs", 1, "--resume")
    cases = {
        ("--config", "burger-fno"): "did you mean 'burgers-fno'? sobolev comes with",
        ("--config", "nothing.yaml"): "there is no file 'nothing.yaml'",
        tuple(options("new", "--ema", 1.5)): "ema is a decay between 0 and 1",
        tuple(options("new", "--patience", 0)): "patience is a whole number of at least 1",
        tuple(options("new", "--paticence", 3)): "did you mean 'patience'",
        tuple(options("new", "--model.loss", "SobolevLos")): "did you mean 'SobolevLoss'",
        tuple(options("new", "--model.optimizer", "SOPA")): "did you mean 'SOAP'",
        tuple(options("empty", "--resume")): "there is no run in",
        tuple(options("file")): "is a file, and a run is a folder",
        tuple(options("timed", "--trainer.max_epochs", -1, "--trainer.max_time", "00:00:01:00")): "is not known; give",
        tuple(options("new", "--trainer.strategy", "fsdp")): "fsdp",
        (*again, "--ema", "0.9"): "other settings of ema (None, now 0.9)",
        (*again, "--patience", "3"): "patience (None, now 3)",
        (*again, "--model.operator.init_args.width", "9"): "model.operator.init_args.width (8, now 9)",
        (*again, "--trainer.max_epochs", "2"): "trainer.max_epochs (1, now 2)",
    }  # fmt: skip
    for arguments, message in cases.items():
        assert message in refusal(capsys, *arguments)
    (run / "checkpoints" / "last.ckpt").unlink()
    assert "the first is written after the first epoch" in refusal(capsys, *again)
