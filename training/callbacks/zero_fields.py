"""Samples without a relative error, by name."""

from __future__ import annotations

import logging
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from sobolev.training.module import Batch, OperatorModule
from sobolev.training.zeros import in_words, samples_of_zero, without_size

_log = logging.getLogger("sobolev")


class ZeroFields(Callback):
    """Name the samples whose true fields are zero, once: relative losses and scores leave them out.

    Batches of the first epoch are counted where they are; the data are read again for the names only
    where there are such samples.
    """

    def __init__(self) -> None:
        self.counts: dict[str, torch.Tensor] = {}
        self.reported: set[str] = set()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._count("train", pl_module, batch)

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._count("valid", pl_module, batch)

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self._report("train", trainer, pl_module)

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Report.

        Raises:
            ValueError: if there is nothing to score against.
        """
        self._report("valid", trainer, pl_module)

    def _count(self, split: str, module: lightning.LightningModule, batch: Batch) -> None:
        if split in self.reported or not isinstance(module, OperatorModule):
            return
        zero = without_size(module.surrogate, batch[1]).sum()
        self.counts[split] = self.counts.get(split, torch.zeros_like(zero)) + zero

    def _report(
        self, split: str, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        if split in self.reported or split not in self.counts:
            return
        self.reported.add(split)
        count = int(trainer.strategy.reduce(self.counts[split], reduce_op="sum"))
        data: Any = getattr(trainer, "datamodule", None)
        if not count or data is None or not isinstance(module, OperatorModule):
            return
        items = data.pairs(split)
        numbers = samples_of_zero(module.surrogate, items)
        if split == "valid" and len(numbers) == len(items.samples):
            raise ValueError(
                "the true fields of all validation samples are zero: there is no error to pick weights by; give a "
                "validation split with others"
            )
        if trainer.is_global_zero:
            home = split if split in data.manifest.splits else "train"
            _log.warning(
                f"the true field of {in_words(numbers)} in split {home!r} is zero; nothing is relative to it, and "
                "relative losses and scores leave it out"
            )
