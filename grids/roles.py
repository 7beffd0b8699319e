"""What the dimensions of a stranger's dataset are, as names, units and attributes say.

See https://cfconventions.org.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import xarray as xr

_ROLES = {
    "time": ("time", "t", "lead", "lead_time", "leadtime", "step", "prediction_timedelta"),
    "latitude": ("lat", "latitude"),
    "longitude": ("lon", "longitude"),
    "space": ("x", "y", "z", "projection_x_coordinate", "projection_y_coordinate"),
    "sample": (
        "sample", "samples", "run", "runs", "member", "members", "realization", "realisation", "ensemble", "batch",
        "case", "cases", "trajectory", "simulation", "number",
    ),
}  # fmt: skip
_STANDARD = {
    "latitude": "latitude", "longitude": "longitude", "time": "time", "forecast_period": "time",
    "forecast_reference_time": "time", "realization": "sample",
}  # fmt: skip
"""Roles by CF's standard names."""
_DURATION = re.compile(r"(?:second|minute|hour|day)s?|s|min|h")
"""Units of a time that counts from no date."""


def role(dataset: xr.Dataset, dim: str) -> str | None:
    """Return what a dimension is: ``time``, ``latitude``, ``longitude``, ``space`` or ``sample``; None where
    nothing tells.

    >>> role(xr.Dataset(coords={"when": ("when", [0, 6], {"units": "hours since 2000-01-01"})}), "when")
    'time'
    >>> role(xr.Dataset({"u": ("member", [1.0])}), "member")
    'sample'
    """
    coordinate = dataset.coords.get(dim)
    attrs: Mapping[str, Any] = {} if coordinate is None else coordinate.attrs
    standard = str(attrs.get("standard_name", ""))
    units = str(attrs.get("units", ""))
    if standard in _STANDARD:
        return _STANDARD[standard]
    if degrees := re.fullmatch(r"degrees?_?(north|N|east|E)", units):
        return "latitude" if degrees[1][0].lower() == "n" else "longitude"
    # datetimes of any calendar are objects or of NumPy's kind M
    dated = coordinate is not None and coordinate.dtype.kind in "MmO"
    if attrs.get("axis") == "T" or " since " in units or dated:
        return "time"
    named = [role for role, names in _ROLES.items() if dim.lower() in names]
    if not named and _DURATION.fullmatch(units):
        return "time"
    if not named and attrs.get("axis") in ("X", "Y", "Z"):
        return "space"
    return named[0] if named else None
