"""A split to be drawn: its fields, its clock, and its numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from sobolev.datasets.statistics import Statistics, good_samples
from sobolev.datasets.store.manifest import ERROR, STATUS, Manifest
from sobolev.grids import AbstractGrid, Grid
from sobolev.grids.variables import Variable
from sobolev.solvers import SolutionError

_CENSUS = 64  # samples that spectra and histograms are made of …
_VALUES = 2**25  # … or fewer, of so many values together


@dataclass(frozen=True)
class View:
    """A split, and the samples of it that are drawn."""

    data: xr.Dataset
    manifest: Manifest
    grid: AbstractGrid
    split: str
    samples: list[int]
    where: str = ""
    """Which part of the domain is drawn, in words that follow the sample's."""

    def flat(self) -> View:
        """Return what can be drawn: of fields in three dimensions the slice in the middle of the first axis."""
        if not isinstance(self.grid, Grid) or self.grid.ndim < 3:
            return self
        first, *others = self.grid.axes
        middle = first.size // 2
        return replace(
            self,
            data=self.data.isel({first.name: middle}),
            grid=Grid(*others),
            where=f", {first.name} = {float(first.points()[middle]):.3g}",
        )

    @property
    def variables(self) -> list[Variable]:
        return self.manifest.variables

    def is_trajectory(self, variable: Variable) -> bool:
        return "time" in self.data[variable.name].dims

    def frames(self, count: int) -> list[int]:
        """Return up to ``count`` frames at even distances, the first and the last among them."""
        total = len(self.manifest.times)
        return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()

    @property
    def clock(self) -> tuple[np.ndarray, str]:
        """The times and their unit, hours or days instead of many seconds."""
        times = np.array(self.manifest.times)
        units = self.manifest.time_units
        for longer, seconds in (("days", 86400.0), ("h", 3600.0)):
            if units == "s" and times[-1] >= 4 * seconds:
                return times / seconds, longer
        return times, "" if units == "1" else units

    def time(self, frame: int) -> str:
        """Return the moment of a frame, in words."""
        times, units = self.clock
        return f"$t$ = {times[frame]:.4g} {units}".rstrip()

    def read(
        self,
        variable: Variable,
        samples: list[int],
        frames: list[int] | None = None,
        *,
        step: int = 1,
    ) -> np.ndarray:
        """Return values ``(sample, [frame,] *space)`` at every ``step``-th node."""
        picked: dict[str, Any] = {"sample": samples}
        if frames is not None:
            picked["time"] = frames
        picked |= {dim: slice(None, None, step) for dim in self.grid.dims}
        values = self.data[variable.name].isel(picked).values
        mask = self.manifest.mask
        if mask is None or variable.name == mask:
            return values
        domain = self.data[mask].isel({k: v for k, v in picked.items() if k != "time"}).values
        shaped = domain if frames is None else domain[:, None]
        return np.where(shaped == 1, values, np.nan)

    def census(self, variable: Variable) -> tuple[np.ndarray, list[str]]:
        """Return values of some samples at the first, middle and last time, ``(sample, frame, *space)``,
        and the names of these frames."""
        frames = self.frames(3) if self.is_trajectory(variable) else None
        size = math.prod(self.grid.shape) * len(frames or [0])
        good = good_samples(self.data)[: min(_CENSUS, max(1, _VALUES // size))]
        values = self.read(variable, good.tolist(), frames)
        if frames is None:
            return values[:, None], [""]
        return values, [self.time(frame) for frame in frames]


def in_numbers(view: View, found: dict[str, Statistics]) -> dict[str, Any]:
    """Return the content of ``statistics.json``."""
    status = view.data[STATUS].values
    errors = view.data[ERROR].values.astype(np.float64)
    errors = errors[(status == 0) & np.isfinite(errors)]
    known = enumerate(SolutionError.STATUS)
    estimates: dict[str, float] = {"count": len(errors)}
    if len(errors):
        estimates |= {"median": float(np.median(errors)), "max": float(errors.max())}
    return {
        "title": view.manifest.title,
        "manifest_sha256": view.manifest.digest,
        "split": view.split,
        "samples": len(status),
        "failed": {name: int((status == code).sum()) for code, name in known if code},
        "error_estimates": estimates,
        "variables": {name: statistics.summary() for name, statistics in found.items()},
    }


def summary(view: View) -> str:
    numbers = in_numbers(view, {})
    failed = {name.replace("_", " "): n for name, n in numbers["failed"].items() if n}
    reasons = ", ".join(f"{n} {name}" for name, n in failed.items())
    left_out = f"of which {reasons} and left out" if failed else "none failed"
    errors = numbers["error_estimates"]
    worst = "no error estimates"
    if errors["count"]:
        many = (
            f"largest of {errors['count']} error estimates"
            if errors["count"] > 1
            else "error estimate of one"
        )
        worst = f"{many}: {errors['max']:.1e} (relative L²)"
    return f"{view.split}: {numbers['samples']} samples, {left_out}; {worst}"
