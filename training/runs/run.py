"""Run folders: begun, resumed and finished, from Python or by a command."""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import json
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from sobolev.datasets.loading.datamodule import OperatorDataModule
from sobolev.datasets.store.locks import locked
from sobolev.datasets.store.whole_files import replacing
from sobolev.grids.checks import plain
from sobolev.operators.building import classes_in
from sobolev.surrogates import Surrogate
from sobolev.training.callbacks.averaging import AveragedWeights
from sobolev.training.callbacks.checkpoints import WATCHED, RunCheckpoint, WholeCheckpoints
from sobolev.training.callbacks.learning_rates import find_learning_rate
from sobolev.training.callbacks.pictures import Draw, PredictionPictures
from sobolev.training.callbacks.profile import Profile
from sobolev.training.callbacks.progress import Clock, EpochLines, Patience, duration, epochs_of
from sobolev.training.callbacks.zero_fields import ZeroFields
from sobolev.training.module import SHARDED, START, OperatorModule
from sobolev.training.runs.resuming import (
    checkpoint_of,
    fill,
    marks_of,
    refuse_changes,
    refuse_other_data,
)

DATA = "data.json"
"""The file of the marks by which a resumed run knows its data again."""
PARTS = (
    DATA, "config.yaml", "settings.yaml", "metrics*.csv", "tensorboard", "checkpoints", "surrogate", "evaluation*",
    "profile.txt", "learning_rate.png", ".lr_find_*.ckpt",
    "stage-*", "spectra.png", "boosting.json", "single", "ensemble", "comparison.json",
)  # fmt: skip
"""The files and folders of a run, which are removed when it is overwritten."""
_log = logging.getLogger("sobolev")


@dataclass
class Run:
    """A run folder, and how it is trained.

    Args:
        folder: receives the settings, ``metrics.csv``, ``tensorboard/``, ``checkpoints/`` and
            ``surrogate/``.
        settings: all that the run is made of, JSON-able; a resumed run must have the same.
        resume: go on from the last checkpoint.
        overwrite: replace a run that is there.
        ema: validate and save an exponential moving average of the weights with this decay.
        patience: stop when the validation error has not fallen for so many epochs.
        find_learning_rate: try growing learning rates first, and use the one that suggests.
        profile: write down where the time goes.
        seed: the number that everything was seeded with, for the record.
        draw: makes the pictures of predictions for TensorBoard; none are made without.
        file: name of the settings in the folder.
    """

    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    overwrite: bool = False
    ema: float | None = None
    patience: int | None = None
    find_learning_rate: bool = False
    profile: bool = False
    seed: int | bool | None = None
    draw: Draw | None = None
    file: str = "config.yaml"

    def check(self) -> None:
        """Refuse a folder that holds another run, or none to resume.

        Raises:
            FileExistsError: if it holds a run that is neither to be resumed nor overwritten.
            FileNotFoundError: if there is nothing to resume.
            NotADirectoryError: if it is a file.
            ValueError: for a run to resume that was begun with other settings.
        """
        file = self.folder / self.file
        if self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(
                f"{self.folder} is a file, and a run is a folder; give another --run"
            )
        if self.resume:
            if not file.is_file():
                raise FileNotFoundError(
                    f"there is no run in {self.folder} to resume ({file} is missing)"
                )
            refuse_changes(yaml.safe_load(file.read_text()), dict(self.settings), self.folder)
        elif file.exists() and not self.overwrite:
            raise FileExistsError(
                f"{self.folder} holds a run already; give --resume, --overwrite or another --run"
            )

    def prepare(self) -> None:
        """Clear or continue the folder, once everything in the settings has proved good."""
        if self.overwrite:
            for pattern in PARTS:
                for found in self.folder.glob(pattern):
                    shutil.rmtree(found) if found.is_dir() else found.unlink()
        for unfinished in self.checkpoints.glob(".*.part"):  # of a killed process
            unfinished.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        if (metrics := self.folder / "metrics.csv").exists():  # Lightning's logger would delete it
            number = len(list(self.folder.glob("metrics-*.csv")))
            metrics.rename(self.folder / f"metrics-{number:03d}.csv")
        with replacing(self.folder / self.file) as part:
            part.write_text(yaml.safe_dump(dict(self.settings), sort_keys=False))

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def last(self) -> Path:
        """The checkpoint that a run is resumed from."""
        return self.checkpoints / "last.ckpt"

    def callbacks(self, *, progress_bar: bool = False) -> list[Callback]:
        """Return the callbacks of the run, which work beside its steps."""
        ours: list[Callback] = [
            Clock(),
            *([PredictionPictures(self.draw)] if self.draw else []),
            RichProgressBar() if progress_bar else EpochLines(),
            ZeroFields(),
            RunCheckpoint(self.checkpoints, "best", monitor=WATCHED),
            # a callback of its own: the one above saves only when the validation error has fallen
            RunCheckpoint(self.checkpoints, "last", every_n_epochs=1, save_on_train_epoch_end=True),
        ]
        if self.ema is not None:
            ours.insert(0, AveragedWeights(self.ema))
        if self.patience is not None:
            ours.insert(0, Patience(self.patience))
        if self.profile:
            ours.insert(0, Profile(self.folder / "profile.txt"))
        return ours

    def loggers(self) -> list[Logger]:
        """Return the loggers that write the run's metrics."""
        return [CSVLogger(self.folder, "", ""), TensorBoardLogger(self.folder, "tensorboard", "")]

    def fit(
        self, module: OperatorModule, data: OperatorDataModule, trainer: lightning.Trainer
    ) -> Surrogate:
        """Train a module, or the rest of it, and save its surrogate in the folder.

        Args:
            module: to be trained.
            data: its data.
            trainer: with the run's ``callbacks``.

        Returns:
            The surrogate with the weights that did best in validation, else the last ones.

        Raises:
            FileExistsError: if another process is writing to the folder.
            FileNotFoundError, ValueError: for a checkpoint that is no good, or other data than the run was
                begun on.
            ValueError: for a precision of 16 bits that weights cannot have.
            ArithmeticError: if training diverges.
            KeyboardInterrupt: if it was stopped; what was finished is kept.
        """
        if str(trainer.precision) in ("16-true", "bf16-true"):
            raise ValueError(
                f"trainer.precision {trainer.precision} rounds the weights, and surrogates have float32 ones; give "
                f"{str(trainer.precision).removesuffix('true')}mixed, which rounds where that does no harm"
            )
        marks = marks_of(data.manifest)
        if self.resume:
            refuse_other_data(self.folder / DATA, marks, data.path)
        if self.resume and (self.folder / "surrogate").is_dir():
            checkpoint_of(self.last)
            _log.info(f"{self.folder} is complete; nothing is left to train")
            own = classes_in(module.surrogate.operator)
            return Surrogate.load(self.folder, operators=own)
        self._continue(module, trainer) if self.resume else module.check_ready(trainer)
        # the first process alone writes, but for the checkpoints of all
        with locked(self.folder) if is_first_process() else contextlib.nullcontext():
            return self._finish(module, data, trainer, marks)

    def _finish(
        self,
        module: OperatorModule,
        data: OperatorDataModule,
        trainer: lightning.Trainer,
        marks: Mapping[str, Any],
    ) -> Surrogate:
        """Train what is missing, and save and return the surrogate."""
        if is_first_process():
            self.prepare()
            with replacing(self.folder / DATA) as part:
                part.write_text(json.dumps(marks, indent=1) + "\n")
        surrogate = module.surrogate
        if isinstance(trainer.strategy, SHARDED):  # to be filled from a checkpoint, which is whole
            surrogate = copy.deepcopy(surrogate)
        self._train(module, data, trainer)
        if trainer.is_global_zero:
            self._keep_best(module, trainer, surrogate)
            surrogate.save(self.folder / "surrogate")
        return surrogate

    def _continue(self, module: OperatorModule, trainer: lightning.Trainer) -> None:
        """Take over from the last checkpoint what Lightning does not."""
        checkpoint = checkpoint_of(self.last)
        if trainer.max_steps > 0:  # Lightning repeats an epoch's beginning, without batches
            _log.warning(
                "a run counted in trainer.max_steps goes on with another order of samples than an undisturbed one; "
                "runs of trainer.max_epochs (and trainer.limit_train_batches) resume exactly"
            )
        if self.find_learning_rate:  # the schedule found then goes on
            module.learning_rate = checkpoint["optimizer_states"][0]["param_groups"][0]["max_lr"]
        if checkpoint[START] is not None:
            module.surrogate.record(start=checkpoint[START])

    def _train(
        self, module: OperatorModule, data: OperatorDataModule, trainer: lightning.Trainer
    ) -> None:
        try:
            if self.find_learning_rate and not self.resume:
                picture = self.folder / "learning_rate.png"
                module.learning_rate = find_learning_rate(trainer, module, data, picture)
            trainer.fit(
                module, data, ckpt_path=self.last if self.resume else None, weights_only=True
            )
        except SystemExit:  # Lightning's answer to Ctrl-C and to SIGTERM
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise

    def _keep_best(
        self, module: OperatorModule, trainer: lightning.Trainer, surrogate: Surrogate
    ) -> None:
        """Give the surrogate the weights that did best in validation, else the last ones, and the record
        of its training."""
        best = _watching(trainer)
        score = None
        epoch = None
        callbacks: list[Callback] = cast(Any, trainer).callbacks
        seconds = sum(next(c for c in callbacks if isinstance(c, Clock)).seconds, 0.0)
        if best.best_model_path and best.best_model_score is not None:
            checkpoint = fill(surrogate, Path(best.best_model_path))
            score = float(best.best_model_score)
            epoch = checkpoint["epoch"] + 1
        elif surrogate is not module.surrogate:
            fill(surrogate, self.last)
        surrogate.record(
            training={
                "valid_relative_l2": score,
                "best_epoch": epoch,
                "epochs": trainer.current_epoch,
                "steps": trainer.global_step,
                "seconds": round(seconds, 1),
                "seed": self.seed,
                "optimizer": type(trainer.optimizers[0]).__name__,
                "learning_rate": module.learning_rate,
                "ema": self.ema,
                "versions": {
                    name: importlib.metadata.version(name)
                    for name in ("sobolev", "torch", "lightning")
                },
            }
        )
        done = trainer.current_epoch
        wanted = epochs_of(trainer)
        early = f" (stopped early, of {wanted})" if wanted is not None and done < wanted else ""
        found = "no validation"
        if score is not None:
            found = f"best in epoch {epoch}: valid relative L² {score:.5f}"
        _log.info(f"{done} epoch{'s' * (done != 1)}{early} in {duration(seconds)}; {found}")


def train(
    module: OperatorModule,
    data: OperatorDataModule,
    folder: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    ema: float | None = None,
    patience: int | None = None,
    find_learning_rate: bool = False,
    profile: bool = False,
    draw: Draw | None = None,
    **trainer: Any,
) -> Surrogate:
    """Train a module in a run folder, from Python as ``sobolev train`` does.

    Args:
        module: to be trained.
        data: its data.
        folder: the run folder.
        resume, overwrite, ema, patience, find_learning_rate, profile, draw: as for ``Run``.
        trainer: settings of Lightning's trainer, such as ``max_epochs``, besides those of
            ``trainer_defaults``.

    Returns:
        The surrogate, which is saved in ``folder`` as well.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: as ``Run.check`` and ``Run.fit``.

    >>> train(module, data, "runs/mine", max_epochs=100).predict(dataset)           # doctest: +SKIP
    """
    trainer = plain(trainer)
    written = {k: v for k, v in trainer.items() if isinstance(v, (int, float, str, type(None)))}
    settings = {
        "model": {
            "operator": module.surrogate.operator.description,
            "protocol": module.surrogate.provenance.protocol,
            "learning_rate": module.learning_rate,
        },
        "data": {"batch_size": data.batch_size, **module.surrogate.provenance.data.to_json()},
        "trainer": written,
        "ema": ema,
        "patience": patience,
        "find_learning_rate": find_learning_rate,
    }
    settings = plain(settings)
    run = Run(
        Path(folder), settings, resume, overwrite, ema, patience, find_learning_rate, profile,
        draw=draw, file="settings.yaml",
    )  # fmt: skip
    run.check()
    given = trainer_defaults() | trainer
    with quiet():
        own = {
            "callbacks": [
                *(given.pop("callbacks", None) or []),
                *run.callbacks(progress_bar=bool(given["enable_progress_bar"])),
            ],
            "logger": given.pop("logger", run.loggers()),
            "plugins": [*(given.pop("plugins", None) or []), WholeCheckpoints()],
        }
        built = lightning.Trainer(default_root_dir=run.folder, **own, **given)
        return run.fit(module, data, built)


def trainer_defaults() -> dict[str, Any]:
    """Return the settings of Lightning's trainer in which runs differ from it."""
    return {
        "accelerator": accelerator(),
        "devices": 1,
        "gradient_clip_val": 1.0,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10,
        "enable_progress_bar": sys.stderr.isatty(),
        "enable_model_summary": False,
    }


def accelerator() -> str:
    """Return Lightning's choice, but never Apple's: it lacks the float64 in which grids and metrics are
    computed."""
    return "auto" if torch.cuda.is_available() or not torch.backends.mps.is_available() else "cpu"


def is_first_process() -> bool:
    """Return whether this process is the one that writes."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _watching(trainer: lightning.Trainer) -> ModelCheckpoint:
    """Return the callback that watches the validation error, among those that the user may have added."""
    return next(
        callback
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, RunCheckpoint) and callback.monitor == WATCHED
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning from advice about loader processes and tips for other products, and turn its refusals of
    settings into ``ValueError``."""
    noisy = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in noisy]
    for logger in noisy:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*treespec.*")
            warnings.filterwarnings("ignore", message=".*args parameter is intended.*")
            warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
            warnings.filterwarnings("ignore", message=".*number of training batches.*")
            # a run without validation has no best weights, and keeps its last
            warnings.filterwarnings("ignore", message=".*could not find the monitored key.*")
            yield
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
