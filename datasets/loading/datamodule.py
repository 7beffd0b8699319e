"""Batches for the Lightning trainer from a data set on disk."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, cast

import lightning
import numpy as np
import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSamplerWrapper
from torch.utils.data import DataLoader, Sampler, SequentialSampler

from sobolev.datasets.loading.items import FromMemory, FromShards, Items, Restrict, leads_of
from sobolev.datasets.loading.samplers import EpochSampler
from sobolev.datasets.loading.windows import ALL_TO_ALL, AllToAll, Window, window_of
from sobolev.datasets.recipes.presets import class_of, recipe_from
from sobolev.datasets.store.manifest import STATUS, Manifest
from sobolev.datasets.store.reading import ShardReader, check_shard
from sobolev.grids.checks import plain
from sobolev.grids.restriction import Resolution, Restriction, at_resolution
from sobolev.grids.streams import Key, stream
from sobolev.grids.symmetries import turned
from sobolev.grids.variables import LEAD_TIME, Parameter, Variable

MEMORY = 4 * 2**30
"""Bytes of float32 fields per split up to which they are held in memory."""


class OperatorDataModule(lightning.LightningDataModule):
    """Batches ``(input, output)`` of float32 fields in physical units, each ``(batch, channels,
    *space)``.

    Small splits are held in memory; larger ones are streamed from memory-mapped shards, mixed a few
    shards at a time. Samples that the solver flagged as failed are left out.

    The operator's normalisation comes from ``statistics``, computed on the training split alone.
    Without a split named ``valid``, the last ``valid_fraction`` of the training samples is set
    aside for validation; the test split is never looked at during training.

    Args:
        path: a data set made by ``sobolev generate``.
        batch_size: fields per step.
        resolution: train on so many nodes per axis, one number for all or one for each; the stored
            resolution by default.
        restriction: how a lower resolution is reached: ``"subsample"`` picks every n-th node,
            ``"spectral"`` cuts the modes that the coarser grid cannot carry.
        window: for trajectories: frames in, frames out and, if given, the stride between them. The
            frames become channels; ``[1, 1]`` learns one step. An operator that gives fewer frames
            than the window holds is applied repeatedly (``OperatorModule``). ``"all-to-all"`` takes every
            earlier frame with every later one, and the time between them as the first input, ``lead_time``.
        augment: turn each training batch by a random symmetry that the grid and the PDE share and
            the recipe declares: the eight of the square for Darcy, u(x) → −u(−x) for Burgers.
        train_samples: use only the first so many training samples.
        valid_fraction: share of the training split to validate on if there is no ``valid`` split.
        seed: order of the training samples and draw of the symmetries.
        in_memory: hold the fields in memory or stream them; by default decided by their size.
        workers: loader processes, each with maps of its own. They pay for streamed data.
    """

    def __init__(
        self,
        path: str | Path,
        batch_size: int = 20,
        *,
        resolution: int | Sequence[int] | None = None,
        restriction: str = "subsample",
        window: Sequence[int] | str = (1, 1),
        augment: bool = False,
        train_samples: int | None = None,
        valid_fraction: float = 0.1,
        seed: int = 0,
        in_memory: bool | None = None,
        workers: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1 or not 0 < valid_fraction < 1 or workers < 0:
            raise ValueError(
                "batch_size must be at least 1, valid_fraction between 0 and 1 and workers at least 0; got "
                f"{batch_size}, {valid_fraction}, {workers}"
            )
        if train_samples is not None and train_samples < 1:
            raise ValueError(f"train_samples must be at least 1, got {train_samples}")
        self.path = Path(path)
        self.batch_size = plain(batch_size)
        self.augment = augment
        self.train_samples = plain(train_samples)
        self.valid_fraction = plain(valid_fraction)
        self.seed = plain(seed)
        self.workers = plain(workers)
        self.window = window_of(window)
        self.manifest = Manifest.read(self.path)
        if self.window != Window(1, 1) and not self.manifest.times:
            raise ValueError(
                f"{self.path} holds no trajectories, of which a window could be taken; leave window out, or give other "
                "data"
            )
        if augment and not self.manifest.symmetries:
            raise ValueError(
                f"{self.path} declares no symmetry to augment with; set augment to false"
            )
        self.stored = self.manifest.grid
        self.in_memory = in_memory
        self.restriction = self._restriction(resolution, restriction)
        self.grid = self.restriction.target(self.stored)
        if self.mask is not None and self.grid != self.stored and restriction != "subsample":
            raise ValueError(
                f"{self.path} has fields on a part of their box, which have no modes to cut; set restriction: subsample"
            )
        self._items: dict[str, Items] = {}

    @property
    def inputs(self) -> list[Variable]:
        """The variables of the input channels."""
        return self.constant + (self.window.inputs(self.states) if self.manifest.times else [])

    @property
    def outputs(self) -> list[Variable]:
        """The variables of the output channels."""
        return self.window.outputs(self.states) if self.manifest.times else self.states

    @property
    def parameters(self) -> list[Parameter]:
        """The numbers that each item has: the first input channels, the same at all nodes."""
        leads = self._leads
        if not len(leads):
            return self.manifest.scalars
        units = self.manifest.time_units or "1"
        ends = float(leads.min()), float(leads.max())
        return [Parameter(*LEAD_TIME, units, *ends), *self.manifest.scalars]

    @property
    def mask(self) -> str | None:
        """The input that is 1 in the domain of the fields and 0 outside: the first one after the numbers."""
        return self.manifest.mask

    @property
    def constant(self) -> list[Variable]:
        """The inputs that do not move: numbers, then fields."""
        return [*self.parameters, *self.static]

    @property
    def static(self) -> list[Variable]:
        """The inputs that are stored once per sample."""
        return [Variable(**v) for v in self.manifest.inputs]

    @property
    def states(self) -> list[Variable]:
        """The physical quantities that are predicted, whatever the frames."""
        return [Variable(**v) for v in self.manifest.outputs]

    @property
    def interval(self) -> float | None:
        """The time between two successive frames of a window; None where times are not evenly spaced,
        or there are none."""
        times = np.array(self.manifest.times)
        steps = np.diff(times)
        if (
            isinstance(self.window, AllToAll)
            or not len(steps)
            or not np.allclose(steps, steps[0], rtol=1e-6, atol=0.0)
        ):
            return None
        return float(times[-1] - times[0]) / len(steps) * self.window.stride

    @property
    def in_channels(self) -> int:
        return len(self.inputs)

    @property
    def out_channels(self) -> int:
        return len(self.outputs)

    @functools.cached_property
    def statistics(self) -> dict[str, tuple[float, float]]:
        """The mean and standard deviation of every variable, and of its frames, over the samples that
        are trained on."""
        items = self.pairs("train")
        found = {v.name: items.moments(v.name, self.mask) for v in [*self.static, *self.states]}
        numbers = {p.name: items.numbers(p.name) for p in self.manifest.scalars}
        if len(self._leads):
            numbers[LEAD_TIME[0]] = torch.from_numpy(self._leads)
        for parameter in self.parameters:
            values = parameter.straightened(numbers[parameter.name])
            found[parameter.name] = (float(values.mean()), float(values.std(correction=0)))
        for channels in (self.inputs[len(self.constant) :], self.outputs):
            for i, channel in enumerate(channels):
                found[channel.name] = found[self.states[i % len(self.states)].name]
        return found

    @property
    def conserved(self) -> dict[str, str]:
        """The outputs whose integrals are those of inputs, as the data declare; in manifests of older
        versions, by their recipe."""
        declared = self.manifest.conserved
        if declared is None and class_of(self.manifest.recipe) is not None:
            declared = dict(recipe_from(self.manifest.recipe).conserved)
        return declared or {}

    @property
    def provenance(self) -> dict[str, Any]:
        """The origin of the data, for the surrogate's record."""
        window = {
            "window": ALL_TO_ALL if isinstance(self.window, AllToAll) else list(astuple(self.window)),
            "interval": self.interval, "time_units": self.manifest.time_units,
        }  # fmt: skip
        return {
            "path": str(self.path), "recipe": self.manifest.recipe, "preset": self.manifest.preset,
            "seed": self.manifest.seed, "resolution": list(self.grid.shape),
            "train_samples": len(self.pairs("train").samples),
            "valid_samples": len(self.pairs("valid").samples), "versions": self.manifest.shards("train")[0].versions,
            "symmetries": self.manifest.symmetries,
            **(window if self.manifest.times else {}),
        }  # fmt: skip

    def pairs(self, split: str) -> Items:
        """Return the items of ``train``, ``valid`` or ``test`` at the module's resolution."""
        if split not in self._items:
            self._items[split] = self._load(split)
        return self._items[split]

    def train_dataloader(self) -> DataLoader:
        items = self.pairs("train")
        return self._loader(items, EpochSampler(len(items), self.seed, self._groups(items)))

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.pairs("valid"))

    def test_dataloader(self) -> DataLoader:
        return self._loader(self.pairs("test"))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn a training batch by a symmetry that depends on the seed and the step alone, so that
        runs resume exactly."""
        if not (self.augment and self.trainer is not None and self.trainer.training):
            return batch
        dice = stream(self.seed, Key.SYMMETRIES, self.trainer.global_step)
        coins = dice.integers(2, size=self.grid.ndim + 1).tolist()
        offsets = dice.integers(self.grid.shape).tolist()
        symmetries = self.manifest.symmetries
        inputs, outputs = batch
        element = (self.grid, symmetries, coins, offsets)
        unsigned = len(self.parameters) + (self.mask is not None)
        return turned(inputs, *element, unsigned=unsigned), turned(outputs, *element)

    def _load(self, split: str) -> Items:
        if split == "valid" and "valid" not in self.manifest.splits:
            name = "train"
            part = slice(self._held_out, None)
        elif split == "train":
            held_out = "valid" not in self.manifest.splits
            end = self._held_out if held_out else self.manifest.count("train")
            name = split
            part = slice(0, min(end, self.train_samples or end))
        else:
            name = split
            part = slice(None)
        reader = ShardReader(self.path, self.manifest, name)
        samples = np.arange(self.manifest.count(name))[part]
        samples = samples[self._solved(reader, samples)]
        if not len(samples):
            raise ValueError(f"no sample of split {split!r} of {self.path} could be solved")
        restrict: Restrict | None = None
        if (
            self.grid != self.stored
        ):  # no method of this module: it would take the trainer to every worker
            restrict = functools.partial(self.restriction, grid=self.stored)
        source: FromMemory | FromShards
        if self._fits(len(samples)) if self.in_memory is None else self.in_memory:
            source, samples = self._read(reader, split, samples, restrict)
            restrict = None
        else:
            source = FromShards(reader)
            if self.workers:  # once here, rather than once in every worker
                for shard in reader.shards:
                    check_shard(self.path, shard)
                reader.content = False
        return Items(
            source, samples, [v.name for v in self.static], [v.name for v in self.states],
            times=self.manifest.times, window=self.window, restrict=restrict,
            scalars=[v.name for v in self.manifest.scalars],
        )  # fmt: skip

    def _read(
        self, reader: ShardReader, split: str, samples: np.ndarray, restrict: Restrict | None
    ) -> tuple[FromMemory, np.ndarray]:
        """Return all fields of some samples, in memory, and their numbers there."""
        arrays = {}
        for variable in self.manifest.variables:
            parts = []
            for chunk in np.array_split(
                samples, math.ceil(len(samples) / self.manifest.shard_size)
            ):
                part = torch.from_numpy(reader.read(variable.name, chunk)).float()
                parts.append(part if restrict is None else restrict(part))
            values = torch.cat(parts)
            if not bool(values.isfinite().all()):
                raise ValueError(
                    f"split {split!r} of {self.path} holds values that are not finite; run `sobolev verify`"
                )
            arrays[variable.name] = values.numpy()
        for parameter in self.manifest.scalars:
            arrays[parameter.name] = reader.read(parameter.name, samples)
        return FromMemory(arrays, samples), np.arange(len(samples))

    def _solved(self, reader: ShardReader, samples: np.ndarray) -> np.ndarray:
        """Return a mask of the samples that the solver did not give up on."""
        good = np.ones(len(samples), dtype=bool)
        if any(shard.failed for shard in reader.shards):
            good = reader.read(STATUS, samples) == 0
        return good

    def _fits(self, samples: int) -> bool:
        nodes = samples * math.prod(self.grid.shape)
        frames = len(self.manifest.inputs) + len(self.states) * max(1, len(self.manifest.times))
        return 4 * nodes * frames <= MEMORY

    def _groups(self, items: Items) -> list[int] | None:
        """Return the numbers of items in the shards, if they are streamed from shards."""
        if isinstance(items.source, FromMemory):
            return None
        starts = [shard.first for shard in self.manifest.shards("train")]
        owner = np.searchsorted(starts, items.samples, side="right")
        return (np.unique(owner, return_counts=True)[1] * items.per_sample).tolist()

    @functools.cached_property
    def _leads(self) -> np.ndarray:
        """The times between the frames of the pairs of each sample, if pairs are taken."""
        return leads_of(self.manifest.times, self.window)

    @property
    def _held_out(self) -> int:
        """The first training sample that serves for validation."""
        count = self.manifest.count("train")
        if count < 2:
            raise ValueError(f"{self.path} has {count} training samples: too few to set any aside")
        return count - max(1, math.floor(count * self.valid_fraction))

    def _restriction(self, resolution: Resolution | None, how: str) -> Restriction:
        if resolution is None:
            return Restriction(tuple(self.stored.shape), how)
        restriction = Restriction(tuple(at_resolution(self.stored, resolution).shape), how)
        try:
            restriction.target(self.stored)
        except ValueError as error:
            raise ValueError(
                f"{self.path}: {error}; give a lower resolution that its nodes hold, or none (null) for the stored one"
            ) from error
        return restriction

    def _loader(self, items: Items, sampler: Sampler | None = None) -> DataLoader:
        if self.trainer is not None and self.trainer.world_size > 1:
            sampler = self._share(items, sampler)
        return DataLoader(
            items, batch_size=self.batch_size, sampler=sampler, collate_fn=_as_is, num_workers=self.workers,
            persistent_workers=self.workers > 0, prefetch_factor=4 if self.workers else None,
            pin_memory=torch.cuda.is_available(),
        )  # fmt: skip

    def _share(self, items: Items, sampler: Sampler | None) -> Sampler:
        """Return the sampler of this process's part.

        Each of n processes takes every n-th item of the one order of an epoch: together their batches of
        b are those of one process with batches of n·b. In training the last items are made up to a
        multiple of n by the first of the epoch, so that all processes take as many steps; in validation
        every item counts once.
        """
        trainer = cast(lightning.Trainer, self.trainer)
        if len(items) < trainer.world_size:
            raise ValueError(
                f"{len(items)} items cannot be shared by {trainer.world_size} processes; use more data or fewer "
                "trainer.devices"
            )
        whole = sampler is None
        share = UnrepeatedDistributedSamplerWrapper if whole else DistributedSamplerWrapper
        return share(
            sampler or SequentialSampler(items),
            num_replicas=trainer.world_size,
            rank=trainer.global_rank,
            shuffle=False,
        )


def _as_is(batch: Any) -> Any:
    return batch
