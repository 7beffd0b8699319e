"""From a data set on disk to batches for the Lightning trainer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sobolev.datasets.store import Manifest, open_dataset
from sobolev.solvers import Grid
from sobolev.solvers.random_fields import stream


class OperatorDataModule(lightning.LightningDataModule):
    """Batches ``(input, output)`` of float32 fields in physical units, each ``(batch, channels,
    *space)``.

    The operator's normalisation comes from ``statistics``, computed on the training split alone.
    Without a split named ``valid``, the last ``valid_fraction`` of the training samples is set
    aside for validation; the test split is never looked at during training.

    Args:
        path: a data set made by ``sobolev generate``.
        batch_size: fields per step.
        resolution: train on every n-th node, so that this many remain per axis; the stored
            resolution by default.
        augment: turn each training batch by a random symmetry that the grid and the PDE share and
            the recipe declares: the eight of the square for Darcy, u(x) → −u(−x) for Burgers.
        train_samples: use only the first so many training samples.
        valid_fraction: share of the training split to validate on if there is no ``valid`` split.
        seed: order of the training samples and draw of the symmetries.
        workers: loader processes. The fields are held in memory, so that more than 0 seldom pays.
    """

    def __init__(
        self,
        path: str | Path,
        batch_size: int = 20,
        *,
        resolution: int | None = None,
        augment: bool = False,
        train_samples: int | None = None,
        valid_fraction: float = 0.1,
        seed: int = 0,
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
        self.path, self.batch_size, self.augment, self.seed = Path(path), batch_size, augment, seed
        self.train_samples, self.valid_fraction, self.workers = (
            train_samples,
            valid_fraction,
            workers,
        )
        self.manifest = Manifest.read(self.path)
        if augment and not self.manifest.symmetries:
            raise ValueError(
                f"{self.path} declares no symmetry to augment with; set augment to false"
            )
        self.stored = self.manifest.grid
        self.grid = self._grid(resolution)
        self._fields: dict[str, FieldPairs] = {}

    @property
    def in_channels(self) -> int:
        return len(self.manifest.inputs)

    @property
    def out_channels(self) -> int:
        return len(self.manifest.outputs)

    @property
    def statistics(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation per variable over the samples that are trained on."""
        pairs = self.pairs("train")
        names = [v["name"] for v in (*self.manifest.inputs, *self.manifest.outputs)]
        fields = torch.cat([pairs.inputs, pairs.outputs], dim=1).double().transpose(0, 1).flatten(1)
        means, deviations = fields.mean(dim=1), fields.std(dim=1, correction=0)
        return {n: (float(m), float(s)) for n, m, s in zip(names, means, deviations, strict=True)}

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the data come from, for the surrogate's record."""
        return {
            "path": str(self.path), "recipe": self.manifest.recipe, "preset": self.manifest.preset,
            "seed": self.manifest.seed, "resolution": list(self.grid.shape),
            "train_samples": len(self.pairs("train")), "versions": self.manifest.shards("train")[0].versions,
        }  # fmt: skip

    def pairs(self, split: str) -> FieldPairs:
        """All fields of ``train``, ``valid`` or ``test`` at the module's resolution, in memory."""
        if split not in self._fields:
            self._fields[split] = self._load(split)
        return self._fields[split]

    def train_dataloader(self) -> DataLoader:
        data = self.pairs("train")
        return self._loader(data, EpochSampler(len(data), self.seed))

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.pairs("valid"))

    def test_dataloader(self) -> DataLoader:
        return self._loader(self.pairs("test"))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn a training batch by a symmetry that depends on the seed and the step alone, so that
        runs resume exactly."""
        if not (self.augment and self.trainer is not None and self.trainer.training):
            return batch
        coins = (
            stream(self.seed, 1, self.trainer.global_step)
            .integers(2, size=self.grid.ndim + 1)
            .tolist()
        )
        return tuple(turned(field, self.grid, self.manifest.symmetries, coins) for field in batch)

    def _load(self, split: str) -> FieldPairs:
        if split == "valid" and "valid" not in self.manifest.splits:
            source, part = "train", slice(self._held_out, None)
        elif split == "train":
            end = (
                self._held_out
                if "valid" not in self.manifest.splits
                else self.manifest.count("train")
            )
            source, part = split, slice(0, min(end, self.train_samples or end))
        else:
            source, part = split, slice(None)
        data = open_dataset(self.path, source).isel(sample=part)

        def stacked(variables: list[dict[str, str]]) -> Tensor:
            fields = [torch.from_numpy(data[v["name"]].values) for v in variables]
            return torch.stack([self.stored.subsample(f, self.grid).float() for f in fields], dim=1)

        pairs = FieldPairs(stacked(self.manifest.inputs), stacked(self.manifest.outputs))
        for field in (pairs.inputs, pairs.outputs):
            if not bool(field.isfinite().all()):
                raise ValueError(
                    f"split {split!r} of {self.path} holds values that are not finite; run `sobolev verify`"
                )
        return pairs

    @property
    def _held_out(self) -> int:
        """The first training sample that serves for validation."""
        count = self.manifest.count("train")
        if count < 2:
            raise ValueError(f"{self.path} has {count} training samples: too few to set any aside")
        return count - max(1, math.floor(count * self.valid_fraction))

    def _grid(self, resolution: int | None) -> Grid:
        if resolution is None:
            return self.stored
        grid = self.stored.resized(*[resolution] * self.stored.ndim)
        self.stored.subsample(torch.zeros(self.stored.shape), grid)  # says which sizes are possible
        return grid

    def _loader(self, data: FieldPairs, sampler: Sampler | None = None) -> DataLoader:
        return DataLoader(
            data, batch_size=self.batch_size, sampler=sampler, collate_fn=_as_is, num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )  # fmt: skip


class FieldPairs(Dataset):
    """Input and output fields in memory; a whole batch is picked at once."""

    def __init__(self, inputs: Tensor, outputs: Tensor) -> None:
        self.inputs, self.outputs = inputs, outputs

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.outputs[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.inputs[indices], self.outputs[indices]


class EpochSampler(Sampler[int]):
    """A fresh order each epoch that depends on the seed and the epoch alone, so that a resumed run
    sees the same one."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(stream(self.seed, 0, self.epoch).permutation(self.count).tolist())


def turned(u: Tensor, grid: Grid, symmetries: Sequence[str], coins: Sequence[int]) -> Tensor:
    """``u`` under one element of the group that ``symmetries`` generate.

    ``coins`` decide, with 0 or 1, the reflection of each axis and, last, the transposition.
    """
    if "odd reflection" in symmetries and coins[0]:
        u = -u.flip(-1)
    if "reflections" in symmetries:
        u = u.flip([i - grid.ndim for i in range(grid.ndim) if coins[i]])
    return u.transpose(-1, -2) if "transposition" in symmetries and coins[-1] else u


def _as_is(batch: Any) -> Any:
    return batch
