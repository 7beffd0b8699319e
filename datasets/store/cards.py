"""The data card: a README.md in the folder of a data set, for whoever finds it there."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from sobolev.datasets.recipes.presets import words_for
from sobolev.datasets.store.manifest import IMPORTED, Manifest
from sobolev.datasets.store.whole_files import replacing
from sobolev.grids.description import in_words

MARK = "<!-- written by sobolev; your own text is safe once this line is gone -->"
_CARD = """\
{mark}

# {title}

| | |
|---|---|
| equation | {equation} |
| inputs | {inputs} |
| outputs | {outputs} |
| random measure | {measure} |
| grid | {grid} |
| times | {times} |
| samples | {samples} |
| on disk | {dtype}, {bytes} in {files} files |
| seed | {seed} |
| error estimate | {error} |
| failed samples | {failed} |
| made by | {versions} |

Parameters of the recipe `{recipe_class}`:

```json
{parameters}
```

## Read

```python
from sobolev.datasets import open_dataset

dataset = open_dataset(".", "{split}")    # this folder, as a lazy xr.Dataset
```

Every file is plain NetCDF-4 as well: `xr.open_dataset("{first_file}", engine="h5netcdf")`.
`status` marks samples that the solver gave up on, `error_estimate` holds the estimates made.

## Check and make again

```sh
sobolev verify .
{regenerate}
```

## Cite

The problem: {references}.

The data: sobolev {sobolev}, recipe {preset}, seed {seed}; manifest SHA-256 `{digest}`.
"""

_ERROR = (
    "the largest of {count} estimates is {worst:.1e}: relative L² difference from a solve in half the steps on a grid "
    "of twice the cells, made for every {every}th sample"
)


def write_card(path: Path, manifest: Manifest) -> None:
    """Write the data card of a finished data set; a README.md that someone else wrote stays."""
    if not is_card(path / "README.md", missing=True):
        return
    shards = [shard for split in manifest.splits.values() for shard in split]
    if not shards:
        return
    errors = [shard.error for shard in shards if shard.error is not None]
    first = next(iter(manifest.splits))
    parameters = {k: v for k, v in manifest.recipe.items() if k != "class"}
    text = _CARD.format(
        title=manifest.title,
        mark=MARK,
        equation=manifest.equation,
        inputs=_variables(manifest.inputs) or "the first frame of the outputs",
        outputs=_variables(manifest.outputs),
        measure=manifest.measure,
        grid=in_words(manifest.grid),
        times=_times(manifest),
        samples=", ".join(f"{split} {manifest.count(split)}" for split in manifest.splits),
        dtype=manifest.dtype,
        bytes=size_in_words(sum(shard.bytes for shard in shards)),
        files=len(shards),
        seed=manifest.seed,
        error=_ERROR.format(count=len(errors), worst=max(errors), every=64) if errors else "none",
        failed=sum(shard.failed for shard in shards),
        versions=", ".join(f"{k} {v}" for k, v in shards[0].versions.items()),
        recipe_class=manifest.recipe.get("class", "?"),
        parameters=json.dumps(parameters, indent=2, ensure_ascii=False),
        split=first,
        first_file=shards[0].file,
        regenerate=_command(manifest),
        references=manifest.references,
        sobolev=shards[0].versions.get("sobolev", "?"),
        preset=f"`{manifest.preset}`" if manifest.preset else f"`{manifest.recipe.get('class')}`",
        digest=manifest.digest,
    )
    with replacing(path / "README.md") as part:
        part.write_text(text, encoding="utf-8")


def is_card(file: Path, *, missing: bool = False) -> bool:
    """Return whether ``file`` was written by ``write_card``; ``missing`` if there is no such file."""
    return (
        file.read_text(encoding="utf-8", errors="replace").startswith(MARK)
        if file.is_file()
        else missing
    )


def _variables(variables: list[dict[str, str]]) -> str:
    return ", ".join(f"`{v['name']}` ({v['long_name']}, {v['units']})" for v in variables)


def _times(manifest: Manifest) -> str:
    if not manifest.times:
        return "one field per sample"
    unit = "" if manifest.time_units == "1" else f" {manifest.time_units}"
    return (
        f"{len(manifest.times)} frames from {manifest.times[0]:g} to {manifest.times[-1]:g}{unit}"
    )


def size_in_words(count: int) -> str:
    """Return a number of bytes in words.

    >>> size_in_words(835584)
    '836 kB'
    """
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def _command(manifest: Manifest) -> str:
    recipe = words_for(manifest.recipe)
    if not recipe:
        return (
            "# drawn from a recipe of its own: sobolev.datasets.generate(recipe, ...), with the parameters above"
            if manifest.recipe.get("class") != IMPORTED
            else "# imported: sobolev did not draw these fields and cannot draw them again"
        )
    samples = " ".join(f"--samples {k}={v}" for k, v in manifest.requested.items())
    return (
        f"sobolev generate {shlex.join(recipe)} . {samples} --resolution {manifest.resolution} "
        f"--seed {manifest.seed} --dtype {manifest.dtype}"
    )
