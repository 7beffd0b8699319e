"""The command line as a user meets it: what it prints, what it leaves, and how it refuses."""

from __future__ import annotations

import ast
import csv
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import xarray as xr
import yaml

from sobolev import Surrogate
from sobolev.__main__ import main
from sobolev.datasets import Manifest, OperatorDataModule, open_dataset

# What Lightning and torch warn about by themselves, in code that is not ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


def config(tmp_path, data, **trainer):
    content = {
        "model": {
            "operator": {
                "class_path": "sobolev.operators.FNO",
                "init_args": {
                    "in_channels": 1,
                    "out_channels": 1,
                    "modes": [4],
                    "width": 8,
                    "depth": 2,
                },
            },
            "learning_rate": 0.01,
        },
        "data": {"path": str(data), "batch_size": 8},
        "trainer": {"max_epochs": 4, "accelerator": "cpu", **trainer},
    }
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(content))
    return str(file)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory, burgers_data):
    home = tmp_path_factory.mktemp("first")
    run = home / "run"
    assert main(["train", "--config", config(home, burgers_data), "--run", str(run)]) == 0
    return run


@pytest.fixture
def trained(tmp_path, first_run):
    """A run of one's own, to be changed at will."""
    return Path(shutil.copytree(first_run, tmp_path / "run"))


@pytest.mark.slow
def test_train_leaves_a_run_folder(trained, burgers_data):
    assert {"config.yaml", "metrics.csv", "tensorboard", "checkpoints", "surrogate"} <= {
        f.name for f in trained.iterdir()
    }
    with (trained / "metrics.csv").open() as handle:
        losses = [float(row["train/loss"]) for row in csv.DictReader(handle) if row["train/loss"]]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    surrogate = Surrogate.load(trained / "surrogate")
    record = surrogate.provenance
    assert record["training"]["epochs"] == 4
    assert record["data"]["recipe"]["class"] == "BurgersRecipe"
    assert surrogate.input_scale.item() == pytest.approx(
        OperatorDataModule(burgers_data).statistics["initial_velocity"][1]
    )


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one(
    tmp_path, burgers_data, trained, monkeypatch
):
    """Stopped after two of four epochs by a failing callback, then resumed: equal bit for bit."""
    run, file = tmp_path / "stopped", config(tmp_path, burgers_data)
    from sobolev.training import OperatorModule

    validate = OperatorModule.on_train_epoch_end

    def fail(self):
        validate(self)
        if self.current_epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(OperatorModule, "on_train_epoch_end", fail)
    assert main(["train", "--config", file, "--run", str(run)]) == 130
    assert not (run / "surrogate").exists()
    monkeypatch.setattr(OperatorModule, "on_train_epoch_end", validate)
    assert main(["train", "--config", file, "--run", str(run), "--resume"]) == 0
    whole, resumed = (Surrogate.load(r / "surrogate").state_dict() for r in (trained, run))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert sorted(f.name for f in run.glob("metrics*.csv")) == ["metrics-000.csv", "metrics.csv"]


@pytest.mark.slow
def test_evaluate_scores_zero_shot_resolutions_and_draws_figures(trained, burgers_data, capsys):
    arguments = ["evaluate", str(trained), "--data", str(burgers_data)]
    assert (
        main([*arguments, "--resolution", "32", "--resolution", "64", "--resolution", "128"]) == 0
    )
    scores = json.loads((trained / "evaluation" / "evaluation.json").read_text())["scores"]
    assert [s["resolution"] for s in scores] == [32, 64, 128]
    assert all(s["samples"] == 6 and 0 < s["relative_l2"] < 1 for s in scores)
    assert (
        scores[2]["solver_relative_l2"] < 1e-5
    )  # the solver on its own grid, fields stored in float32
    pictures = {f.name for f in (trained / "evaluation").glob("*.png")}
    assert pictures == {"fields-32.png", "fields-128.png", "spectrum.png", "training.png"}
    assert "relative L²" in capsys.readouterr().out
    prediction = Surrogate.load(trained / "surrogate").predict(open_dataset(burgers_data, "test"))
    truth = open_dataset(burgers_data, "test").velocity.values
    error = ((prediction.velocity.values - truth) ** 2).sum(1) / (truth**2).sum(1)
    assert scores[1]["relative_l2"] == pytest.approx((error**0.5).mean(), rel=1e-4)


def test_predict_writes_netcdf(trained, burgers_data, tmp_path):
    open_dataset(burgers_data, "test").load().to_netcdf(tmp_path / "in.nc", engine="h5netcdf")
    assert (
        main(
            [
                "predict",
                str(trained),
                str(tmp_path / "in.nc"),
                str(tmp_path / "out.nc"),
                "--resolution",
                "128",
            ]
        )
        == 0
    )
    with xr.open_dataset(tmp_path / "out.nc") as result:
        assert result.velocity.shape == (6, 128)
        assert result.x.attrs["boundary"] == "periodic"


@pytest.mark.slow
def test_generate_resume_and_verify(tmp_path, capsys):
    path = str(tmp_path / "d")
    command = ["generate", "burgers-fno", path, "--samples", "train=2", "--resolution", "256"]
    assert main([*command, "--seed", "3"]) == 0
    assert main(["generate", "burgers-fno", path, "--resume", "--samples", "test=1"]) == 0
    assert Manifest.read(tmp_path / "d").requested == {"train": 2, "test": 1}
    assert main(["verify", path]) == 0
    file = tmp_path / "d" / "train" / "00000.nc"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert main(["verify", path]) == 1
    assert "00000.nc (samples 0 to 1) is damaged" in capsys.readouterr().err


def refusal(capsys, *arguments):
    """The line on standard error of a command that must end with exit code 2."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    return capsys.readouterr().err


def test_bad_input_ends_with_code_2_and_one_line(tmp_path, burgers_data, trained, capsys):
    data, run = tmp_path / "d", trained
    cases = {
        ("generate", "burger-fno", data): "did you mean 'burgers-fno'",
        ("generate", "burgers-fno", data, "--resolution", 1000): "cannot be stored at 1000",
        ("generate", "burgers-fno", data, "--samples", "train"): "not of the form SPLIT=COUNT",
        ("generate", "burgers-fno", burgers_data, "--seed", 9): "another configuration",
        ("verify", tmp_path / "nothing"): "holds no sobolev data set",
        ("evaluate", tmp_path / "nothing", "--data", burgers_data): "no surrogate folder",
        ("evaluate", run, "--data", burgers_data, "--resolution", 100): "choose from 128, 64",
        ("evaluate", run, "--data", burgers_data, "--split", "tset"): "no split 'tset'",
        ("predict", run, tmp_path / "nothing.nc", "out.nc"): "there is no file",
        ("predict", run, run / "config.yaml", "out.nc"): "config.yaml cannot be read as NetCDF-4",
        ("predict", run, run / "config.yaml", run / "config.yaml"): "are the same file",
        ("predict", run, run / "config.yaml", tmp_path): "is a folder; name the file",
        (
            "train",
            "--config",
            config(tmp_path, burgers_data),
            "--run",
            tmp_path / "r",
            "--trainer.max_epoch",
            3,
        ): "max_epochs",
        ("train", "--config", config(tmp_path, burgers_data), "--run", run): "holds a run already",
        (
            "train",
            "--config",
            config(tmp_path, tmp_path / "nothing"),
            "--run",
            tmp_path / "r",
        ): "holds no sobolev data",
        ("train", "--config", tmp_path / "nothing.yaml"): "nothing.yaml",
    }
    for arguments, message in cases.items():
        assert message in refusal(capsys, *arguments)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("learning_rat", "learning_rate"), ("operatr", "operator")],
)
def test_a_misspelt_key_is_answered_with_the_nearest_one(
    tmp_path, burgers_data, capsys, wrong, right
):
    file = config(tmp_path, burgers_data)
    content = yaml.safe_load(Path(file).read_text())
    content["model"][wrong] = content["model"].pop(right)
    Path(file).write_text(yaml.safe_dump(content))
    message = refusal(capsys, "train", "--config", file, "--run", tmp_path / "r")
    assert right in message
    assert "did you mean" in message


def test_a_misspelt_key_of_the_operator_is_answered_too(tmp_path, burgers_data, capsys):
    file = config(tmp_path, burgers_data)
    content = yaml.safe_load(Path(file).read_text())
    content["model"]["operator"]["init_args"]["widht"] = 3
    Path(file).write_text(yaml.safe_dump(content))
    message = refusal(capsys, "train", "--config", file, "--run", tmp_path / "r")
    assert "widht" in message
    assert "did you mean 'width'" in message


def test_overwriting_with_a_bad_configuration_keeps_the_old_run(trained, tmp_path, capsys):
    file = config(tmp_path, tmp_path / "nothing")
    assert "holds no sobolev data" in refusal(
        capsys, "train", "--config", file, "--run", trained, "--overwrite"
    )
    Surrogate.load(trained / "surrogate")


def test_a_damaged_checkpoint_is_named(trained, tmp_path, burgers_data, capsys):
    (trained / "checkpoints" / "last.ckpt").write_bytes(b"PK nonsense")
    file = config(tmp_path, burgers_data)
    assert "last.ckpt is damaged" in refusal(
        capsys, "train", "--config", file, "--run", trained, "--resume"
    )


def test_a_surrogate_is_not_judged_on_other_fields(trained, darcy_data, capsys):
    message = refusal(capsys, "evaluate", trained, "--data", darcy_data)
    assert "trained on initial_velocity [1], velocity [1] on x (periodic" in message
    assert "holds permeability [1], pressure [1] on y (dirichlet" in message


def test_resuming_a_complete_run_changes_nothing(trained, tmp_path, burgers_data):
    before = {f: f.stat().st_mtime_ns for f in trained.rglob("*") if f.is_file()}
    assert (
        main(
            ["train", "--config", config(tmp_path, burgers_data), "--run", str(trained), "--resume"]
        )
        == 0
    )
    assert {f: f.stat().st_mtime_ns for f in trained.rglob("*") if f.is_file()} == before


def test_resuming_with_another_architecture_is_refused(trained, tmp_path, burgers_data, capsys):
    message = refusal(
        capsys, "train", "--config", config(tmp_path, burgers_data), "--run", trained, "--resume",
        "--model.operator.init_args.width", "9",
    )  # fmt: skip
    assert "begun with other settings of model.operator" in message


def test_print_config_shows_every_default(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--config", "burgers-fno", "--print_config"])
    assert stop.value.code == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["model"]["operator"]["init_args"]["width"] == 64
    assert shown["trainer"]["gradient_clip_val"] == 1.0


def timed(*command):
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - start


@pytest.mark.parametrize("command", ["refine", "onnx"])
def test_python_in_the_help_can_be_copied(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    (code,) = re.findall(r'python -c "([^"]*)"', capsys.readouterr().out)
    ast.parse(code)


def test_help_is_quick_and_importing_is_light():
    assert min(timed("-m", "sobolev", "--help") for _ in range(3)) < 1.5
    check = "import sobolev, sys; assert 'torch' not in sys.modules and 'xarray' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)
