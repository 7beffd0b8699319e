"""Verification of data sets: files, values, physics, and the seeds they were drawn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sobolev.datasets.generating.generation import SOLVER_BATCH, draw, streams, versions_of_data
from sobolev.datasets.recipes.base import Fields, Recipe
from sobolev.datasets.recipes.capabilities import WithResidual
from sobolev.datasets.recipes.presets import class_of, recipe_from
from sobolev.datasets.store.manifest import ERROR, STATUS, DamagedDataError, Manifest, Shard
from sobolev.datasets.store.reading import ShardReader, check_shard
from sobolev.grids.streams import stream

TOLERANCE = 1e-5
"""The relative L² difference allowed between a stored field and one drawn again elsewhere (other
versions, another machine); for chaotic flows, the stored error estimate where that is larger."""
RESIDUAL = 1e-2
"""The largest allowed residual of the PDE in H⁻¹, relative to its largest term."""


def verify(path: str | Path, *, redraw: int = 0, recipes: Sequence[type[Recipe]] = ()) -> list[str]:
    """Return everything that is wrong with a data set, one line each; empty if nothing is.

    Check the manifest, every shard's presence, size and SHA-256, that nothing is missing, that all
    values are finite (but those of samples flagged as failed), and what the equation promises:
    conserved quantities, maximum principles, boundary values.

    Args:
        path: folder of the data set.
        redraw: draw so many samples of each split again from their seeds, picked at random but
            always the same. They must agree bit for bit where versions and machine are those that
            drew them, and within ``TOLERANCE`` elsewhere; and the PDE's residual in H⁻¹ must be
            small.
        recipes: classes from outside the package that may have drawn the data.

    Raises:
        OSError: if there is no readable manifest, or the system refuses to read a file.
        ValueError: for ``redraw`` of data that sobolev did not draw.
    """
    path = Path(path)
    manifest = Manifest.read(path)
    problems = []
    known = class_of(manifest.recipe, recipes) is not None
    recipe = recipe_from(manifest.recipe, recipes) if known else None
    if redraw < 0:
        raise ValueError(f"redraw must be at least 0, got {redraw}")
    if redraw and recipe is None:
        raise ValueError(
            f"{path} comes from a recipe of class {manifest.recipe.get('class')!r}, which is not one of sobolev's: it "
            "cannot be drawn again here, unless recipes=[...] (--recipes MODULE:CLASS) names it"
        )
    for split, wanted in manifest.requested.items():
        if (have := manifest.count(split)) < wanted:
            problems.append(f"split {split!r} is unfinished: {have} of {wanted} samples")
        for shard in manifest.splits.get(split, []):
            try:
                check_shard(path, shard)
            except DamagedDataError as error:
                problems.append(str(error))
                continue
            problems += [
                f"{path / shard.file}: {text}"
                for text in _wrong_values(path, manifest, shard, recipe)
            ]
        if redraw and recipe is not None and have:
            if problems:
                problems.append(f"nothing of split {split!r} was drawn again, because of the above")
            else:
                problems += _redrawn(path, manifest, recipe, split, redraw)
    return problems


def _wrong_values(
    path: Path, manifest: Manifest, shard: Shard, recipe: Recipe | None
) -> Iterator[str]:
    """Yield everything that is wrong with the values of a shard."""
    try:
        fields, status, errors = _read_shard(path, manifest, shard)
    except DamagedDataError as error:
        yield str(error)
        return
    good = status == 0
    if (failed := int((~good).sum())) != shard.failed:
        yield f"{failed} samples are flagged as failed, the manifest says {shard.failed}"
    if not (np.isnan(errors) | (errors >= 0)).all():
        yield "an error estimate is negative"
    if np.isinf(errors).any():
        yield "the finer solve behind an error estimate failed: the flow is at the edge of what the grid resolves"
    fields = {name: field[torch.from_numpy(good)] for name, field in fields.items()}
    numbers = shard.first + np.flatnonzero(good)
    for name, field in fields.items():
        finite = field.reshape(len(field), -1).isfinite().all(dim=1).numpy()
        if not finite.all():
            yield f"{name} holds values that are not finite ({_few_named(numbers[~finite])})"
            return
    if recipe is None or not len(numbers):
        return
    for check in recipe.checks_of(fields, manifest.grid):
        broken = ~(check.defect <= check.limit).numpy()
        if broken.any():
            worst = float(check.defect.amax())
            yield f"not so: {check.name} ({_few_named(numbers[broken])}; defect {worst:.2g}, allowed {check.limit:g})"


def _read_shard(
    path: Path, manifest: Manifest, shard: Shard
) -> tuple[Fields, np.ndarray, np.ndarray]:
    """Return fields, status and error estimates of a shard whose checksum has been compared."""
    split = shard.file.partition("/")[0]
    alone = replace(manifest, splits={split: [shard]}, requested={split: shard.count})
    reader = ShardReader(path, alone, split, content=False)
    fields = {v.name: torch.from_numpy(np.array(reader.mapped(v.name, 0))) for v in manifest.stored}
    return fields, np.array(reader.mapped(STATUS, 0)), np.array(reader.mapped(ERROR, 0))


def _redrawn(
    path: Path, manifest: Manifest, recipe: Recipe, split: str, count: int
) -> Iterator[str]:
    """Solve some samples again, each in the batch it was drawn in, and yield the differences."""
    total = manifest.count(split)
    picked = np.sort(stream(0, total).permutation(total)[:count])
    for sample in picked.tolist():
        shard = next(s for s in manifest.splits[split] if s.first <= sample < s.first + s.count)
        fields, status, errors = _read_shard(path, manifest, shard)
        row = sample - shard.first
        new = draw(recipe, manifest, split, _batch_of(shard, sample)).sel(sample=sample)
        exact = shard.versions == versions_of_data()
        room = TOLERANCE
        if recipe.chaotic and shard.error is not None:
            room = max(room, shard.error)
        if int(status[row]) != int(new[STATUS]):
            yield f"{split} sample {sample}: its status is {status[row]}, drawn again {int(new[STATUS])}"
            continue
        stated = float(errors[row])
        found = float(new[ERROR])
        if not np.isclose(stated, found, rtol=1e-6 if exact else 0.1, equal_nan=True):
            yield f"{split} sample {sample}: its error estimate is {stated:.1e}, drawn again {found:.1e}"
        for variable in manifest.stored:
            text = _difference(
                fields[variable.name][row].numpy(), new[variable.name].values, exact, room
            )
            if text:
                yield f"{split} sample {sample}: {variable.name} {text} ({shard.versions} drew it)"
        if int(status[row]) == 0 and isinstance(recipe, WithResidual):
            (dice,) = streams(manifest, split, range(sample, sample + 1))
            residual = recipe.of_sample(dice).residual([dice])  # type: ignore[attr-defined]
            if not float(residual) <= RESIDUAL:
                yield (
                    f"{split} sample {sample}: the solver's field misses the PDE by {float(residual):.1e} in H^-1, "
                    f"relative (allowed {RESIDUAL:g})"
                )


def _difference(old: np.ndarray, new: np.ndarray, exact: bool, room: float) -> str:
    """Return what is wrong with a field that was drawn again; empty if nothing is."""
    if np.array_equal(old, new, equal_nan=True):
        return ""
    if not np.array_equal(np.isnan(old), np.isnan(new)):
        return "drawn again holds NaN in other places"
    a = np.nan_to_num(old).astype(float)
    b = np.nan_to_num(new).astype(float)
    difference = float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(a)), 1e-300)
    if exact:
        return (
            f"drawn again differs by {difference:.1e}; with the same versions on the same kind of processor it should "
            "be equal bit for bit"
        )
    if difference <= room:
        return ""
    return f"drawn again differs by {difference:.1e}, more than the {room:.1e} allowed for other versions or machines"


def _batch_of(shard: Shard, sample: int) -> range:
    start = shard.first + (sample - shard.first) // SOLVER_BATCH * SOLVER_BATCH
    return range(start, min(start + SOLVER_BATCH, shard.first + shard.count))


def _few_named(numbers: np.ndarray) -> str:
    few = ", ".join(map(str, numbers[:5].tolist()))
    return f"samples {few}{' …' if len(numbers) > 5 else ''}"
