"""The training step, as Lightning wants it."""

from __future__ import annotations

import math
from typing import Any, cast

import lightning
import torch
from torch import Tensor

from sobolev.datasets import OperatorDataModule
from sobolev.operators import Operator, SpecBoost
from sobolev.training.losses import SobolevLoss
from sobolev.training.metrics import RelativeError
from sobolev.training.surrogate import Surrogate


class OperatorModule(lightning.LightningModule):
    """Fit an operator to the fields of a data module: AdamW, one cycle of learning rates, a
    relative Sobolev loss.

    What is trained is a ``Surrogate``: normalisation is inside, so that the trained thing is the
    saved thing. Loss and metrics are relative errors of physical fields, each variable measured in
    its standard deviations.

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

    def on_fit_start(self) -> None:
        """Refuse stages that would add nothing: a ``SpecBoost`` is trained by ``boost``."""
        operator = self.surrogate.operator
        if isinstance(operator, SpecBoost) and not bool((operator.scale > 0).all()):
            raise ValueError(
                "the later stages of a SpecBoost are trained one after another, on what the earlier ones leave: "
                "sobolev.training.boosting.boost does that"
            )

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        loss = self.loss(*self._comparable(self.surrogate(inputs), targets))
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
        steps = int(self.trainer.estimated_stepping_batches)
        one_step = math.isclose(
            self.warmup * steps, 1.0
        )  # by which OneCycleLR would divide by zero
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=steps,
            pct_start=0.0 if one_step else self.warmup, cycle_momentum=False,
        )  # fmt: skip
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}

    def _comparable(self, *fields: Tensor) -> list[Tensor]:
        """Fields in standard deviations of each variable, so that units of 10⁻⁵ s⁻¹ and of 10⁵ m² s⁻²
        count alike; relative errors of a single variable stay what they are."""
        return [u / self.surrogate.output_scale for u in fields]

    def _judge(self, batch: tuple[Tensor, Tensor], stage: str) -> None:
        inputs, targets = batch
        prediction, targets = self._comparable(self.surrogate(inputs), targets)
        for name, module in self.metrics.items():
            metric = cast(RelativeError, module)
            metric.update(prediction, targets)
            self.log(f"{stage}/{name}", metric, on_step=False, on_epoch=True, prog_bar=True)
