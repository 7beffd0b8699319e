"""A finished boost beside a single operator and an ensemble that are trained for as long."""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from sobolev.datasets.store.locks import locked
from sobolev.operators import Operator, SpecBoost
from sobolev.surrogates import Surrogate
from sobolev.training.boosting.boost_run import Boost
from sobolev.training.boosting.runs import (
    Prepare,
    cost_of,
    epoch_seconds,
    loaded,
    scores_of,
    where,
    write_json,
)

_log = logging.getLogger("sobolev")


class Compared:
    """A finished boost beside a single operator and an ensemble that are trained for as long.

    The single operator is the last stage's, of such a width that it has as many parameters as all
    stages. The ensemble averages the stages' operators, each trained on the fields themselves for as
    long as the stage was, from seeds of its own. Neither is given a prediction so far as further
    input. Epochs are chosen by the measured time of one epoch.
    """

    def __init__(self, boost: Boost, prepare: Prepare) -> None:
        self.boost = boost
        self.prepare = prepare
        self.run = boost.run
        booster = boost.operator
        given = boost.plain["model"]["operator"]["init_args"]["stages"]
        self.stages = [_stage_alone(stage, booster.in_channels) for stage in given]
        self.parameters = sum(p.numel() for p in booster.parameters())
        self.single = _of_size(self.stages[-1], type(booster.parts[-1]), self.parameters)

    def finish(self) -> dict[str, dict[str, Any]]:
        """Train what is missing, and save and return the table.

        Raises:
            FileExistsError: if another process is writing to the run folder.
        """
        with locked(self.run):
            return self._finish()

    def _finish(self) -> dict[str, dict[str, Any]]:
        times = [cost_of(folder)["seconds"] for folder in self.boost.folders]
        single = self.run / "single"
        ensemble = self.run / "ensemble"
        self._train(single, self.single, sum(times), seed=0)
        members = [ensemble / f"member-{k}" for k in range(len(times))]
        for k, (stage, seconds) in enumerate(zip(self.stages, times, strict=True)):
            self._train(members[k], stage, seconds, seed=k + 1)
        average([self._loaded(member) for member in members]).save(ensemble / "surrogate")
        table = {
            "boosting": self._entry(self.run, self.boost.folders),
            "single": self._entry(single, [single]),
            "ensemble": self._entry(ensemble, members),
        }
        reference = table["boosting"]
        for entry in table.values():
            for name in ("parameters", "seconds"):
                entry[f"{name}_ratio"] = entry[name] / reference[name]
        table["single"]["operator"] = self.single
        write_json(self.run / "comparison.json", table)
        return table

    def _train(self, run: Path, operator: dict[str, Any], seconds: float, seed: int) -> None:
        """Train ``operator`` on the fields themselves for about so many seconds, or the rest."""
        if (run / "surrogate").is_dir():
            return
        settings = self._settings(operator, seed)
        if (run / "checkpoints" / "last.ckpt").is_file():
            epochs = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"]
        else:
            _log.info(f"{run}: two epochs to time them")
            epochs = max(1, round(seconds / self._seconds_per_epoch(settings)))
        _log.info(f"{run}: {epochs} epochs, about {seconds:.0f} s")
        self._fit(settings, epochs, run)

    def _settings(self, operator: dict[str, Any], seed: int) -> dict[str, Any]:
        """Return the boost's configuration, as one of `sobolev train` for one operator."""
        plain = copy.deepcopy(dict(self.boost.plain))
        for name in ("epochs", "held_out", "compare", "stage"):
            plain.pop(name, None)
        plain["model"]["operator"] = operator
        plain["data"]["seed"] += seed
        plain["seed_everything"] = int(plain["seed_everything"]) + seed
        return plain

    def _entry(self, folder: Path, runs: Sequence[Path]) -> dict[str, Any]:
        """Return cost and errors of the surrogate in ``folder``, which the ``runs`` have trained."""
        surrogate = self._loaded(folder)
        costs = [cost_of(run) for run in runs]
        data = self.boost.data
        return {
            "parameters": sum(p.numel() for p in surrogate.operator.parameters()),
            "epochs": [cost["epochs"] for cost in costs],
            "seconds": sum(cost["seconds"] for cost in costs),
            "valid": scores_of(surrogate, data, "valid"),
            "test": scores_of(surrogate, data, "test") if "test" in data.manifest.splits else None,
        }

    def _loaded(self, folder: Path) -> Surrogate:
        return loaded(folder, self.boost.operator)

    def _fit(self, settings: Mapping[str, Any], epochs: int, run: Path) -> None:
        """Train as ``sobolev train`` would with these settings, or continue."""
        trainer = {**settings["trainer"], "max_epochs": epochs}
        self.prepare({**settings, "trainer": trainer, **where(run)}).fit()

    def _seconds_per_epoch(self, settings: Mapping[str, Any]) -> float:
        """Return the time of the second epoch of a run that is thrown away, and neither logged nor drawn."""
        bare = {**settings, "trainer": {**settings["trainer"], "logger": False, "callbacks": None}}
        with tempfile.TemporaryDirectory() as folder:
            self._fit(bare, 2, Path(folder))
            return epoch_seconds(Path(folder))[-1]


def average(members: Sequence[Surrogate]) -> Surrogate:
    """Return the mean of the members' predictions as one surrogate: a SpecBoost of scales 1/n."""
    booster = SpecBoost([copy.deepcopy(member.operator) for member in members])
    booster.scale[:] = 1 / len(members)
    surrogate = copy.deepcopy(members[0])
    surrogate.operator = booster
    return surrogate.eval()


def _stage_alone(stage: Mapping[str, Any], in_channels: int) -> dict[str, Any]:
    """Return a stage of a configuration as an operator of its own, on ``in_channels``."""
    arguments = dict(stage.get("init_args") or {})
    if "in_channels" in arguments:
        arguments["in_channels"] = in_channels
    return {"class_path": stage["class_path"], "init_args": arguments}


def _of_size(operator: Mapping[str, Any], kind: type[Operator], parameters: int) -> dict[str, Any]:
    """Return ``operator``, of a class, with the width that brings it closest to so many parameters.

    Raises:
        ValueError: if it has no width.
    """
    if not isinstance(operator["init_args"].get("width"), int):
        raise ValueError(
            f"--compare varies the width of the last stage to match parameters; {kind.__name__} has none: "
            "leave --compare out"
        )

    def of(width: int) -> dict[str, Any]:
        return {**operator, "init_args": {**operator["init_args"], "width": width}}

    def size(width: int) -> int:
        with torch.device("meta"):
            built = kind(**of(width)["init_args"])
        return sum(p.numel() for p in built.parameters())

    high = 1
    while size(high) < parameters:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < parameters else (low, middle)
    return of(min((w for w in (low, high) if w), key=lambda w: abs(size(w) - parameters)))
