"""What ``sobolev train`` does beside the training step, as Lightning callbacks."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.tuner import Tuner
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter1d
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sobolev.datasets.store.whole_files import replacing
from sobolev.evaluation import figures as plots
from sobolev.evaluation.comparison import Comparison
from sobolev.training.module import SHARDED, OperatorModule

WATCHED = "valid/relative_l2"
"""The error by which the best weights are picked."""
_log = logging.getLogger("sobolev")


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are there whole or not at all, whenever the process is killed.

    Lightning writes into the temporary folder and moves the file, which from one file system to
    another is a copy under the final name. Here it is written beside, synced and renamed.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        if storage_options is not None:
            raise TypeError("checkpoints of a run are local files, without storage_options")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as part:
            torch.save(checkpoint, part)


class RunCheckpoint(ModelCheckpoint):
    """One checkpoint in a run folder, whose state still fits when the folder has been moved."""

    def __init__(self, folder: Path, name: str, **options: Any) -> None:
        super().__init__(folder, name, enable_version_counter=False, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {name: here(state_dict[name]) for name in paths}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(
            {**state_dict, **moved, "best_k_models": best, "dirpath": self.dirpath}
        )


class AveragedWeights(WeightAveraging):
    """Exponential moving average of the weights (Polyak & Juditsky 1992), w̄ ← d w̄ + (1 − d) w after
    every step.

    Averages are validated, picked as best and saved; training goes on from the weights proper, which
    checkpoints hold too. Buffers, such as batch norm's statistics, are those of the weights proper.

    Args:
        decay: d, between 0 and 1; about 1/(1 − d) steps are averaged over.

    Raises:
        ValueError: for another decay; when training begins, for weights sharded over processes.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"ema is a decay between 0 and 1, such as 0.999; got {decay}")
        # Lightning's own EMA callback averages the buffers too, among them scales and transforms, which drift by
        # rounding.
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        if isinstance(trainer.strategy, SHARDED):
            raise ValueError(
                "ema averages whole weights, not sharded ones; train with ddp or without ema"
            )
        # the copy is for its weights; boosting's module holds the data as well, which need no copy
        data = {
            k: v for k, v in vars(pl_module).items() if isinstance(v, lightning.LightningDataModule)
        }
        try:
            for name in data:
                delattr(pl_module, name)
            super().setup(trainer, pl_module, stage)
            if (
                self._average_model is not None
            ):  # the module itself is brought to its precision later
                trainer.precision_plugin.convert_module(self._average_model)
        finally:
            for name, value in data.items():
                setattr(pl_module, name, value)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # a resumed run that has nothing left to train does not come to the end of training
        self._copy_average_to_current(pl_module)


class Patience(EarlyStopping):
    """Stop when the validation error has not fallen for ``patience`` validations.

    Raises:
        ValueError: for a patience below 1.
    """

    def __init__(self, patience: int) -> None:
        if patience < 1:
            raise ValueError(f"patience is a whole number of at least 1, got {patience}")
        super().__init__(WATCHED, patience=patience, check_on_train_epoch_end=False)

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if self.wait_count >= self.patience:  # killed after its last epoch, before its surrogate
            trainer.should_stop = True


class Clock(Callback):
    """Seconds of each epoch, validation included, and those before an interruption as well: its state
    is kept in the checkpoints."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        self._began = time.perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.seconds.append(time.perf_counter() - self._began)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = list(state_dict["seconds"])


class EpochLines(Callback):
    """A line per epoch where there is no terminal for a progress bar."""

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self.started, self.first = time.perf_counter(), trainer.current_epoch

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        metrics = trainer.callback_metrics  # summed over all processes, which must all ask
        if not trainer.is_global_zero:
            return
        epoch, epochs = trainer.current_epoch + 1, epochs_of(trainer)
        seconds = (time.perf_counter() - self.started) / (epoch - self.first)
        names = {"train/loss": "loss", WATCHED: "valid L²", "valid/relative_h1": "H¹"}
        values = {names[k]: float(v) for k, v in metrics.items() if k in names}
        parts = [
            f"epoch {epoch}" if epochs is None else f"epoch {epoch:>{len(str(epochs))}}/{epochs}"
        ]
        parts += [f"{name} {values[name]:.5f}" for name in names.values() if name in values]
        if epoch != epochs:  # of the next step, and after the last epoch there is none
            parts.append(f"rate {trainer.optimizers[0].param_groups[0]['lr']:.1e}")
        parts.append(f"{seconds:.1f} s/epoch")
        if epochs is not None and epoch < epochs:
            parts.append(f"{duration(seconds * (epochs - epoch))} left")
        _log.info("  ".join(parts))


class PredictionPictures(Callback):
    """Truth, prediction and error of the first validation samples, for TensorBoard, at most ``count``
    times in a run and for at most a twentieth of its time – but once in the last epoch."""

    SAMPLES = 3
    """The median and the worst of these are drawn."""

    def __init__(self, count: int = 10) -> None:
        self.count, self.seen, self.seconds = count, -1, 0.0

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self.started = time.perf_counter()

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if batch_idx or not boards or not isinstance(pl_module, OperatorModule):
            return
        if not self._due(trainer):
            return
        surrogate, (inputs, targets) = pl_module.surrogate, batch
        # every process takes part, with the whole batch: sharded weights and compiled graphs want it so
        predictions = surrogate(inputs)
        began = time.perf_counter()
        if trainer.is_global_zero and (self._last(trainer) or self._affordable(began)):
            fields = (inputs, targets[:, : predictions.shape[1]], predictions)
            given, true, predicted = (u[: self.SAMPLES].float() for u in fields)
            comparison = Comparison(surrogate.grid, given, true, predicted, surrogate)
            figure = plots.fields(comparison, surrogate)
            for board in boards:
                board.experiment.add_figure("prediction", figure, trainer.global_step)
            self.seconds += time.perf_counter() - began

    def _due(self, trainer: lightning.Trainer) -> bool:
        """Whether this is the first validation of one of the epochs to draw: ``count`` evenly spaced
        ones, or, where their number is not known, 1, 2, 4, 8, …"""
        epoch, epochs = trainer.current_epoch + 1, epochs_of(trainer)
        if trainer.sanity_checking or epoch == self.seen:
            return False
        self.seen = epoch
        if epochs is None:
            return epoch & (epoch - 1) == 0
        return epoch % math.ceil(epochs / self.count) == 0 or self._last(trainer)

    def _last(self, trainer: lightning.Trainer) -> bool:
        return trainer.current_epoch + 1 == epochs_of(trainer)

    def _affordable(self, now: float) -> bool:
        return self.seconds <= 0.05 * (now - self.started)


class Profile(Callback):
    """Where the time goes: phases of all steps, and the operators of a few, in a text file that is
    written anew after every epoch.

    Devices are waited for between phases, so that each gets its own time; a run is a little slower
    for it.
    """

    RECORDED = range(5, 10)
    """The steps whose operators are recorded; by then caches are warm."""
    _DATA, _FORWARD, _BACKWARD, _OPTIMISER = STEP = (
        "loading and moving data",
        "forward and loss",
        "backward",
        "optimiser",
    )
    _VALIDATION, _REST = "validation", "checkpoints, logs, pictures"
    _FIRST, _RECORDING = "first step (caches, compiling)", "recording operators"

    def __init__(self, file: Path) -> None:
        self.file, self.steps, self.timed = file, 0, 0
        self.seconds: dict[str, float] = {}
        self.recorder: torch.profiler.profile | None = None
        self.operators: list[tuple[str, int, float]] = []

    def on_fit_start(self, *_: Any) -> None:
        self.mark = time.perf_counter()

    def on_train_epoch_start(self, *_: Any) -> None:
        self._lap(self._REST)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, *_: Any
    ) -> None:
        self._lap(self._DATA)
        self.batch, self.device = len(batch[0]), pl_module.device
        if self.steps == self.RECORDED.start:
            self.recorder = torch.profiler.profile()
            self.recorder.start()
            self._lap(self._RECORDING)

    def on_before_backward(self, *_: Any) -> None:
        self._lap(self._FORWARD)

    def on_after_backward(self, *_: Any) -> None:
        self._lap(self._BACKWARD)

    def on_train_batch_end(self, *_: Any) -> None:
        self._lap(self._OPTIMISER)
        self.timed += self.steps > 0 and self.recorder is None
        self.steps += 1
        if self.steps == self.RECORDED.stop:
            self._stop_recording()

    def on_validation_start(self, *_: Any) -> None:
        self._lap(self._REST)

    def on_validation_end(self, *_: Any) -> None:
        self._lap(self._VALIDATION)

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._lap(self._REST)
        if trainer.is_global_zero:
            with replacing(self.file) as part:
                part.write_text(self.report())

    def on_train_end(self, *_: Any) -> None:
        self._stop_recording()

    def on_exception(self, *_: Any) -> None:
        self._stop_recording()

    def report(self) -> str:
        """The two tables."""
        total = sum(self.seconds.values())
        lines = [
            f"{duration(total)} on {self.device}, {self.steps} steps of {self.batch} fields (in each process)",
            "",
            f"{'phase':32}{'seconds':>9}{'share':>8}{'ms/step':>10}",
        ]
        order = (*self.STEP, self._VALIDATION, self._REST, self._FIRST, self._RECORDING)
        for phase in (phase for phase in order if phase in self.seconds):
            seconds = self.seconds[phase]
            each = (
                f"{1e3 * seconds / self.timed:>10.2f}" if phase in self.STEP and self.timed else ""
            )
            lines.append(f"{phase:32}{seconds:9.2f}{seconds / total:8.1%}{each}")
        if self.timed:
            step = sum(self.seconds.get(phase, 0.0) for phase in self.STEP) / self.timed
            lines += ["", f"{self.batch / step:.0f} fields per second (and process) while training"]
        if self.operators:
            whole = sum(seconds for _, _, seconds in self.operators)
            first, last = self.RECORDED.start + 1, self.RECORDED.stop
            lines += [
                "",
                f"own time of operators in steps {first} to {last}: {1e3 * whole:.1f} ms",
                "",
            ]
            lines.append(f"{'operator':52}{'calls':>7}{'ms':>9}{'share':>8}")
            for name, calls, seconds in self.operators[:15]:
                lines.append(f"{name[:50]:52}{calls:7}{1e3 * seconds:9.2f}{seconds / whole:8.1%}")
        return "\n".join(lines) + "\n"

    def _lap(self, phase: str) -> None:
        """Count the time since the last call to ``phase``."""
        if self.steps and phase in self.STEP and self.recorder is not None:
            phase = self._RECORDING
        elif not self.steps and phase in self.STEP:
            phase = self._FIRST
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self.mark
        self.mark = now

    def _stop_recording(self) -> None:
        if self.recorder is None:
            return
        self.recorder.stop()
        where = "self_cpu_time_total" if self.device.type == "cpu" else "self_device_time_total"
        events = self.recorder.key_averages()
        found = [(e.key, e.count, getattr(e, where) / 1e6) for e in events]
        self.operators = sorted((e for e in found if e[2] > 0), key=lambda e: -e[2])
        self.recorder = None
        self._lap(self._RECORDING)


def find_learning_rate(
    trainer: lightning.Trainer,
    module: OperatorModule,
    data: lightning.LightningDataModule,
    picture: Path,
    *,
    steps: int = 100,
) -> float:
    """The learning rate at which the loss falls fastest, by a trial of growing rates (Smith 2017);
    weights and optimiser are then what they were.

    The loss of each step, smoothed, is drawn over the rate in ``picture``.

    Raises:
        ArithmeticError: if the loss fell at no rate.
        ValueError: under ``fast_dev_run``.
    """
    loop = trainer.fit_loop
    epochs, validations = loop.max_epochs, trainer.check_val_every_n_epoch
    loop.max_epochs = steps * trainer.accumulate_grad_batches  # enough, however short an epoch
    if validations is not None:
        trainer.check_val_every_n_epoch = loop.max_epochs + 1
    module.may_diverge = True
    try:
        finder = Tuner(trainer).lr_find(
            module,
            datamodule=data,
            min_lr=1e-6,
            max_lr=1.0,
            num_training=steps,
            update_attr=False,
        )
    finally:
        module.may_diverge = False
        loop.max_epochs, trainer.check_val_every_n_epoch = epochs, validations
    if finder is None:
        raise ValueError("a trial of learning rates needs more than trainer.fast_dev_run")
    rates, losses = finder.results["lr"], _unsmoothed(finder.results["loss"])
    found = steepest(rates, losses)
    if trainer.is_global_zero:
        with replacing(picture) as part:
            _draw_rates(rates, losses, found).savefig(part, dpi=120, format="png")
        _log.info(f"learning rate {found:.2e}, from a trial drawn in {picture}")
    return found


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate at which the loss, smoothed, falls fastest over log(rate), before it is lowest.

    >>> rates = [10 ** (-6 + k / 20) for k in range(100)]
    >>> losses = [1 / (1 + (rate / 1e-3) ** 2) + rate**2 for rate in rates]
    >>> f"{steepest(rates, losses):.1e}"  # −d/d(log r) of 1/(1 + (r/ρ)²) is largest at r = ρ
    '1.0e-03'

    Raises:
        ArithmeticError: if the loss fell at no rate.
    """
    smooth = _smooth(losses)
    lowest = int(smooth.argmin())
    if lowest < 2 or not smooth[lowest] < smooth[0]:
        raise ArithmeticError(
            "the loss fell at no learning rate of the trial; set model.learning_rate by hand"
        )
    slope = np.gradient(smooth[: lowest + 1], np.log(rates[: lowest + 1]))
    return float(rates[int(slope.argmin())])


def _smooth(losses: Sequence[float]) -> np.ndarray:
    """Losses of single batches, averaged over a few steps; those of a diverged end count as no gain."""
    values = np.nan_to_num(np.array(losses), nan=np.inf, posinf=np.inf)
    values = np.minimum(values, 2 * values[np.isfinite(values)][0])
    return gaussian_filter1d(values, 3.0, mode="nearest")


def _unsmoothed(losses: Sequence[float], beta: float = 0.98) -> list[float]:
    """The losses of the single steps, from Lightning's running mean.

    That mean lags by some fifty steps and, at the beginning, falls short by up to a half, so that a
    trial would always look best at its smallest rates.
    """
    means = [value * (1 - beta ** (k + 2)) for k, value in enumerate(losses)]
    return [
        (m - beta * before) / (1 - beta) for m, before in zip(means, [0.0, *means], strict=False)
    ]


def _draw_rates(rates: Sequence[float], losses: Sequence[float], found: float) -> Figure:
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(rates, losses, lw=0.8, alpha=0.4, label="each step")
    axes.semilogx(rates, _smooth(losses), lw=1.4, color="#1f77b4", label="smoothed")
    axes.axvline(found, color="#d62728", lw=1.0, label=f"used: {found:.2e}")
    axes.set(
        xlabel="learning rate",
        ylabel="training loss",
        ylim=(0.0, 1.5 * losses[0]),
        title="Trial of learning rates",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def epochs_of(trainer: lightning.Trainer) -> int | None:
    """How many epochs a run is to have, if it is known."""
    limits = [trainer.max_epochs] if trainer.max_epochs not in (None, -1) else []
    if trainer.max_steps > 0:
        steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        limits.append(math.ceil(trainer.max_steps / steps))
    return min(limits, default=None)


def duration(seconds: float) -> str:
    """Time as a person says it.

    >>> duration(7.2), duration(544), duration(9000)
    ('7 s', '9 min 4 s', '2 h 30 min')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
