"""Items to train on: pairs of fields, or windows cut from trajectories, from memory or from
shards."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from sobolev.datasets.store.shards import ShardReader
from sobolev.grids.moments import Moments
from sobolev.grids.streams import Key, stream
from sobolev.grids.variables import Variable

SHUFFLED_SHARDS = 8
"""Shards among which streamed items are mixed: a disk reads so many from end to end, instead of
seeking through all."""


@dataclass(frozen=True)
class Window:
    """``history`` frames in, ``horizon`` frames out, every ``stride``-th frame of a trajectory."""

    history: int = 1
    horizon: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        if not all(type(n) is int and n >= 1 for n in (self.history, self.horizon, self.stride)):
            raise ValueError(
                f"history, horizon and stride of a window are whole numbers that must be at least 1, got {self}"
            )

    @property
    def span(self) -> int:
        """Frames from the first to the last."""
        return (self.history + self.horizon - 1) * self.stride + 1

    def inputs(self, states: Sequence[Variable]) -> list[Variable]:
        """The input frames as variables of their own, oldest first."""
        return self._frames(states, self.history, "lag", "before")

    def outputs(self, states: Sequence[Variable]) -> list[Variable]:
        """The output frames as variables of their own, nearest first."""
        return self._frames(states, self.horizon, "lead", "after")

    def of_one_application(self, channels: int, variables: int) -> Window:
        """The window of an operator that gives so many channels and is applied as often as it takes to
        reach the horizon.

        Raises:
            ValueError: if the channels are not whole frames, or no number of applications gives
                ``horizon`` frames.
        """
        frames, rest = divmod(channels, variables)
        if rest or not frames or self.horizon % frames:
            possible = [
                str(n * variables) for n in range(1, self.horizon + 1) if not self.horizon % n
            ]
            raise ValueError(
                f"the operator has out_channels={channels}; whole applications reach the window's horizon of "
                f"{self.horizon} frames ({variables} per frame) with out_channels={' or '.join(possible)}"
            )
        return replace(self, horizon=frames)

    def states(self, outputs: Sequence[Variable]) -> list[Variable]:
        """The variables whose output frames these are."""
        first = outputs[: len(outputs) // self.horizon]
        found = [
            Variable(
                v.name.removesuffix("_lead1"),
                v.long_name.removesuffix(_moment(1, "after")),
                v.units,
            )
            for v in first
        ]
        return list(outputs) if self.horizon == 1 else found

    @staticmethod
    def _frames(states: Sequence[Variable], count: int, suffix: str, side: str) -> list[Variable]:
        if count == 1:
            return list(states)
        numbers = range(count - 1, -1, -1) if suffix == "lag" else range(1, count + 1)
        return [
            Variable(f"{v.name}_{suffix}{n}", v.long_name + _moment(n, side), v.units)
            for n in numbers
            for v in states
        ]


def _moment(frames: int, side: str) -> str:
    """What is said of a frame beside its variable's name.

    >>> _moment(2, "before"), _moment(1, "after"), _moment(0, "before")
    (', 2 frames before the present', ', 1 frame after the present', ', the present frame')
    """
    if not frames:
        return ", the present frame"
    return f", {frames} frame{'s' * (frames > 1)} {side} the present"


Source = Callable[[str, int], np.ndarray]
"""Where fields are read: the values of a variable for one sample, ``([time,] *space)``."""


class FromMemory:
    """Arrays ``(sample, [time,] *space)`` by variable."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays

    def __call__(self, name: str, sample: int) -> np.ndarray:
        return self.arrays[name][sample]


class FromShards:
    """Views of memory-mapped shards."""

    def __init__(self, reader: ShardReader) -> None:
        self.reader = reader

    def __call__(self, name: str, sample: int) -> np.ndarray:
        starts = self.reader.starts
        number = bisect.bisect_right(starts, sample) - 1
        return self.reader.mapped(name, number)[sample - int(starts[number])]


class Items(Dataset):
    """Pairs ``(inputs, outputs)`` of float32 fields, each ``(channels, *space)``; a whole batch is
    picked at once.

    Channels are the static inputs, then the frames of the window, all variables of one before those
    of the next.

    Args:
        source: values by variable and sample.
        samples: the sample numbers to draw on, in order.
        inputs, outputs: names of the variables that are stored once per sample, and of those that
            are predicted.
        frames: length of the trajectories, or None where outputs are single fields.
        window: how trajectories are cut.
        restrict: applied to a tensor of fields ``(..., *space)`` as they are read.
    """

    def __init__(
        self,
        source: Source,
        samples: np.ndarray,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        frames: int | None,
        window: Window,
        restrict: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.source, self.samples, self.window = source, samples, window
        self.names_in, self.names_out, self.frames = list(inputs), list(outputs), frames
        self.restrict = restrict
        self.starts = 1 if frames is None else frames - window.span + 1
        if self.starts < 1:
            raise ValueError(
                f"a window of {window.span} frames ({window}) does not fit into trajectories of {frames}"
            )

    def __len__(self) -> int:
        return len(self.samples) * self.starts

    def __getitem__(self, index: int | slice) -> tuple[Tensor, Tensor]:
        if isinstance(index, slice):
            return self.__getitems__(range(len(self))[index])
        inputs, outputs = self.__getitems__([index])
        return inputs[0], outputs[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        where = [(int(self.samples[i // self.starts]), i % self.starts) for i in indices]
        static = [
            self._stacked(name, [(sample, None) for sample, _ in where]) for name in self.names_in
        ]
        if self.frames is None:
            states = [
                self._stacked(name, [(sample, None) for sample, _ in where])
                for name in self.names_out
            ]
            return torch.stack(static, dim=1), torch.stack(states, dim=1)
        stride, span = self.window.stride, self.window.span
        cuts = [(sample, slice(start, start + span, stride)) for sample, start in where]
        # (batch, time, variable, *space)
        states_over_time = torch.stack(
            [self._stacked(name, cuts) for name in self.names_out], dim=2
        )
        history, horizon = states_over_time.split([self.window.history, self.window.horizon], dim=1)
        past = history.flatten(1, 2)
        inputs = torch.cat([torch.stack(static, dim=1), past], dim=1) if static else past
        return inputs, horizon.flatten(1, 2)

    @property
    def inputs(self) -> Tensor:
        """The inputs of all items."""
        return self[:][0]

    @property
    def outputs(self) -> Tensor:
        """The outputs of all items."""
        return self[:][1]

    def moments(self, name: str) -> tuple[float, float]:
        """Return mean and standard deviation of a variable over all its values."""
        samples = ([(sample, None)] for sample in self.samples.tolist())
        values = (self._stacked(name, sample).numpy() for sample in samples)
        found = sum(map(Moments.of, values), Moments.none())
        return found.mean, math.sqrt(found.variance)

    def _stacked(self, name: str, cuts: Sequence[tuple[int, slice | None]]) -> Tensor:
        """Float32 fields of several samples, ``(batch, [time,] *space)``."""
        views = [
            self.source(name, s) if cut is None else self.source(name, s)[cut] for s, cut in cuts
        ]
        stacked = np.empty((len(views), *views[0].shape), np.float32)
        for target, view in zip(stacked, views, strict=True):
            target[...] = view
        fields = torch.from_numpy(stacked)
        return fields if self.restrict is None else self.restrict(fields)


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
        self.count, self.seed, self.epoch = count, seed, 0
        self.ends = np.cumsum([count] if groups is None else groups)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        dice = stream(self.seed, Key.ORDER, self.epoch)
        if len(self.ends) == 1:
            return iter(dice.permutation(self.count).tolist())
        return self._grouped(dice)

    def _grouped(self, dice: np.random.Generator) -> Iterator[int]:
        order, begins = dice.permutation(len(self.ends)), np.concatenate([[0], self.ends[:-1]])
        for i in range(0, len(order), SHUFFLED_SHARDS):
            few = order[i : i + SHUFFLED_SHARDS]
            items = np.concatenate([np.arange(begins[g], self.ends[g]) for g in few])
            yield from dice.permutation(items).tolist()
