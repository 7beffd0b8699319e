"""The manifest: the description of a data set in its own folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sobolev.datasets.store.whole_files import replacing
from sobolev.grids import AbstractGrid
from sobolev.grids.description import grid_from
from sobolev.grids.variables import Parameter, Variable

MANIFEST = "manifest.json"
SCHEMA = 2
STATUS = "status"
ERROR = "error_estimate"
IMPORTED = "Imported"
"""The class of the "recipe" of data that sobolev did not draw."""


class DamagedDataError(OSError):
    """A file of a data set is missing, truncated or altered."""


@dataclass(frozen=True)
class Shard:
    """Some consecutive samples of a split, in one file."""

    file: str
    first: int
    count: int
    bytes: int
    sha256: str
    versions: dict[str, str]  # of the packages that drew it
    failed: int = 0  # samples whose status is not 0
    error: float | None = None  # the largest error estimate

    @property
    def samples(self) -> str:
        return f"samples {self.first} to {self.first + self.count - 1}"


@dataclass
class Manifest:
    """The content of a data set, and how it was made."""

    recipe: dict[str, Any]
    preset: str | None
    title: str
    references: str
    inputs: list[dict[str, str]]
    outputs: list[dict[str, str]]
    equation: str
    measure: str
    nodes: dict[str, Any]
    times: list[float]
    time_units: str
    symmetries: list[str]
    resolution: int | list[int]
    seed: int
    dtype: str
    shard_size: int
    conserved: dict[str, str] | None = None  # None where nobody said
    parameters: list[dict[str, Any]] = field(default_factory=list)  # numbers beside the fields
    mask: str | None = None  # the input that is 1 in the domain and 0 outside
    requested: dict[str, int] = field(default_factory=dict)
    splits: dict[str, list[Shard]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> Manifest:
        """Read the manifest of the data set at ``path``.

        Raises:
            FileNotFoundError: if there is none.
            DamagedDataError: if it was truncated or altered.
        """
        file = Path(path) / MANIFEST
        if not file.is_file():
            raise FileNotFoundError(f"{path} holds no sobolev data set ({MANIFEST} is missing)")
        try:
            content = json.loads(file.read_text())
            stated = content.pop("sha256")
            schema = content.pop("schema")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedDataError(f"{file} is damaged: {error}") from error
        if stated != _digest({**content, "schema": schema}):
            raise DamagedDataError(
                f"{file} is damaged or was edited: its checksum does not match its content"
            )
        if schema != SCHEMA:
            raise ValueError(
                f"{file} has schema {schema}; this version of sobolev reads schema {SCHEMA}"
            )
        try:
            content["splits"] = {
                split: [Shard(**shard) for shard in shards]
                for split, shards in content["splits"].items()
            }
            manifest = cls(**content)
            _refuse_foreign_paths(manifest, file)
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedDataError(f"{file} does not describe a data set: {error}") from error
        return manifest

    def write(self, path: Path) -> None:
        """Replace the manifest in one step."""
        content = {"schema": SCHEMA, **self._plain()}
        text = json.dumps({**content, "sha256": _digest(content)}, indent=1)
        with replacing(path / MANIFEST) as part:
            part.write_text(text + "\n")

    @property
    def digest(self) -> str:
        """The SHA-256 of everything in the manifest."""
        return _digest({"schema": SCHEMA, **self._plain()})

    def _plain(self) -> dict[str, Any]:
        splits = {split: [vars(shard) for shard in shards] for split, shards in self.splits.items()}
        return {**vars(self), "splits": splits}

    @property
    def identity(self) -> dict[str, Any]:
        """The parts that must be equal for a run to continue this data set."""
        return {
            name: getattr(self, name)
            for name in ("recipe", "resolution", "seed", "dtype", "shard_size")
        }

    @property
    def grid(self) -> AbstractGrid:
        return grid_from(self.nodes)

    @property
    def variables(self) -> list[Variable]:
        """The inputs, then the outputs."""
        return [Variable(**v) for v in [*self.inputs, *self.outputs]]

    @property
    def scalars(self) -> list[Parameter]:
        """The numbers that each sample has beside its fields."""
        return [Parameter(**v) for v in self.parameters]

    @property
    def stored(self) -> list[Variable]:
        """All that is stored of a sample: its numbers, then its fields."""
        return [*self.scalars, *self.variables]

    @property
    def remedy(self) -> str:
        """The way to bring back the samples that are missing, in words."""
        if self.recipe.get("class") == IMPORTED:
            return "import the data set again with --overwrite"
        return "run `sobolev generate` again with --resume"

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """The dimensions of each variable."""
        space = self.grid.dims
        trajectory = ("sample", *(("time",) if self.times else ()), *space)
        return {
            **{v["name"]: ("sample",) for v in self.parameters},
            **{v["name"]: ("sample", *space) for v in self.inputs},
            **{v["name"]: trajectory for v in self.outputs},
        }

    @property
    def sizes(self) -> dict[str, int]:
        """The nodes per space axis, and the frames where there are any."""
        time = {"time": len(self.times)} if self.times else {}
        return {**time, **dict(zip(self.grid.dims, self.grid.shape, strict=True))}

    def add(self, split: str, shard: Shard) -> None:
        """Enter a finished shard, in the place of one with the same first sample."""
        others = [s for s in self.splits.get(split, []) if s.first != shard.first]
        self.splits[split] = sorted([*others, shard], key=lambda s: s.first)

    def count(self, split: str) -> int:
        """Return the number of finished samples of a split."""
        return sum(shard.count for shard in self.splits.get(split, []))

    def shards(self, split: str) -> list[Shard]:
        """Return the shards of a finished split.

        Raises:
            ValueError: if the data set has no such split, or it was never finished.
        """
        if not self.splits.get(split):
            raise ValueError(
                f"no split {split!r} here; there are: {', '.join(self.splits) or 'none yet'}"
            )
        if self.count(split) < self.requested[split]:
            raise ValueError(
                f"split {split!r} is unfinished: {self.count(split)} of {self.requested[split]} samples; {self.remedy}"
            )
        return self.splits[split]


def _refuse_foreign_paths(manifest: Manifest, file: Path) -> None:
    """Refuse shards that do not lie in the manifest's own folder, under plain names, in order and without
    overlap: a manifest may come from a stranger."""
    for split, shards in manifest.splits.items():
        if split not in manifest.requested or not split.isidentifier():
            raise DamagedDataError(f"{file} names the split {split!r}, which it does not have")
        firsts = [shard.first for shard in shards]
        if firsts != sorted(set(firsts)):
            raise DamagedDataError(f"{file} lists the shards of {split!r} out of order")
        for shard in shards:
            number, rest = divmod(shard.first, manifest.shard_size)
            fits = rest == 0 <= number and 1 <= shard.count <= manifest.shard_size
            if not fits or shard.file != f"{split}/{number:05d}.nc":
                raise DamagedDataError(
                    f"{file} names the file {shard.file!r}, which is none of a data set's"
                )
    if not all(split.isidentifier() for split in manifest.requested):
        raise DamagedDataError(f"{file} names a split that is no plain word")


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
