"""The folder of a surrogate: weights as safetensors, meaning as JSON, and no code.

::

    surrogate/
        model.safetensors     the state dict
        surrogate.json        operator, grid, variables, provenance; SHA-256 of the weights and itself
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from sobolev.datasets.store.whole_files import place_of

SCHEMA = 2
WEIGHTS = "model.safetensors"
MEANING = "surrogate.json"
_PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".npy", ".joblib")
_KEYS = {"schema", "operator", "grid", "inputs", "outputs", "provenance", "sha256"}


def surrogate_folder(path: str | Path) -> Path:
    """Return the surrogate's folder in a run folder; any other folder as it is."""
    inner = Path(path) / "surrogate"
    return inner if inner.is_dir() else Path(path)


def weights_of(module: nn.Module) -> tuple[bytes, str]:
    """Return the state dict as the bytes of a safetensors file, and their SHA-256."""
    state = {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
    weights = safetensors.torch.save(state)
    return weights, hashlib.sha256(weights).hexdigest()


def write_folder(path: Path, module: nn.Module, meaning: dict[str, Any]) -> None:
    """Write both files beside ``path`` and put them in its place. An older surrogate there is removed.

    Raises:
        FileExistsError: if ``path`` is a file, or a folder that holds anything but a surrogate.
        ValueError: for weights that are not float32 or float64.
    """
    if path.exists() and not path.is_dir():
        raise FileExistsError(
            f"{path} is a file, and a surrogate is a folder; save to another path"
        )
    if path.is_dir() and (foreign := {f.name for f in path.iterdir()} - {WEIGHTS, MEANING}):
        raise FileExistsError(f"{path} holds {', '.join(sorted(foreign))}; save to another folder")
    _check_dtypes(module.state_dict(), "the surrogate")
    path = place_of(path)
    unique = f".{path.name}.{uuid.uuid4().hex[:8]}"  # nobody else's, so what bears it may go
    part, old = (path.with_name(unique + suffix) for suffix in (".part", ".old"))
    part.mkdir(parents=True)
    try:
        weights, digest = weights_of(module)
        (part / WEIGHTS).write_bytes(weights)
        meaning = {"schema": SCHEMA, **meaning, "sha256": digest}
        meaning["self_sha256"] = meaning_digest(meaning)
        (part / MEANING).write_text(json.dumps(meaning, indent=1) + "\n")
        for name in (WEIGHTS, MEANING):
            with (part / name).open("rb+") as handle:
                os.fsync(handle.fileno())
        if path.exists():
            path.replace(old)
        part.replace(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.replace(path)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def read_folder(path: Path) -> tuple[dict[str, Any], dict[str, Shaped[Tensor, " ..."]]]:
    """Return the content of ``surrogate.json`` and the state dict, both verified.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: for a pickle in the folder, damaged files, or weights that are not float32 or
            float64.
    """
    try:
        meaning = _read_meaning(path)
    except RecursionError:
        raise ValueError(f"{path / MEANING} is no surrogate's: it is nested too deeply") from None
    try:
        weights = (path / WEIGHTS).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} holds no weights ({WEIGHTS} is missing)") from None
    if hashlib.sha256(weights).hexdigest() != meaning["sha256"]:
        raise ValueError(f"{path / WEIGHTS} is damaged: its SHA-256 is not the one in {MEANING}")
    try:
        state = safetensors.torch.load(weights)
    except (safetensors.SafetensorError, KeyError) as error:  # a key of a dtype torch lacks
        raise ValueError(f"{path / WEIGHTS} is no safetensors file: {error}") from error
    _check_dtypes(state, f"{path / WEIGHTS}")
    return meaning, state


def meaning_digest(meaning: dict[str, Any]) -> str:
    """Return the SHA-256 of the content of ``surrogate.json`` without this checksum."""
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()


def _check_dtypes(state: dict[str, Shaped[Tensor, " ..."]], owner: str) -> None:
    """Refuse weights that are neither all float32 nor all float64.

    The integers in which ``BatchNorm`` counts its batches are no weights.
    """
    found = {t.dtype for name, t in state.items() if not name.endswith("num_batches_tracked")}
    if len(found) != 1 or not found <= {torch.float32, torch.float64}:
        raise ValueError(
            f"{owner} has weights of {', '.join(sorted(map(str, found))) or 'no kind'}; expected float32 alone or "
            "float64 alone"
        )


def _read_meaning(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise FileNotFoundError(f"there is no surrogate folder at {path}")
    pickles = [file.name for file in path.iterdir() if file.suffix in _PICKLES]
    if pickles:
        raise ValueError(
            f"{path} holds {', '.join(sorted(pickles))}, which could run code when opened; a surrogate is made of "
            f"{WEIGHTS} and {MEANING} alone. Remove it if you trust the rest"
        )
    try:
        meaning = json.loads((path / MEANING).read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} holds no surrogate ({MEANING} is missing)") from None
    except ValueError as error:
        raise ValueError(f"{path / MEANING} is damaged: {error}") from error
    missing = _KEYS - set(meaning if isinstance(meaning, dict) else ())
    if missing:
        raise ValueError(f"{path / MEANING} is damaged: it lacks {', '.join(sorted(missing))}")
    if meaning.pop("self_sha256", None) != meaning_digest(meaning):
        raise ValueError(
            f"{path / MEANING} is damaged or was edited: its checksum does not match its content"
        )
    if meaning["schema"] != SCHEMA:
        raise ValueError(
            f"{path / MEANING} has schema {meaning['schema']}; this version of sobolev reads {SCHEMA}"
        )
    return meaning
