"""Samples whose true fields are zero: nothing is relative to them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sobolev.datasets.loading.items import Items
from sobolev.grids.norms import norm_per_sample
from sobolev.surrogates.normalised import NormalisedOperator

BLOCK = 64
"""The number of items that are read at a time."""


def without_size(
    surrogate: NormalisedOperator, targets: Float[Tensor, "batch channels *space"]
) -> Bool[Tensor, " batch"]:
    """Return whether the norm of true fields is zero, in the units in which loss and scores measure them."""
    grid = surrogate.grid.resized(*targets.shape[2:])
    return norm_per_sample(surrogate.comparable(targets), grid) == 0


def numbers_of(items: Items, picked: Sequence[int], chosen: Bool[Tensor, " item"]) -> list[int]:
    """Return the numbers in their split of the samples with a chosen item among those picked."""
    some = [i for i, wanted in zip(picked, chosen.tolist(), strict=True) if wanted]
    return sorted({items.number_of(i) for i in some})


def samples_of_zero(surrogate: NormalisedOperator, items: Items) -> list[int]:
    """Return the numbers in their split of the samples with true fields of zero."""
    parts = torch.arange(len(items)).split(BLOCK)
    targets = (items.__getitems__(part.tolist())[1] for part in parts)
    device = surrogate.output_mean.device
    zero = torch.cat([without_size(surrogate, y.to(device)).cpu() for y in targets])
    return numbers_of(items, range(len(items)), zero)


def in_words(numbers: Sequence[int], most: int = 10) -> str:
    """Return the numbers of samples as a person says them.

    >>> in_words([3]), in_words([3, 5, 8], most=2)
    ('sample 3', 'samples 3, 5 and 1 more')
    """
    named = ", ".join(map(str, numbers[:most]))
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return f"sample{'s' * (len(numbers) > 1)} {named}{more}"
