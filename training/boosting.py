"""SpecBoost's training: one stage after another, each on what the earlier ones leave."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import lightning
from torch import Tensor

from sobolev.datasets import OperatorDataModule
from sobolev.operators import Operator, SpecBoost
from sobolev.training.module import OperatorModule
from sobolev.training.surrogate import Surrogate, comfortable_batch


class BoostingModule(OperatorModule):
    """Fit one stage of a ``SpecBoost``; the stages before it are frozen, those after it left out.

    The stage's scale is measured on the residuals of the training samples when the fit begins. The
    loss is that of the whole prediction: the stage puts out rescaled residuals, to whose gradient
    Adam adapts, and loss and metrics stay comparable from stage to stage.

    Args:
        operator: the stages; those before ``stage`` are trained.
        data: where the fields come from.
        stage: the stage to train, counted from 0.
        options: as for ``OperatorModule``.

    Raises:
        ValueError: for an operator that is no ``SpecBoost``, or a stage that it does not have.
    """

    def __init__(
        self, operator: Operator, data: OperatorDataModule, stage: int = 0, **options: Any
    ) -> None:
        if not isinstance(operator, SpecBoost):
            raise ValueError(
                f"boosting trains the stages of a SpecBoost, got {type(operator).__name__}; "
                "SpecBoost([operator, ...]) makes one"
            )
        if not 0 <= stage < len(operator.stages):
            raise ValueError(f"there are stages 0 to {len(operator.stages) - 1}, got {stage}")
        super().__init__(operator, data, **options)
        self.booster, self.data, self.stage = operator, data, stage

    def setup(self, stage: str) -> None:
        """Freeze the other stages before a distributed strategy asks which parameters want
        gradients."""
        if stage == "fit":
            self.booster.freeze_except(self.stage)

    def on_fit_start(self) -> None:
        """Measure the residuals' scale, unless a checkpoint has brought it, and leave out the later
        stages."""
        if self.stage and not bool((self.booster.scale[self.stage] > 0).all()):
            self.booster.eval()
            self.booster.fit_scale(self.stage, self._residuals())
        self.booster.train_stage(self.stage)

    def on_fit_end(self) -> None:
        """Let all stages be trained again."""
        self.booster.train_stage(None)
        self.booster.active = self.stage + 1

    def _residuals(self) -> Iterator[Tensor]:
        """What the earlier stages leave of the training samples, normalised, batch by batch."""
        items, surrogate = self.data.pairs("train"), self.surrogate
        size = comfortable_batch(self.data.grid)
        for start in range(0, len(items), size):
            inputs, targets = (fields.to(self.device) for fields in items[start : start + size])
            u = (inputs - surrogate.input_mean) / surrogate.input_scale
            y = (targets - surrogate.output_mean) / surrogate.output_scale
            yield self.booster.residual(u, y, self.stage)


def boost(
    operator: SpecBoost,
    data: OperatorDataModule,
    trainer: Callable[[int], lightning.Trainer],
    **options: Any,
) -> Surrogate:
    """Train all stages of ``operator``, one after another; scales of an earlier boost are measured
    anew.

    Args:
        operator: stages with fresh weights.
        data: where the fields come from.
        trainer: called with the number of a stage, gives the trainer for it.
        options: as for ``OperatorModule``.

    >>> boost(SpecBoost([FNO(1, 1, (8,)), FNO(1, 1, (32,))]), data,           # doctest: +SKIP
    ...       lambda k: lightning.Trainer(max_epochs=50))                     # doctest: +SKIP
    """
    operator.scale[1:] = operator.mean[1:] = 0.0
    for stage in range(len(operator.stages)):
        module = BoostingModule(operator, data, stage, **options)
        with warnings.catch_warnings():  # the frozen stages are in evaluation mode on purpose
            warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
            try:
                trainer(stage).fit(module, data)
            finally:  # an interrupted fit does not come to its end, and would leave stages frozen
                module.on_fit_end()
    return module.surrogate.eval()
