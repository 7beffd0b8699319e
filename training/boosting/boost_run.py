"""The stages of a SpecBoost, each a run of its own, in one run folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor

from sobolev.datasets.store.locks import locked
from sobolev.datasets.store.whole_files import replacing
from sobolev.operators import SpecBoost
from sobolev.surrogates import Surrogate
from sobolev.training.boosting.pictures import stage_spectra
from sobolev.training.boosting.runs import (
    Prepare,
    Prepared,
    cost_of,
    loaded,
    scores_of,
    where,
    write_json,
)
from sobolev.training.boosting.stages import BoostingModule, error_spectra
from sobolev.training.runs.resuming import differing, marks_of

_log = logging.getLogger("sobolev")


class Boost:
    """A boost in its run folder, of which some stages may be finished.

    The folder holds its settings, a train run ``stage-0/``, ``stage-1/`` … for each stage, ``surrogate/``
    with the stages that are finished, ``boosting.json`` and ``spectra.png``.

    Args:
        prepared: the run of the whole boost, whose module trains the first stage.
        prepare: makes the run of a stage; ``stage`` among its settings says which.
        epochs: of each stage: one number for all, or one each; by default those of the trainer.
        held_out: share of the training samples that each later stage has to itself.

    Raises:
        ValueError: for an operator without stages, another number of epochs than stages, more devices
            than one, or a run to resume that was begun with other settings or on another data set.
    """

    def __init__(
        self,
        prepared: Prepared,
        prepare: Prepare,
        *,
        epochs: Sequence[int] | None = None,
        held_out: float = 0.0,
    ) -> None:
        self.prepared = prepared
        booster = self.operator
        if len(booster.stages) < 2:
            raise ValueError(
                "boosting needs a SpecBoost of two stages or more, this one has 1; add stages, or use `sobolev train`"
            )
        if prepared.trainer.world_size > 1:
            raise ValueError(
                f"sobolev boost trains on one device, got {prepared.trainer.world_size}; give --trainer.devices 1, or "
                "call sobolev.training.boosting.boost with trainers of your own"
            )
        self.prepare = prepare
        self.run = prepared.run.folder
        self.plain = prepared.run.settings
        count = len(booster.stages)
        self.settings: dict[str, Any] = {
            "epochs": _per_stage(epochs, count, self.plain["trainer"]["max_epochs"]),
            "held_out": held_out,
        }
        self.folders = [self.run / f"stage-{k}" for k in range(count)]
        self.data = prepared.data  # of the first stage: validation is common
        self.identity = marks_of(self.data.manifest)

    def finish(self) -> Path:
        """Train what is missing, and return the run folder.

        Raises:
            FileExistsError: if another process is writing to it.
        """
        if not self.prepared.run.resume:
            self.prepared.module.check_ready(self.prepared.trainer)
        with locked(self.run):
            self._begin()
            self._finish()
        return self.run

    def _finish(self) -> None:
        done = sum((folder / "surrogate").is_dir() for folder in self.folders)
        if done and not self._published(done):
            self._publish(done)
        for k in range(done, len(self.folders)):
            self._train(k)
            self._publish(k + 1)
        if done == len(self.folders):
            _log.info(f"{self.run}: all stages are complete; nothing is left to train")

    @property
    def operator(self) -> SpecBoost:
        """The operator whose stages are trained."""
        return cast(SpecBoost, self.prepared.module.surrogate.operator)

    def _begin(self) -> None:
        """Begin the run folder, or make sure that what it holds can be continued."""
        record = self.run / "boosting.json"
        if not self.prepared.run.resume:
            self.prepared.run.prepare()
            write_json(record, {"data": self.identity, **self.settings})
            return
        if not record.is_file():
            raise FileNotFoundError(f"there is no boost to resume in {self.run}: no {record.name}")
        before = json.loads(record.read_text())
        if other := differing(before["data"], self.identity):
            raise ValueError(
                f"{self.run} was begun on another data set: {self.data.path} has other {', '.join(other)} now. Stages "
                "learn residuals of the fields that the earlier ones saw; boost anew in another --run"
            )
        if other := differing({name: before[name] for name in self.settings}, self.settings):
            raise ValueError(
                f"{self.run} was begun with other settings of {', '.join(other)}; resume with the same ones or boost "
                "anew in another --run"
            )

    def _train(self, k: int) -> None:
        """Train stage ``k``, or the rest of it."""
        trainer = {**self.plain["trainer"], "max_epochs": self.settings["epochs"][k]}
        stage = self.prepare(
            {**self.plain, "stage": k, "trainer": trainer, **where(self.folders[k])}
        )
        if k and not stage.run.resume:
            cast(BoostingModule, stage.module).follow(self._stage(k - 1))
        stage.fit()

    def _published(self, count: int) -> bool:
        stages = json.loads((self.run / "boosting.json").read_text()).get("stages", [])
        return len(stages) == count and (self.run / "surrogate").is_dir()

    def _publish(self, count: int) -> None:
        """Save what the first ``count`` stages make together, and show what each of them leaves."""
        stages = [self._account(k) for k in range(count)]
        errors = [stage["valid"]["relative_l2"] for stage in stages]
        best = 1 + min(range(count), key=errors.__getitem__)
        surrogate = self._stage(count - 1)
        wavenumbers, spectra = error_spectra(surrogate, self.data)
        for k in range(count):
            self._draw(self.folders[k] / "spectrum.png", wavenumbers, spectra, max(k - 1, 0), k)
        self._draw(self.run / "spectra.png", wavenumbers, spectra, 0, count - 1)
        cast(SpecBoost, surrogate.operator).active = best
        training = replace(
            surrogate.provenance.training,
            valid_relative_l2=errors[best - 1],
            seconds=sum(stage["seconds"] for stage in stages),
        )
        boosting = {"data": self.identity, "stages": stages, "active": best}
        surrogate.record(boosting=boosting, training=training)
        surrogate.save(self.run / "surrogate")
        content = {"data": self.identity, **self.settings, "stages": stages, "active": best}
        spectrum = {"wavenumbers": wavenumbers.tolist(), "spectra": spectra.tolist()}
        write_json(self.run / "boosting.json", {**content, **spectrum})
        path = " → ".join(f"{error:.5f}" for error in errors)
        _log.info(f"{count} of {len(self.folders)} stages: valid relative L² {path}")
        if best < count:
            _log.warning(f"no later stage improves on stage {best - 1}; the surrogate ends with it")

    def _account(self, k: int) -> dict[str, Any]:
        surrogate = self._stage(k)
        return {
            **cost_of(self.folders[k]),
            "samples": (surrogate.provenance.boosting or {})["samples"],
            "valid": scores_of(surrogate, self.data, "valid"),
        }

    def _stage(self, k: int) -> Surrogate:
        """Return the surrogate of the first stages up to ``k``."""
        return loaded(self.folders[k], self.operator)

    @staticmethod
    def _draw(
        file: Path,
        wavenumbers: Float[Tensor, " shell"],
        spectra: Float[Tensor, "spectrum shell"],
        first: int,
        last: int,
    ) -> None:
        errors = {f"after stage {k}": spectra[k + 1] for k in range(first, last + 1)}
        figure = stage_spectra(wavenumbers, spectra[0], errors)
        with replacing(file) as part:
            figure.savefig(part, dpi=120, format="png")


def _per_stage(epochs: Sequence[int] | None, stages: int, otherwise: int | None) -> list[int]:
    """Return the epochs of each stage.

    Raises:
        ValueError: if nobody said how many, or another number of them than there are stages.
    """
    given = list(epochs or ([otherwise] if otherwise and otherwise > 0 else []))
    if len(given) not in (1, stages) or any(count < 1 for count in given):
        raise ValueError(
            f"give --epochs (or trainer.max_epochs) one number of at least 1 for all {stages} stages, or one for each; "
            f"got {given or 'none'}"
        )
    return given * stages if len(given) == 1 else given
