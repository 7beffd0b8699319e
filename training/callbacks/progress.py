"""The progress of a run: its time, its epochs, and its early end."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, EarlyStopping

from sobolev.training.callbacks.checkpoints import WATCHED

_log = logging.getLogger("sobolev")


class Patience(EarlyStopping):
    """Stop when the validation error has not fallen for ``patience`` validations.

    Raises:
        ValueError: for a patience below 1.
    """

    def __init__(self, patience: int) -> None:
        if patience < 1:
            raise ValueError(f"patience is a whole number of at least 1, got {patience}")
        super().__init__(WATCHED, patience=int(patience), check_on_train_epoch_end=False)

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if self.wait_count >= self.patience:  # killed after its last epoch, before its surrogate
            trainer.should_stop = True


class Clock(Callback):
    """Keep the seconds of each epoch, validation included.

    Its state is kept in the checkpoints, so that epochs before an interruption are counted as well.
    """

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
    """Log a line per epoch where there is no terminal for a progress bar."""

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self.started = time.perf_counter()
        self.first = trainer.current_epoch

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        metrics = trainer.callback_metrics  # summed over all processes, which must all ask
        if not trainer.is_global_zero:
            return
        epoch = trainer.current_epoch + 1
        epochs = epochs_of(trainer)
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


def epochs_of(trainer: lightning.Trainer) -> int | None:
    """Return the number of epochs that a run is to have, if it is known."""
    limits = [trainer.max_epochs] if trainer.max_epochs not in (None, -1) else []
    if trainer.max_steps > 0:
        steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        limits.append(math.ceil(trainer.max_steps / steps))
    return min(limits, default=None)


def duration(seconds: float) -> str:
    """Return a time as a person says it.

    >>> duration(7.2), duration(544), duration(9000)
    ('7 s', '9 min 4 s', '2 h 30 min')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
