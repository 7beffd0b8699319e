"""The meaning of a foreign file: what the user says of it, and what its reader found."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from jaxtyping import Float, Shaped

from sobolev.datasets.layouts.exporting import reversed_space
from sobolev.datasets.store.manifest import ERROR, STATUS
from sobolev.grids import AbstractGrid, Axis, Grid
from sobolev.grids.variables import Parameter, Variable

_ASKED = {
    "boundary": "boundary='periodic', 'dirichlet' (nodes from border to border) or 'neumann' (cell centres)",
    "length": "length=",
}
_RESERVED = {"sample", "time", "x", "y", "z", "lat", "lon", STATUS, ERROR}


@dataclass(frozen=True)
class UserWords:
    """The user's words about a file."""

    boundary: str | Mapping[str, str] | None
    length: float | Mapping[str, float] | None
    without: list[str]

    @property
    def said(self) -> dict[str, Any]:
        """All that was said, for the recipe."""
        plain = {k: dict(v) if isinstance(v, Mapping) else v for k, v in vars(self).items()}
        return {k: v for k, v in plain.items() if v not in (None, [], (), {})}

    @property
    def of_grid(self) -> bool:
        return self.boundary is not None or self.length is not None

    def check(self, layout: str, grid: AbstractGrid) -> None:
        """Refuse what would go unheard."""
        if self.without and layout != "well":
            raise ValueError(f"without is for files of The Well; {layout} has nothing to leave out")
        if self.of_grid and not isinstance(grid, Grid):
            raise ValueError("boundary and length are for axes; this file's fields lie on a sphere")
        for what, given in (("boundary", self.boundary), ("length", self.length)):
            if isinstance(given, Mapping) and (unknown := set(given) - set(grid.dims)):
                raise ValueError(f"{what} names the axes {sorted(unknown)}; there are {grid.dims}")

    def axis(
        self, name: str, size: int, boundary: str | None, length: float | None, why: str
    ) -> Axis:
        """Return an axis without coordinates, from 0; ``why`` its boundary or length may be None."""
        kind = self._known("boundary", name, boundary, why)
        return Axis(name, size, float(self._known("length", name, length, why)), boundary=kind)

    def measured(self, name: str, points: np.ndarray, boundary: str | None, why: str) -> Axis:
        """Return the axis that has nodes at these coordinates."""
        points = points.astype(np.float64)
        if not are_even(points):
            raise ValueError(
                f"the coordinates of axis {name!r} must increase in equal steps, got {short(points)}; "
                "sobolev has no grid for others"
            )
        kind = self._known("boundary", name, boundary, why)
        size = len(points)
        step = float(points[-1] - points[0]) / (size - 1)
        extent = step * (size - 1 if kind == "dirichlet" else size)
        start = float(points[0]) - (step / 2 if kind == "neumann" else 0.0)
        length = float(self._known("length", name, _snapped(extent, extent), why))
        return Axis(name, size, length, _snapped(start, extent), kind)

    def of_axis(self, what: str, axis: str) -> Any:
        """Return the ``boundary`` or ``length`` that was given for an axis; None where none was."""
        given = getattr(self, what)
        return given.get(axis) if isinstance(given, Mapping) else given

    def _known(self, what: str, axis: str, default: Any, why: str) -> Any:
        found = self.of_axis(what, axis)
        if found is None and default is None:
            raise ValueError(
                f"the {what} of axis {axis!r} is not known: {why}; pass {_ASKED[what]}"
            )
        return default if found is None else found


def are_even(points: Float[np.ndarray, "*node"]) -> bool:
    """Return whether coordinates rise in equal steps, but for rounding to float32."""
    if points.ndim != 1 or len(points) < 2 or not points[-1] > points[0]:
        return False
    # float32 rounds each point of a fine grid by much of a step
    ideal = np.linspace(points[0], points[-1], len(points))
    return bool(np.abs(points - ideal).max() < 1e-2 * (ideal[1] - ideal[0]))


def _snapped(value: float, extent: float) -> float:
    """Return ``value`` without the rounding of float32 coordinates, if a short multiple of 1 or π is near."""
    for unit in (1.0, math.pi):
        near = round(value / unit, 4) * unit
        if abs(near - value) <= 2e-6 * extent:
            return near
    return value


@dataclass(frozen=True)
class Lazy:
    """An array of which some samples are read at a time; ``shape`` is its shape in the file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[slice], np.ndarray]

    @classmethod
    def of(cls, values: Any) -> Lazy:
        return cls(values.shape, values.dtype, lambda samples: values[samples])

    def then(self, change: Callable[[np.ndarray], np.ndarray]) -> Lazy:
        return replace(self, read=lambda samples: change(self.read(samples)))

    def turned(self, ndim: int) -> Lazy:
        """Return the array with the axes of space in the opposite order."""
        return self.then(lambda values: reversed_space(values, ndim))


@dataclass(frozen=True)
class Foreign:
    """The content of a file, under our names, with space in our order of axes.

    Raises:
        ValueError: for times that are not finite, or that do not rise.
    """

    fields: dict[str, Lazy]
    grid: AbstractGrid
    inputs: Sequence[Variable]
    outputs: Sequence[Variable]
    times: Sequence[float] = ()
    time_units: str = "1"
    references: str = "not known"
    facts: dict[str, Any] = field(default_factory=dict)  # for the recipe
    parameters: Sequence[Parameter] = ()  # numbers of samples, (sample,) each
    mask: str | None = None  # the input that is 1 in the domain and 0 outside

    def __post_init__(self) -> None:
        times = np.array(self.times, np.float64)
        if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
            raise ValueError(
                f"the times of the frames must be finite and rise from one to the next, got {short(times)}; sort or "
                "mend them in the file"
            )

    @property
    def names(self) -> list[str]:
        return [v.name for v in (*self.parameters, *self.inputs, *self.outputs)]

    @property
    def count(self) -> int:
        return self.fields[self.outputs[0].name].shape[0]

    @property
    def dtype(self) -> np.dtype:
        """The float type that holds all fields without loss."""
        return np.result_type(np.float32, *(f.dtype for f in self.fields.values()))

    @property
    def kind(self) -> dict[str, Any]:
        """The parts that are equal in all files of one data set."""
        scalars = self.facts.get("parameters", {})
        return {"grid": self.grid, "fields": self.names, "times": self.times, "scalars": scalars}


def unknown(names: Sequence[str], where: str) -> list[Variable]:
    """Return variables of unknown meaning under names that NetCDF and our own coordinates leave free."""
    plain = [re.sub(r"\W", "_", name, flags=re.ASCII) for name in names]
    plain = [f"{name}_field" if name in _RESERVED else name for name in plain]
    return [
        Variable(n, f"{was} of {where}", "unknown") for n, was in zip(plain, names, strict=True)
    ]


def decimals(values: Any) -> list[float]:
    """Return each value as the shortest decimal number that it stands for: 0.1 for the float32 nearest
    to it."""
    return [float(str(value)) for value in np.ravel(values)]


def tensors_in(file: Path) -> dict[str, torch.Tensor | Any]:
    """Return what a .pt file holds by name, a single tensor by its type's; objects that could run code are
    refused.

    Raises:
        ValueError: for other objects than tensors and plain containers, and a damaged file.
    """
    try:
        content = torch.load(file, "cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # whatever a damaged or hostile file leads the unpickler to
        raise ValueError(
            f"{file} is no file of plain tensors, or it is damaged; it was not loaded further, since Python objects "
            "can run code"
        ) from error
    return content if isinstance(content, dict) else {type(content).__name__: content}


def as_array(t: Shaped[torch.Tensor, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
    """Return a tensor in a type that NumPy has."""
    dense = t.detach().to_dense()
    return (dense.float() if dense.dtype is torch.bfloat16 else dense).numpy()


def short(values: np.ndarray) -> str:
    return f"shape {values.shape}: " + ", ".join(f"{v:g}" for v in np.ravel(values)[:4]) + " …"


def wrong(file: Path, layout: str, found: Mapping[str, Any], expected: str) -> ValueError:
    shapes = {name: tuple(getattr(value, "shape", ())) for name, value in found.items()}
    listed = ", ".join(f"{k} {v}" if v else str(k) for k, v in shapes.items()) or "nothing"
    return ValueError(
        f"{file} does not have the layout {layout}: expected {expected}; found {listed}. Of others name the fields, "
        "by --outputs and --inputs (sobolev.datasets.store_fields)"
    )


def array(opened: h5py.File, name: str) -> h5py.Dataset:
    """Return an array that lies in the file itself: one may point to any other file of the reader's."""
    data = opened[name]
    if not isinstance(data, h5py.Dataset):
        raise ValueError(f"{opened.filename}: expected {name} to be an array, found a group")
    if data.file.filename != opened.filename or data.external or data.is_virtual:
        raise ValueError(f"{opened.filename}: {name} points into another file, which is refused")
    return data
