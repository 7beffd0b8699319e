"""The times of predicted frames, from those of the given ones."""

from __future__ import annotations

import numpy as np
import xarray as xr

from sobolev.grids.variables import same_units
from sobolev.surrogates.meaning import Meaning


def times_after(dataset: xr.Dataset, meaning: Meaning, frames: int) -> xr.Variable:
    """Return the times of the ``frames`` that follow those given.

    Raises:
        ValueError: if they cannot be known, or the given ones are not as far apart as in training.
    """
    window = meaning.in_time
    times, interval = _given_times(dataset, meaning)
    evenly = np.allclose(np.diff(times), interval, rtol=1e-4, atol=0.0)
    if len(times) != window.history or not evenly:
        end = window.history * window.stride
        step = f", {window.stride}" if window.stride > 1 else ""
        raise ValueError(
            f"the surrogate takes {window.history} frames, {interval:g} apart; the dataset's times are "
            f"{np.array2string(times, threshold=6, precision=6)}. From data stored like those of training, "
            f"isel(time=slice(0, {end}{step})) takes the first"
        )
    later = times[-1] + interval * np.arange(1, frames + 1)
    return xr.Variable("time", later, dataset["time"].attrs)


def times_after_each(dataset: xr.Dataset, meaning: Meaning) -> xr.Variable:
    """Return the times of the frames that follow one by one on each of those given.

    Raises:
        ValueError: if they cannot be known.
    """
    times, interval = _given_times(dataset, meaning)
    return xr.Variable("time", times + interval, dataset["time"].attrs)


def time_after_fields(dataset: xr.Dataset, meaning: Meaning) -> xr.Variable | None:
    """Return the time of what is predicted from inputs by their names, where it is one and known."""
    time = dataset.coords.get("time")
    if time is None or time.dtype.kind not in "iuf" or _other_units(time, meaning):
        return None
    ahead = _ahead(dataset, meaning)
    if ahead is None:
        return None
    later = time.variable.to_base_variable().astype(np.float64) + ahead
    later.attrs = time.attrs
    return later if later.ndim < 2 else None


def _ahead(dataset: xr.Dataset, meaning: Meaning) -> xr.Variable | float | None:
    """Return how far ahead of the input a prediction lies, where it is known and the same for all outputs."""
    lead = meaning.lead_time
    if lead is not None:
        units = str(dataset["time"].attrs.get("units", lead.units))
        if not same_units(units.partition(" since ")[0], lead.units):
            return None
        return dataset[lead.name].variable.to_base_variable().astype(np.float64)
    if meaning.window is None or meaning.window.horizon > 1:
        return None
    return meaning.provenance.data.interval


def _given_times(dataset: xr.Dataset, meaning: Meaning) -> tuple[np.ndarray, float]:
    """Return the times of the given frames, and the interval between frames."""
    interval = meaning.provenance.data.interval
    if interval is None:
        raise ValueError(
            "the surrogate does not know when its frames are: the training data had no evenly spaced times, or it was "
            "saved by an older version of sobolev; sobolev.surrogates.rollout.rollout goes from tensors to tensors"
        )
    if "time" not in dataset.coords or dataset["time"].dtype.kind not in "iuf":
        raise ValueError(
            "the dataset has no coordinate 'time' of numbers to say when its frames are"
        )
    time = dataset["time"]
    if _other_units(time, meaning):
        raise ValueError(
            f"time is in units {time.attrs['units']!r}; the surrogate was trained on "
            f"{meaning.provenance.data.time_units!r}"
        )
    return np.atleast_1d(np.asarray(time.values, dtype=np.float64)), interval


def _other_units(time: xr.DataArray, meaning: Meaning) -> bool:
    """Return whether the times are in other units than those of the training data; "hours since" a date,
    in whatever calendar, are hours."""
    units = time.attrs.get("units")
    trained = meaning.provenance.data.time_units
    if units is None or trained is None:
        return False
    return not same_units(str(units), trained) and str(units).partition(" since ")[0] != trained
