"""Training that begins with few Fourier modes."""

from __future__ import annotations

from collections.abc import Sequence

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from sobolev.grids.checks import check_whole, plain
from sobolev.operators import FNO
from sobolev.training.module import OperatorModule


class IncrementalModes(Callback):
    """Begin with ``start`` modes per axis and use one more every ``every`` epochs, up to all (George
    et al. 2022, arXiv:2211.15188, by schedule instead of by explained energy).

    Modes not yet in use have zero weights, so that the operator as saved – with all its modes – is
    at every moment the one that was trained and validated. A compiled surrogate is compiled anew at
    every enlargement.

    Args:
        start: modes per axis and sign in the first epochs, one number for all axes or one each.
        every: epochs between two enlargements.

    Raises:
        ValueError: for counts below 1; when training begins, for an operator other than FNO, for more
            modes than it has, or if the epochs do not suffice to reach all of them.
    """

    def __init__(self, start: int | Sequence[int], every: int) -> None:
        super().__init__()
        check_whole("IncrementalModes", start=start, every=every)
        self.start = plain(start)
        self.every = int(every)

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        operator = _operator(pl_module)
        start = self._modes(operator, 0)
        growths = max(m - s for m, s in zip(operator.modes, start, strict=True))
        needed = growths * self.every + 1
        epochs = trainer.max_epochs
        if epochs is not None and 0 <= epochs < needed:
            raise ValueError(
                f"from {start} modes, one more every {self.every} epochs, all {operator.modes} are "
                f"reached in epoch {needed}, but max_epochs={epochs}; use a smaller every or a larger "
                "start"
            )
        operator.active_modes = start

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if trainer.global_step == 0:  # else a checkpoint, or this trainer, has trained the weights
            _operator(pl_module).silence_inactive_modes()

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        operator = _operator(pl_module)
        modes = self._modes(operator, trainer.current_epoch)
        if modes != operator.active_modes:
            operator.active_modes = modes
            torch.compiler.reset()  # graphs for few modes are of no more use, and only so many are kept

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        operator = _operator(pl_module)
        operator.active_modes = operator.modes

    def _modes(self, operator: FNO, epoch: int) -> list[int]:
        """Return the modes in use in ``epoch``, counted from 0."""
        start = [self.start] * operator.ndim if isinstance(self.start, int) else list(self.start)
        if len(start) != operator.ndim or any(
            s > m for s, m in zip(start, operator.modes, strict=True)
        ):
            raise ValueError(
                f"start needs 1 to as many modes as the operator has per axis, {operator.modes}; got "
                f"{self.start}"
            )
        return [min(m, s + epoch // self.every) for s, m in zip(start, operator.modes, strict=True)]


def _operator(module: lightning.LightningModule) -> FNO:
    operator = module.surrogate.operator if isinstance(module, OperatorModule) else None
    if not isinstance(operator, FNO):
        raise ValueError(
            f"IncrementalModes is for an OperatorModule with an FNO, got {type(module).__name__} with "
            f"{type(operator).__name__}"
        )
    return operator
