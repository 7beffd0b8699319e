"""Items to train on: pairs of fields, or windows cut from trajectories, from memory or from shards."""

from __future__ import annotations

import bisect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from sobolev.datasets.loading.windows import Window
from sobolev.datasets.store.reading import ShardReader
from sobolev.grids.moments import Moments

Values = np.ndarray | np.generic
"""Values of a variable for one sample, ``([time,] *space)``, or its number."""
Field = Float[Tensor, " batch *space"]
"""A variable of some samples."""
Restrict = Callable[[Float[Tensor, "*lead_and_space"]], Float[Tensor, "*lead_and_other_space"]]
"""A map of fields to a coarser grid."""


class Source(ABC):
    """A place to read fields from."""

    @abstractmethod
    def __call__(self, name: str, sample: int) -> Values:
        """Return the values of a variable for one sample, ``([time,] *space)``."""

    @abstractmethod
    def number_of(self, sample: int) -> int:
        """Return the number of a sample in its split."""


class FromMemory(Source):
    """Arrays ``(sample, [time,] *space)`` by variable, and the samples' numbers in their split."""

    def __init__(self, arrays: dict[str, np.ndarray], numbers: np.ndarray) -> None:
        self.arrays = arrays
        self.numbers = numbers

    def __call__(self, name: str, sample: int) -> Values:
        return self.arrays[name][sample]

    def number_of(self, sample: int) -> int:
        return int(self.numbers[sample])


class FromShards(Source):
    """Views of memory-mapped shards."""

    def __init__(self, reader: ShardReader) -> None:
        self.reader = reader

    def __call__(self, name: str, sample: int) -> Values:
        starts = self.reader.starts
        number = bisect.bisect_right(starts, sample) - 1
        return self.reader.mapped(name, number)[sample - int(starts[number])]

    def number_of(self, sample: int) -> int:
        return sample


class Items(Dataset):
    """Pairs ``(inputs, outputs)`` of float32 fields, each ``(channels, *space)``.

    A whole batch is picked at once. Channels are the numbers of each sample, the same at all nodes, then
    the static inputs, then the frames of the window, all variables of one before those of the next.

    Args:
        source: values by variable and sample.
        samples: the sample numbers to draw on, in order.
        inputs, outputs: names of the variables that are stored once per sample, and of those that
            are predicted.
        frames: length of the trajectories, or None where outputs are single fields.
        window: the frames that are cut from trajectories.
        restrict: applied to fields as they are read.
        scalars: names of the numbers that each sample has.
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
        restrict: Restrict | None = None,
        scalars: Sequence[str] = (),
    ) -> None:
        self.source = source
        self.scalars = list(scalars)
        self.samples = samples
        self.window = window
        self.names_in = list(inputs)
        self.names_out = list(outputs)
        self.frames = frames
        self.restrict = restrict
        self.starts = 1 if frames is None else frames - window.span + 1
        if self.starts < 1:
            raise ValueError(
                f"a window of {window.span} frames ({window}) does not fit into trajectories of {frames}"
            )

    def __len__(self) -> int:
        return len(self.samples) * self.starts

    def __getitem__(
        self, index: int | slice
    ) -> tuple[Float[Tensor, " ..."], Float[Tensor, " ..."]]:
        """Return one item, ``(channels, *space)`` each; for a slice a batch of them."""
        if isinstance(index, slice):
            return self.__getitems__(range(len(self))[index])
        inputs, outputs = self.__getitems__([index])
        return inputs[0], outputs[0]

    def __getitems__(
        self, indices: Sequence[int]
    ) -> tuple[Float[Tensor, "batch inputs *space"], Float[Tensor, "batch outputs *space"]]:
        """Return a batch of items."""
        where = [(int(self.samples[i // self.starts]), i % self.starts) for i in indices]
        whole = [(sample, None) for sample, _ in where]
        static = [self._stacked(name, whole) for name in self.names_in]
        if self.frames is None:
            states = [self._stacked(name, whole) for name in self.names_out]
            outputs = torch.stack(states, dim=1)
            return self._channels(where, static, []), outputs
        window = self.window
        cuts = [
            (sample, slice(start, start + window.span, window.stride)) for sample, start in where
        ]
        # (batch, time, variable, *space)
        states_over_time = torch.stack(
            [self._stacked(name, cuts) for name in self.names_out], dim=2
        )
        history, horizon = states_over_time.split([window.history, window.horizon], dim=1)
        return self._channels(where, static, [history.flatten(1, 2)]), horizon.flatten(1, 2)

    def _channels(
        self,
        where: Sequence[tuple[int, int]],
        static: Sequence[Field],
        past: Sequence[Float[Tensor, "batch frames *space"]],
    ) -> Float[Tensor, "batch inputs *space"]:
        """Return numbers, static inputs and frames as channels."""
        fields = [*([torch.stack(list(static), dim=1)] if static else []), *past]
        if self.scalars:
            numbers = [[float(self.source(name, s)) for name in self.scalars] for s, _ in where]
            constant = torch.tensor(numbers, dtype=torch.float32, device="cpu")
            space = fields[0].shape[2:]
            shaped = constant.reshape(*constant.shape, *[1] * len(space))
            fields.insert(0, shaped.expand(*constant.shape, *space))
        return torch.cat(fields, dim=1) if len(fields) > 1 else fields[0]

    def number_of(self, index: int) -> int:
        """Return the number in its split of the sample that an item is of."""
        return self.source.number_of(int(self.samples[index // self.starts]))

    @property
    def inputs(self) -> Float[Tensor, "item inputs *space"]:
        """The inputs of all items."""
        return self[:][0]

    @property
    def outputs(self) -> Float[Tensor, "item outputs *space"]:
        """The outputs of all items."""
        return self[:][1]

    def numbers(self, name: str) -> Float[Tensor, " sample"]:
        """Return a number of every sample, in float64."""
        values = [float(self.source(name, sample)) for sample in self.samples.tolist()]
        return torch.tensor(values, dtype=torch.float64, device="cpu")

    def moments(self, name: str, mask: str | None = None) -> tuple[float, float]:
        """Return mean and standard deviation of a variable over all its values, or those in the domain."""
        found = Moments.none()
        for sample in self.samples.tolist():
            values = self._stacked(name, [(sample, None)])
            if mask is not None:
                values = values[..., self._stacked(mask, [(sample, None)])[0] == 1]
            found += Moments.of(values.numpy())
        return found.mean, math.sqrt(found.variance)

    def _stacked(
        self, name: str, cuts: Sequence[tuple[int, slice | None]]
    ) -> Float[Tensor, " batch *time_and_space"]:
        """Return float32 fields of several samples, each cut in time."""
        found = [(np.asarray(self.source(name, sample)), cut) for sample, cut in cuts]
        views = [values if cut is None else values[cut] for values, cut in found]
        stacked = np.empty((len(views), *views[0].shape), np.float32)
        for target, view in zip(stacked, views, strict=True):
            target[...] = view
        fields = torch.from_numpy(stacked)
        return fields if self.restrict is None else self.restrict(fields)
