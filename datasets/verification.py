"""Whether a data set is what it says: files, values, physics, and the seeds it was drawn from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sobolev.datasets.base import Recipe
from sobolev.datasets.generation import SOLVER_BATCH, draw, streams, versions
from sobolev.datasets.store import STATUS, Manifest, Shard, check_shard
from sobolev.solvers.random_fields import stream

TOLERANCE = 1e-5
"""Relative L² difference allowed between a stored field and one drawn again elsewhere (other
versions, another machine); for chaotic flows, the stored error estimate where that is larger."""
RESIDUAL = 1e-3
"""Largest residual of the PDE in H⁻¹, relative to its largest term."""


def verify(path: str | Path, *, redraw: int = 0) -> list[str]:
    """Everything that is wrong with a data set, one line each; empty if nothing is.

    Checks the manifest, every shard's presence, size and SHA-256, that nothing is missing, that all
    values are finite (but those of samples flagged as failed), and what the equation promises:
    conserved quantities, maximum principles, boundary values.

    Args:
        path: folder of the data set.
        redraw: draw so many samples of each split again from their seeds, picked at random but
            always the same. They must agree bit for bit where versions and machine are those that
            drew them, and within ``TOLERANCE`` elsewhere; and the PDE's residual in H⁻¹ must be
            small.

    Raises:
        OSError: if there is no readable manifest.
        ValueError: for ``redraw`` of data that sobolev did not draw.
    """
    path = Path(path)
    manifest = Manifest.read(path)
    problems = []
    recipe = manifest.build_recipe() if manifest.can_be_drawn_again else None
    if redraw and recipe is None:
        raise ValueError(
            f"{path} was imported; sobolev did not draw these fields and cannot draw them again"
        )
    for split, wanted in manifest.requested.items():
        if (have := manifest.count(split)) < wanted:
            problems.append(f"split {split!r} is unfinished: {have} of {wanted} samples")
        for shard in manifest.splits.get(split, []):
            try:
                check_shard(path, shard)
            except OSError as error:
                problems.append(str(error))
                continue
            problems += [
                f"{path / shard.file}: {text}"
                for text in _wrong_values(path, manifest, shard, recipe)
            ]
        if redraw and recipe is not None and have and not problems:
            problems += _redrawn(path, manifest, recipe, split, redraw)
    return problems


def _wrong_values(
    path: Path, manifest: Manifest, shard: Shard, recipe: Recipe | None
) -> Iterator[str]:
    with xr.open_dataset(path / shard.file, engine="h5netcdf") as data:
        good = data[STATUS].values == 0
        fields = {v.name: torch.from_numpy(data[v.name].values[good]) for v in manifest.variables}
        numbers = data["sample"].values[good]
    for name, field in fields.items():
        finite = field.flatten(1).isfinite().all(dim=1).numpy()
        if not finite.all():
            yield f"{name} holds values that are not finite ({_named(numbers[~finite])})"
            return
    if recipe is None or not len(numbers):
        return
    for check in recipe.checks(fields, manifest.grid):
        broken = ~(check.defect <= check.limit).numpy()
        if broken.any():
            worst = float(check.defect.amax())
            yield f"not so: {check.name} ({_named(numbers[broken])}; defect {worst:.2g}, allowed {check.limit:g})"


def _redrawn(
    path: Path, manifest: Manifest, recipe: Recipe, split: str, count: int
) -> Iterator[str]:
    """Solve some samples again, each in the batch it was drawn in."""
    total = manifest.count(split)
    picked = np.sort(stream(0, total).permutation(total)[:count])
    for sample in picked.tolist():
        shard = next(s for s in manifest.splits[split] if s.first <= sample < s.first + s.count)
        with xr.open_dataset(path / shard.file, engine="h5netcdf") as stored:
            old = stored.isel(sample=sample - shard.first).load()
        new = draw(recipe, manifest, split, _batch_of(shard, sample)).sel(sample=sample)
        same_versions = shard.versions == versions()
        error = float(old["error_estimate"]) if np.isfinite(old["error_estimate"]) else 0.0
        room = max(TOLERANCE, error, shard.error or 0.0)
        for variable in manifest.variables:
            a, b = old[variable.name].values, new[variable.name].values
            if np.array_equal(a, b, equal_nan=True):
                continue
            difference = float(np.linalg.norm(a - b) / np.linalg.norm(a))
            if same_versions:
                yield (
                    f"{split} sample {sample}: {variable.name} drawn again differs by {difference:.1e}; with the same "
                    "versions on the same machine it should be equal bit for bit"
                )
            elif not difference <= room:
                yield (
                    f"{split} sample {sample}: {variable.name} drawn again differs by {difference:.1e}, more than the "
                    f"{room:.1e} allowed for other versions ({shard.versions} drew it)"
                )
        if int(old[STATUS]) == 0:
            residual = recipe.residual(streams(manifest, split, range(sample, sample + 1)))
            if residual is not None and not float(residual) <= RESIDUAL:
                yield (
                    f"{split} sample {sample}: the solver's field misses the PDE by {float(residual):.1e} in H^-1, "
                    f"relative (allowed {RESIDUAL:g})"
                )


def _batch_of(shard: Shard, sample: int) -> range:
    start = shard.first + (sample - shard.first) // SOLVER_BATCH * SOLVER_BATCH
    return range(start, min(start + SOLVER_BATCH, shard.first + shard.count))


def _named(numbers: np.ndarray) -> str:
    few = ", ".join(map(str, numbers[:5].tolist()))
    return f"samples {few}{' …' if len(numbers) > 5 else ''}"
