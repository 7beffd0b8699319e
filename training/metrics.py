"""Metrics that add up samples in float64, so that uneven batches give the right mean."""

from __future__ import annotations

import torch
import torchmetrics
from torch import Tensor

from sobolev.solvers import AbstractGrid
from sobolev.training.losses import relative_error


class RelativeError(torchmetrics.Metric):
    """Mean over samples of the relative error in H^s (``losses.relative_error``)."""

    higher_is_better = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, grid: AbstractGrid, order: float = 0.0) -> None:
        super().__init__()
        self.grid, self.order = grid, order
        self.add_state(
            "total", torch.zeros((), dtype=torch.float64, device="cpu"), dist_reduce_fx="sum"
        )
        self.add_state(
            "count", torch.zeros((), dtype=torch.float64, device="cpu"), dist_reduce_fx="sum"
        )

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch of fields, ``(batch, channels, *space)`` each."""
        errors = relative_error(prediction.double(), target.double(), self.grid, self.order)
        self.total += errors.sum()
        self.count += len(errors)

    def compute(self) -> Tensor:
        """The mean over all samples seen."""
        return self.total / self.count
