"""Pictures of predictions, while a run goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import lightning
from jaxtyping import Float
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch import Tensor

from sobolev.surrogates import Surrogate
from sobolev.training.callbacks.progress import epochs_of
from sobolev.training.module import OperatorModule

Draw = Callable[
    [
        Surrogate,
        Float[Tensor, "sample inputs *space"],
        Float[Tensor, "sample outputs *space"],
        Float[Tensor, "sample outputs *space"],
    ],
    Figure,
]
"""A function that draws the inputs, targets and predictions of some samples."""


class PredictionPictures(Callback):
    """Draw truth, prediction and error of the first validation samples for TensorBoard.

    This is done at most ``count`` times in a run and for at most a twentieth of its time, but once in
    the last epoch in any case.

    Args:
        draw: makes a figure of a surrogate and the inputs, targets and predictions of some samples.
        count: the largest number of pictures.
    """

    SAMPLES = 3
    """The median and the worst of these are drawn."""

    def __init__(self, draw: Draw, count: int = 10) -> None:
        self.draw = draw
        self.count = count
        self.seen = -1
        self.seconds = 0.0

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
        surrogate = pl_module.surrogate
        inputs, targets = batch
        # every process takes part, with the whole batch: sharded weights and compiled graphs want it so
        predictions = surrogate(inputs)
        began = time.perf_counter()
        if trainer.is_global_zero and (self._last(trainer) or self._affordable(began)):
            fields = (inputs, targets[:, : predictions.shape[1]], predictions)
            given, true, predicted = (u[: self.SAMPLES].float() for u in fields)
            figure = self.draw(surrogate, given, true, predicted)
            for board in boards:
                board.experiment.add_figure("prediction", figure, trainer.global_step)
            self.seconds += time.perf_counter() - began

    def _due(self, trainer: lightning.Trainer) -> bool:
        """Return whether this is the first validation of one of the epochs to draw: ``count`` evenly
        spaced ones, or, where their number is not known, 1, 2, 4, 8, …"""
        epoch = trainer.current_epoch + 1
        epochs = epochs_of(trainer)
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
