"""Averages of the weights."""

from __future__ import annotations

import lightning
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sobolev.training.module import SHARDED


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
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(float(decay)))

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
