"""The order of the items in an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from sobolev.grids.streams import Key, stream

SHUFFLED_SHARDS = 8
"""Shards among which streamed items are mixed: a disk reads so many from end to end, instead of
seeking through all."""


class EpochSampler(Sampler[int]):
    """A fresh order each epoch that depends on the seed and the epoch alone, so that a resumed run
    sees the same one.

    Args:
        count: number of items.
        seed: root of the orders.
        groups: sizes of consecutive groups of items that lie in one shard; a few groups are mixed at
            a time. By default all items are mixed with all.
    """

    def __init__(self, count: int, seed: int, groups: Sequence[int] | None = None) -> None:
        self.count = count
        self.seed = seed
        self.epoch = 0
        self.ends = np.cumsum([count] if groups is None else groups)

    def set_epoch(self, epoch: int) -> None:
        """Take the order of another epoch; Lightning calls this before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        dice = stream(self.seed, Key.ORDER, self.epoch)
        if len(self.ends) == 1:
            return iter(dice.permutation(self.count).tolist())
        return self._grouped(dice)

    def _grouped(self, dice: np.random.Generator) -> Iterator[int]:
        order = dice.permutation(len(self.ends))
        begins = np.concatenate([[0], self.ends[:-1]])
        for i in range(0, len(order), SHUFFLED_SHARDS):
            few = order[i : i + SHUFFLED_SHARDS]
            items = np.concatenate([np.arange(begins[g], self.ends[g]) for g in few])
            yield from dice.permutation(items).tolist()
