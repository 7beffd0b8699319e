"""The same batch at once, in parts, and shared by two processes: the same weights."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import yaml

from sobolev import Surrogate
from sobolev.commands.train import trained as train

# What Lightning and torch warn about by themselves, in code that is not ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


@pytest.mark.slow
def test_accumulated_and_shared_batches_train_as_one_batch(tmp_path, darcy_data):
    """Batches of 8 of 16 training samples, turned by symmetries; 3 validation samples, which two
    processes cannot share evenly. In float64, so that equal means equal."""
    init = {
        "in_channels": 1,
        "out_channels": 1,
        "modes": [3, 3],
        "width": 6,
        "boundary": "dirichlet",
    }
    content = {
        "model": {
            "operator": {"class_path": "sobolev.operators.FNO", "init_args": init},
            "learning_rate": 0.01,
        },
        "data": {"path": str(darcy_data), "train_samples": 16, "valid_fraction": 0.15, "augment": True},
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "precision": "64-true"},
    }  # fmt: skip
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(content))

    def arguments(name, *more):
        return [str(a) for a in ("--config", file, "--run", tmp_path / name, "--ema", 0.5, *more)]

    train(arguments("whole", "--data.batch_size", 8))
    train(arguments("parts", "--data.batch_size", 2, "--trainer.accumulate_grad_batches", 4))
    shared = arguments(
        "shared", "--data.batch_size", 4, "--trainer.strategy", "ddp", "--trainer.devices", 2,
        "--profile",
    )  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "sobolev", "train", *shared],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    whole = Surrogate.load(tmp_path / "whole" / "surrogate")
    record = whole.provenance["training"]
    assert record["steps"] == 6
    for name in ("parts", "shared"):
        other = Surrogate.load(tmp_path / name / "surrogate")
        for key, value in whole.state_dict().items():
            torch.testing.assert_close(other.state_dict()[key], value, rtol=1e-9, atol=1e-11)
        found = other.provenance["training"]
        assert found["steps"] == 6
        assert found["best_epoch"] == record["best_epoch"]
        assert found["valid_relative_l2"] == pytest.approx(record["valid_relative_l2"], rel=1e-9)
    written = {f.name for f in (tmp_path / "shared").iterdir()}
    assert written == {
        "config.yaml", "metrics.csv", "tensorboard", "checkpoints", "surrogate", "profile.txt",
        "data.json", ".lock",
    }  # fmt: skip
