"""Pictures of a data set, as files: samples, animations, spectra and statistics.

Nothing here touches matplotlib's global state. Fields are read as they are drawn and statistics
gathered block by block, so that memory does not grow with the data set.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import xarray as xr
from matplotlib.animation import FFMpegWriter

from sobolev.datasets.figures import (
    animated,
    samples_drawn,
    space_time,
    spectra_drawn,
    statistics_drawn,
    strip,
)
from sobolev.datasets.statistics import Statistics, good_samples
from sobolev.datasets.store.manifest import STATUS, Manifest
from sobolev.datasets.store.shards import open_dataset
from sobolev.datasets.views import View, in_numbers
from sobolev.grids.drawing import save_figure
from sobolev.solvers import SolutionError

_logger = logging.getLogger(__name__)


def show(
    path: str | Path,
    out: str | Path | None = None,
    *,
    split: str | None = None,
    samples: Sequence[int] | None = None,
    animation: str | None = "gif",
) -> list[Path]:
    """Draw a data set into files, replacing those of an earlier call.

    ==========================  =======================================================================
    ``samples.png``             fields that have no time: lines in 1-D, maps in 2-D, on a sphere in the
                                equal-area projection of Mollweide; in 3-D the slice in the middle of z
    ``samples-NAME.png``        a trajectory: frames over time, in 1-D the x–t plane
    ``animation-NAME.gif``      the trajectories side by side, on one colour scale
    ``spectra.png``             squared L² norm per shell of wavenumber: mean and range over the samples
    ``statistics.png``, .json   distribution of the values; moments over all samples; failures; errors
    ==========================  =======================================================================

    Samples that failed in the solver are left out everywhere; those asked for are named in the log.
    Spectra and distributions are of the first 64 others, or fewer of large fields; moments are of all.

    Args:
        path: folder of the data set.
        out: folder to write to; ``figures`` in that of the data set by default.
        split: which split; by default the first that was asked for when the data were drawn.
        samples: their numbers within the split; by default the first four that did not fail.
        animation: ``"gif"``, ``"mp4"`` (which needs ffmpeg) or None. Data without time have none.

    Returns:
        The files written.

    Raises:
        ValueError: for an unknown split, sample or kind of animation, and for samples that all failed.
        FileNotFoundError: if there is no data set, or no ffmpeg for an MP4.
        DamagedDataError: if a file of the data set is not as it was written.
    """
    view = _view(Path(path), split, samples)
    trajectories = [v for v in view.variables if view.is_trajectory(v)]
    _check_animation(animation, needed=bool(trajectories))
    flat = view.flat()
    found = {v.name: Statistics.of(view.data, v.name, view.grid) for v in view.variables}
    folder = Path(path) / "figures" if out is None else Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    still = [v for v in view.variables if not view.is_trajectory(v)]
    if still:
        files.append(save_figure(samples_drawn(flat, still), folder / "samples.png"))
    for variable in trajectories:
        figure = strip(flat, variable) if flat.grid.ndim == 2 else space_time(flat, variable)
        name = re.sub(r"\W+", "-", variable.name)
        files.append(save_figure(figure, folder / f"samples-{name}.png"))
        if animation:
            files.append(animated(flat, variable, folder / f"animation-{name}.{animation}"))
    files.append(save_figure(spectra_drawn(view), folder / "spectra.png"))
    files.append(save_figure(statistics_drawn(view, found), folder / "statistics.png"))
    files.append(folder / "statistics.json")
    files[-1].write_text(json.dumps(in_numbers(view, found), indent=1, ensure_ascii=False) + "\n")
    return files


def _view(path: Path, split: str | None, samples: Sequence[int] | None) -> View:
    manifest = Manifest.read(path)
    split = next(iter(manifest.requested), "train") if split is None else split
    data = open_dataset(path, split)
    return View(data, manifest, manifest.grid, split, _picked(data, split, samples))


def _picked(data: xr.Dataset, split: str, samples: Sequence[int] | None) -> list[int]:
    """Return those of ``samples`` that did not fail; the first four for None."""
    good = set(good_samples(data).tolist())
    count = data.sizes["sample"]
    if not good:
        raise ValueError(f"every sample of split {split!r} failed in the solver; nothing to show")
    if samples is None:
        return sorted(good)[:4]
    for sample in samples:
        if not 0 <= sample < count:
            raise ValueError(
                f"split {split!r} has samples 0 to {count - 1}; there is no sample {sample}"
            )
    for sample in set(samples) - good:
        status = SolutionError.STATUS[int(data[STATUS][sample])].replace("_", " ")
        _logger.warning(
            "%s sample %d is left out: the solver gave up on it (%s)", split, sample, status
        )
    picked = [sample for sample in samples if sample in good]
    if not picked:
        some = ", ".join(map(str, sorted(good)[:4]))
        raise ValueError(
            f"none of the samples {list(samples)} of split {split!r} was solved; those that were begin with {some}"
        )
    return picked


def _check_animation(animation: str | None, *, needed: bool) -> None:
    if animation not in ("gif", "mp4", None):
        raise ValueError(f"animation must be 'gif', 'mp4' or None, got {animation!r}")
    if needed and animation == "mp4" and not FFMpegWriter.isAvailable():
        raise FileNotFoundError(
            "an MP4 needs ffmpeg, which is not installed; `apt install ffmpeg`, `conda install ffmpeg` or "
            "`brew install ffmpeg` installs it, animation='gif' does without"
        )
