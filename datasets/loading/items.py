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

from sobolev.datasets.loading.windows import AllToAll, Window
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

    A whole batch is picked at once. Channels are the numbers of each item, the same at all nodes, then
    the static inputs, then the frames of the window, all variables of one before those of the next.

    Args:
        source: values by variable and sample.
        samples: the sample numbers to draw on, in order.
        inputs, outputs: names of the variables that are stored once per sample, and of those that
            are predicted.
        times: of the frames of the trajectories; none where outputs are single fields.
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
        times: Sequence[float],
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
        self.restrict = restrict
        self.cuts: Sequence[slice | None] = window.cuts(len(times)) if times else [None]
        self.leads = leads_of(times, window)

    @property
    def per_sample(self) -> int:
        """The number of items that are cut from each sample."""
        return len(self.cuts)

    def __len__(self) -> int:
        return len(self.samples) * self.per_sample

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
        where = [divmod(i, self.per_sample) for i in indices]
        samples = [int(self.samples[number]) for number, _ in where]
        cuts = [(sample, self.cuts[cut]) for sample, (_, cut) in zip(samples, where, strict=True)]
        static = [
            self._stacked(name, [(sample, None) for sample in samples]) for name in self.names_in
        ]
        numbers = [
            self._numbers(sample, cut) for sample, (_, cut) in zip(samples, where, strict=True)
        ]
        if self.cuts == [None]:
            states = [self._stacked(name, cuts) for name in self.names_out]
            return _channels(numbers, static, []), torch.stack(states, dim=1)
        window = self.window
        # (batch, time, variable, *space)
        states_over_time = torch.stack(
            [self._stacked(name, cuts) for name in self.names_out], dim=2
        )
        history, horizon = states_over_time.split([window.history, window.horizon], dim=1)
        return _channels(numbers, static, [history.flatten(1, 2)]), horizon.flatten(1, 2)

    def _numbers(self, sample: int, cut: int) -> list[float]:
        """Return the numbers of an item: the time between its frames, where that counts, and its sample's."""
        lead = self.leads[cut : cut + 1].tolist()
        return [*lead, *(float(self.source(name, sample)) for name in self.scalars)]

    def number_of(self, index: int) -> int:
        """Return the number in its split of the sample that an item is of."""
        return self.source.number_of(int(self.samples[index // self.per_sample]))

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


def leads_of(times: Sequence[float], window: Window) -> np.ndarray:
    """Return the times between the two frames of each pair; none of other windows."""
    if not isinstance(window, AllToAll):
        return np.empty(0)
    return np.array([times[cut.stop - 1] - times[cut.start] for cut in window.cuts(len(times))])


def _channels(
    numbers: Sequence[Sequence[float]],
    static: Sequence[Field],
    past: Sequence[Float[Tensor, "batch frames *space"]],
) -> Float[Tensor, "batch inputs *space"]:
    """Return numbers, the same at all nodes, static inputs and frames as channels."""
    fields = [*([torch.stack(list(static), dim=1)] if static else []), *past]
    if numbers[0]:
        constant = torch.tensor(numbers, dtype=torch.float32, device="cpu")
        space = fields[0].shape[2:]
        shaped = constant.reshape(*constant.shape, *[1] * len(space))
        fields.insert(0, shaped.expand(*constant.shape, *space))
    return torch.cat(fields, dim=1) if len(fields) > 1 else fields[0]
