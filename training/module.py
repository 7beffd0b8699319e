"""The training step, as Lightning wants it."""

from __future__ import annotations

from typing import Any, cast

import lightning
import torch
from torch import Tensor

from sobolev.datasets import OperatorDataModule
from sobolev.operators import Operator
from sobolev.solvers import Grid
from sobolev.training.losses import SobolevLoss
from sobolev.training.metrics import RelativeError
from sobolev.training.surrogate import Surrogate


class OperatorModule(lightning.LightningModule):
    """Fit an operator to the fields of a data module: AdamW, one cycle of learning rates, a
    relative Sobolev loss.

    What is trained is a ``Surrogate``: normalisation is inside, so that loss and metrics are in
    physical units and the trained thing is the saved thing.

    Args:
        operator: maps normalised inputs to normalised outputs.
        data: where the fields come from; gives grid, variables and normalisation.
        order: order s of the relative H^s loss.
        learning_rate: peak of the cycle (Smith & Topin 2019).
        weight_decay: AdamW's.
        warmup: share of the steps in which the learning rate rises.
        compile: compile the surrogate with ``torch.compile``.
        checkpointing: recompute the layers' activations in the backward pass: about a third more
            time for a fraction of the memory.

    >>> data = OperatorDataModule("data/burgers")                                   # doctest: +SKIP
    >>> module = OperatorModule(FNO(1, 1, modes=(16,), width=64), data, order=1.0)  # doctest: +SKIP
    >>> lightning.Trainer(max_epochs=100).fit(module, data)                         # doctest: +SKIP
    >>> module.surrogate.save("runs/burgers/surrogate")                             # doctest: +SKIP
    """

    def __init__(
        self,
        operator: Operator,
        data: OperatorDataModule,
        *,
        order: float = 0.0,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        warmup: float = 0.1,
        compile: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        operator.checkpointing = checkpointing
        if not isinstance(data.grid, Grid):
            raise ValueError(
                f"{data.path} lives on a sphere; no operator here is built for spheres yet"
            )
        self.surrogate = Surrogate(
            operator,
            data.grid,
            data.inputs,
            data.outputs,
            data.statistics,
            {"data": data.provenance},
        )
        self.loss = SobolevLoss(data.grid, order)
        self.learning_rate, self.weight_decay, self.warmup = learning_rate, weight_decay, warmup
        self.metrics = torch.nn.ModuleDict(
            {
                "relative_l2": RelativeError(data.grid),
                "relative_h1": RelativeError(data.grid, order=1.0),
            }
        )
        if compile:
            self.surrogate.compile()

    def forward(self, u: Tensor) -> Tensor:
        return self.surrogate(u)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        loss = self.loss(self.surrogate(inputs), targets)
        self.log(
            "train/loss", loss, on_step=False, on_epoch=True, batch_size=len(inputs), sync_dist=True
        )
        return loss

    def on_train_epoch_end(self) -> None:
        """Stop a run whose loss has become infinite or NaN; the checkpoints before it stay."""
        loss = self.trainer.callback_metrics["train/loss"]
        if not bool(loss.isfinite()):
            raise ArithmeticError(
                f"the training loss is {float(loss)} in epoch {self.current_epoch} (step {self.global_step}); lower "
                "model.learning_rate and start again"
            )

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._judge(batch, "valid")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._judge(batch, "test")

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=self.warmup, cycle_momentum=False,
        )  # fmt: skip
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}

    def _judge(self, batch: tuple[Tensor, Tensor], stage: str) -> None:
        inputs, targets = batch
        prediction = self.surrogate(inputs)
        for name, module in self.metrics.items():
            metric = cast(RelativeError, module)
            metric.update(prediction, targets)
            self.log(f"{stage}/{name}", metric, on_step=False, on_epoch=True, prog_bar=True)
