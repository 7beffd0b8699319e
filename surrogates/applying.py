"""A model applied to many fields: batch by batch, on its device, in evaluation mode."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sobolev.grids import AbstractGrid

T = TypeVar("T")


def apply(
    model: nn.Module,
    work: Callable[..., T],
    *fields: Float[Tensor, "sample ..."],
    batch_size: int,
) -> list[T]:
    """Return what ``work`` makes of each batch of ``fields``, ``(sample, ...)`` each, without gradients.

    Args:
        model: is in evaluation mode meanwhile. Batches are put on the device of its parameters, or of
            its buffers if it has no parameters.
        work: takes as many tensors as there are fields.
        fields: with one number of samples.
        batch_size: samples at a time.
    """
    device = next(t.device for t in (*model.parameters(), *model.buffers()))
    parts = zip(*(f.split(batch_size) for f in fields), strict=True)
    with evaluating(model), torch.no_grad():
        return [work(*(part.to(device) for part in batch)) for batch in parts]


def comfortable_batch(grid: AbstractGrid) -> int:
    """Return how many fields to predict at a time: about 2¹⁸ nodes of them, so that a CPU's caches stay
    warm and memory is bounded."""
    return max(1, 2**18 // math.prod(grid.shape))


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode for a while."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
