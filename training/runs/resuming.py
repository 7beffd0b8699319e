"""The checkpoint that a run is resumed from, and the refusal of what is another run's or on other data."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sobolev.datasets.store.manifest import Manifest
from sobolev.surrogates import Surrogate
from sobolev.training.module import START
from sobolev.training.untrained import changes


def checkpoint_of(path: Path) -> dict[str, Any]:
    """Return epoch, optimiser and start of a checkpoint to go on from.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: for one that is damaged, or holds more than tensors and numbers.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"there is no checkpoint to resume from ({path} is missing): the first is written after the first epoch; "
            "begin again with --overwrite"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        found = {name: checkpoint[name] for name in ("epoch", "optimizer_states")}
        return {**found, START: checkpoint.get(START)}
    except (RuntimeError, EOFError, OSError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} is damaged or holds more than tensors and numbers: {error}"
        ) from error


def refuse_changes(before: dict[str, Any], now: dict[str, Any], run: Path) -> None:
    """Refuse to resume a run with other settings; only where and how to run may change.

    Raises:
        ValueError: naming the settings.
    """
    trainer = (
        "max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm",
        "precision", "limit_train_batches", "devices", "num_nodes",
    )  # fmt: skip

    def binding(settings: dict[str, Any]) -> dict[str, Any]:
        parts = ("model", "data", "seed_everything", "ema", "patience", "find_learning_rate")
        chosen = {part: settings.get(part) for part in parts}
        chosen["trainer"] = {name: settings.get("trainer", {}).get(name) for name in trainer}
        free = ("workers", "path")  # the data are known by their marks
        chosen["data"] = {k: v for k, v in (chosen["data"] or {}).items() if k not in free}
        return chosen

    if changed := changes(binding(before), binding(now)):
        raise ValueError(
            f"{run} was begun with other settings of {', '.join(changed)}; learning rates and the order of samples "
            "follow from them, so resume with the same ones or train anew in another --run"
        )


def marks_of(manifest: Manifest) -> dict[str, Any]:
    """Return the marks by which those who train on a data set know it again, wherever it lies."""
    samples = {
        f"{split} samples": hashlib.sha256(
            "".join(shard.sha256 for shard in manifest.splits[split]).encode()
        ).hexdigest()
        for split in ("train", "valid")
        if split in manifest.splits
    }
    return {
        "recipe": manifest.recipe,
        "seed": manifest.seed,
        "resolution": manifest.resolution,
        **samples,
    }


def refuse_other_data(file: Path, now: Mapping[str, Any], path: Path) -> None:
    """Refuse to resume a run on other data than those whose marks are in ``file``, wherever they lie now.

    Args:
        file: written where the run was begun.
        now: marks of the data.
        path: folder of the data.

    Raises:
        FileNotFoundError: if the run does not know its data.
        ValueError: naming the marks that differ.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing, by which a resumed run knows its data again; train anew with --overwrite"
        )
    if other := differing(json.loads(file.read_text()), now):
        raise ValueError(
            f"{file.parent} was begun on another data set: {path} has other {', '.join(other)} now; resume with "
            "--data.path where the first one lies, or train anew in another --run"
        )


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names whose values differ."""
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


def fill(surrogate: Surrogate, path: Path) -> dict[str, Any]:
    """Give a surrogate the weights of a checkpoint, and return the checkpoint."""
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    weights = {
        name.removeprefix("surrogate."): values
        for name, values in checkpoint["state_dict"].items()
        if name.startswith("surrogate.")
    }
    surrogate.load_state_dict(weights)
    return checkpoint
