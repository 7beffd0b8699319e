"""The common parts of the runs of a boost: preparation, costs, scores."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch

from sobolev.datasets.loading.datamodule import OperatorDataModule
from sobolev.datasets.store.whole_files import replacing
from sobolev.operators import Operator
from sobolev.operators.building import classes_in
from sobolev.surrogates import Surrogate
from sobolev.training.callbacks.progress import Clock
from sobolev.training.module import OperatorModule
from sobolev.training.runs.run import Run, accelerator


@dataclass(frozen=True)
class Prepared:
    """A run with all that it takes."""

    run: Run
    module: OperatorModule
    data: OperatorDataModule
    trainer: lightning.Trainer

    def fit(self) -> Surrogate:
        """Train it, or the rest of it."""
        return self.run.fit(self.module, self.data, self.trainer)


Prepare = Callable[[Mapping[str, Any]], Prepared]
"""A function that makes a run of its settings, among them ``run``, ``resume`` and ``overwrite``."""


def where(run: Path) -> dict[str, Any]:
    """Return settings that continue a run at its last checkpoint, or begin it anew where there is none."""
    begun = (run / "checkpoints" / "last.ckpt").is_file()
    return {"run": str(run), "resume": begun, "overwrite": not begun}


def epoch_seconds(run: Path) -> list[float]:
    """Return the seconds of each epoch behind a run's last checkpoint."""
    last = torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    return last["callbacks"][Clock().state_key]["seconds"]


def cost_of(run: Path) -> dict[str, Any]:
    """Return the epochs of a run, and the seconds they took."""
    seconds = epoch_seconds(run)
    return {"epochs": len(seconds), "seconds": sum(seconds)}


def loaded(run: Path, like: Operator) -> Surrogate:
    """Return the surrogate of a run, whose operator is of the classes that ``like`` is made of."""
    return Surrogate.load(run / "surrogate", operators=classes_in(like))


def scores_of(surrogate: Surrogate, data: OperatorDataModule, split: str) -> dict[str, float]:
    """Return the scores of training, on the validation or the test split."""
    judge = lightning.Trainer(
        accelerator=accelerator(), devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    module = OperatorModule(copy.deepcopy(surrogate.operator), data)
    module.surrogate = copy.deepcopy(surrogate)  # with all that belongs to its predictions
    run = {"valid": judge.validate, "test": judge.test}[split]
    return {
        name.removeprefix(f"{split}/"): value
        for name, value in run(module, data, verbose=False)[0].items()
    }


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write JSON that is whole or absent."""
    with replacing(file) as part:
        part.write_text(json.dumps(content, indent=1) + "\n")
