"""HDF5 files of The Well and of PDEBench, and what ``export`` noted in its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sobolev.datasets.layouts.exporting import DESCRIPTION, coordinates
from sobolev.datasets.layouts.foreign import (
    Foreign,
    Lazy,
    UserWords,
    array,
    decimals,
    short,
    unknown,
    wrong,
)
from sobolev.grids import AbstractGrid, Axis, Grid, SphereGrid
from sobolev.grids.description import grid_from
from sobolev.grids.variables import Variable

Points = dict[str, np.ndarray]
"""Coordinates by axis, in the file's order."""


def read_well(file: Path, meaning: UserWords, stack: ExitStack) -> Foreign:
    opened = stack.enter_context(h5py.File(file, "r", locking=False))
    groups = ("dimensions", "boundary_conditions", "t0_fields")
    if not all(group in opened for group in groups):
        raise wrong(file, "well", opened, ", ".join(groups))
    dims = _words(opened["dimensions"].attrs["spatial_dims"])
    lines = {dim: array(opened, f"dimensions/{dim}")[()] for dim in ["time", *dims]}
    if varying := [dim for dim, values in lines.items() if values.ndim != 1]:
        raise ValueError(
            f"{file}: {varying} differ from sample to sample; sobolev has one grid for all"
        )
    times = decimals(lines["time"])
    points = {dim: lines[dim] for dim in dims}
    static, moving = _well_fields(opened, points, len(times), meaning.without)
    facts = {"parameters": _well_scalars(opened, meaning.without)}
    theirs = _Theirs(opened, points, static, moving, times, facts)
    return theirs.foreign(meaning, lambda: _well_grid(opened, points, meaning))


def _well_fields(
    opened: h5py.File, points: Points, frames: int, without: Sequence[str]
) -> tuple[dict[str, Lazy], dict[str, Lazy]]:
    """Return every component of every field, those that stay and those that move.

    The parts of vectors and tensors have The Well's names.
    """
    names = [(order, name) for order in range(3) for name in opened.get(f"t{order}_fields", {})]
    there = {*opened.get("scalars", {}), *(name for _, name in names)}
    if absent := set(without) - there:
        raise ValueError(
            f"{opened.filename} has no {sorted(absent)} to leave out; there are {sorted(there)}"
        )
    dims = list(points)
    sizes = [len(values) for values in points.values()]
    lead = {"sample": int(np.ravel(opened.attrs["n_trajectories"])[0]), "time": frames}
    static: dict[str, Lazy] = {}
    moving: dict[str, Lazy] = {}
    for order, name in names:
        data = array(opened, f"t{order}_fields/{name}")
        parts = [len(dims)] * order
        axes = [n for axis, n in lead.items() if data.attrs[f"{axis}_varying"]]
        axes += [n for n, varies in zip(sizes, data.attrs["dim_varying"], strict=True) if varies]
        if data.shape != (wanted := (*axes, *parts)):
            raise ValueError(
                f"{opened.filename}: {name} should have shape {wanted}, got {data.shape}"
            )
        for part in np.ndindex(*parts) if name not in without else ():
            full = "_".join([name, "".join(dims[i] for i in part)]) if order else name
            if full in static | moving:
                raise ValueError(
                    f"{opened.filename}: two fields have one name, {full}; leave one out with without="
                )
            where = moving if data.attrs["time_varying"] else static
            where[full] = _component(data, part, lead["sample"], sizes)
            if dims != ["theta", "phi"]:
                where[full] = where[full].turned(len(dims))
    if not moving:
        raise ValueError(f"{opened.filename} has no field that varies in time, only {list(static)}")
    return static, moving


def _component(data: h5py.Dataset, part: tuple[int, ...], count: int, sizes: list[int]) -> Lazy:
    """Return ``(sample, [time,] *space)``, repeated along the axes that the file leaves out."""
    attrs = data.attrs
    moves = bool(attrs["time_varying"])

    def read(samples: slice) -> np.ndarray:
        values = data[samples] if attrs["sample_varying"] else data[()][None]
        values = values[(..., *part)]
        for axis, varies in enumerate(attrs["dim_varying"], start=1 + moves):
            values = values if varies else np.expand_dims(values, axis)
        shape = (samples.stop - samples.start, *values.shape[1 : 1 + moves], *sizes)
        return np.broadcast_to(values, shape)

    return Lazy((count, *sizes), data.dtype, read)


def _well_scalars(opened: h5py.File, without: Sequence[str]) -> dict[str, float]:
    """Return the constant scalars; refuse others, since our samples are fields."""
    found = {}
    for name in (name for name in opened.get("scalars", {}) if name not in without):
        data = array(opened, f"scalars/{name}")
        if data.size != 1 or data.attrs["sample_varying"] or data.attrs["time_varying"]:
            raise ValueError(
                f"{opened.filename}: the scalar {name!r} varies between samples or in time, which a sobolev data set "
                f"has no place for; pass without=[{name!r}] (--without {name}) to leave it out"
            )
        (found[name],) = decimals(data[()])
    return found


def _well_grid(opened: h5py.File, points: Points, meaning: UserWords) -> AbstractGrid:
    if set(points) == {"theta", "phi"}:
        rings = {dim: points[dim] for dim in ("theta", "phi")}
        for kind in ("legendre-gauss", "equiangular"):
            grid = SphereGrid(len(rings["theta"]), len(rings["phi"]), kind)
            if _lie_on(grid, rings):
                return grid
        raise ValueError(
            "expected the colatitudes of a legendre-gauss or an equiangular grid with poles and longitudes from 0, "
            f"got theta {short(rings['theta'])} and phi {short(rings['phi'])}"
        )
    if not set(points) <= {"x", "y", "z"}:
        raise ValueError(f"expected the axes x, y, z or theta and phi, got {', '.join(points)}")
    kinds = {
        dim: " ".join(_words(group.attrs["bc_type"])).lower()
        for group in opened["boundary_conditions"].values()
        for dim in _words(group.attrs["associated_dims"])
    }

    def measured(dim: str) -> Axis:
        kind = kinds.get(dim, "nothing")
        known = kind if kind == "periodic" else None
        return meaning.measured(dim, points[dim], known, f"the file says {kind!r}")

    return Grid(*(measured(dim) for dim in reversed(points)))


def read_pdebench(file: Path, meaning: UserWords, stack: ExitStack) -> Foreign:
    opened = stack.enter_context(h5py.File(file, "r", locking=False))
    expected = (
        "tensor (sample, time, x[, y]), x-coordinate[, y-coordinate], t-coordinate, nu for Darcy"
    )
    arrays = {key: array(opened, key) for key in ("nu", "tensor") if key in opened}
    if "tensor" not in arrays or arrays["tensor"].ndim not in (3, 4, 5):
        raise wrong(file, "pdebench", opened, expected)
    count, frames = arrays["tensor"].shape[:2]
    dims = "xyz"[: arrays["tensor"].ndim - 2]
    needed = [f"{dim}-coordinate" for dim in (dims if frames == 1 else dims + "t")]
    if missing := [key for key in needed if key not in opened]:
        raise wrong(file, "pdebench", opened, f"{expected}; {', '.join(missing)} is missing")
    points = {dim: array(opened, f"{dim}-coordinate")[()] for dim in dims}
    for key, lead in (("tensor", (count, frames)), ("nu", (count,))):
        wanted = (*lead, *(len(values) for values in points.values()))
        if key in arrays and arrays[key].shape != wanted:
            raise ValueError(
                f"{file}: by its coordinates {key} should have shape {wanted}, got {arrays[key].shape}"
            )
    times = decimals(array(opened, "t-coordinate")[()]) if frames > 1 else [0.0]
    if len(times) not in (frames, frames + 1):  # PDEBench's own files state one more
        raise ValueError(f"{file} has {frames} frames, but {len(times)} times in t-coordinate")
    static, moving = (
        {key: Lazy.of(arrays[key]).turned(len(dims)) for key in keys if key in arrays}
        for keys in (["nu"], ["tensor"])
    )
    theirs = _Theirs(opened, points, static, moving, times[:frames])
    darcy = "nu" in arrays and frames == 1
    return theirs.foreign(meaning, lambda: _pdebench_grid(points, darcy, meaning))


def _pdebench_grid(points: Points, darcy: bool, meaning: UserWords) -> Grid:
    def known(x: np.ndarray) -> str | None:
        if len(points) == 1:
            return "periodic"
        for kind, first in (("dirichlet", 0.0), ("neumann", 0.5 / len(x))):
            if darcy and np.allclose([x[0], x[-1]], [first, 1 - first], atol=1e-6):
                return kind
        return None

    why = "PDEBench's files do not say"
    return Grid(*(meaning.measured(d, points[d], known(points[d]), why) for d in reversed(points)))


def _lie_on(grid: AbstractGrid, points: Points) -> bool:
    """Return whether these are the nodes of ``grid``, but for rounding to float32."""
    sizes = grid.shape[::-1] if isinstance(grid, Grid) else grid.shape
    if [p.shape for p in points.values()] != [(n,) for n in sizes]:
        return False
    nodes = coordinates(grid)
    return list(nodes) == list(points) and all(
        np.allclose(nodes[dim], p, rtol=1e-5, atol=1e-5 * np.ptp(p)) for dim, p in points.items()
    )


def _noted(opened: h5py.File, points: Points) -> Foreign | None:
    """Return the notes of ``export``, without the fields; None for a file of others, or one whose grid
    was changed since."""
    try:
        content = json.loads(" ".join(_words(opened.attrs[DESCRIPTION])))
        inputs, outputs = (
            [Variable(*(str(v[k]) for k in ("name", "long_name", "units"))) for v in content[part]]
            for part in ("inputs", "outputs")
        )
        times = [float(t) for t in content["times"]]
        grid = grid_from(content["nodes"])
        own = Foreign({}, grid, inputs, outputs, times, str(content["time_units"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    plain = own.names == list(dict.fromkeys(v.name for v in unknown(own.names, "")))
    return own if plain and _lie_on(grid, points) else None


@dataclass(frozen=True)
class _Theirs:
    """A file's fields under its own names: those that stay, and those that move."""

    opened: h5py.File
    points: Points
    static: dict[str, Lazy]
    moving: dict[str, Lazy]
    times: list[float]
    facts: dict[str, Any] = field(default_factory=dict)

    def foreign(self, meaning: UserWords, grid_of: Callable[[], AbstractGrid]) -> Foreign:
        """Return the fields with our names and on our grid if we wrote them; ``grid_of`` finds the grid of
        others.

        A trajectory of a single frame is a steady field, one of two may be input and output.
        """
        own = _noted(self.opened, self.points)
        facts = self.facts
        grid = own.grid if own and not meaning.of_grid else grid_of()
        fields = self.static | self.moving
        if own and (renames := self._names_in(own)):
            facts = facts | {"stated": _stated(self.opened)}
        else:
            variables = unknown(list(fields), Path(self.opened.filename).name)
            renames = dict(zip(fields, (v.name for v in variables), strict=True))
            parts = variables[: len(self.static)], variables[len(self.static) :]
            own = Foreign({}, grid, *parts, self.times if len(self.times) > 1 else [], "unknown")
        fields = {renames[name]: f for name, f in fields.items()}
        if not own.times:
            initial = fields[own.outputs[0].name].then(lambda frames: frames[:, 0])
            last = {v.name: fields[v.name].then(lambda frames: frames[:, -1]) for v in own.outputs}
            fields = dict.fromkeys((v.name for v in own.inputs), initial) | fields | last
        return replace(own, fields=fields, grid=grid, facts=facts)

    def _names_in(self, own: Foreign) -> dict[str, str] | None:
        """Return our names of these fields if they are the ones that we wrote."""
        pair = len(self.times) == 2 and not own.times
        times = own.times or self.times[: 1 + pair]
        if len(times) != len(self.times) or not np.allclose(times, self.times):
            return None
        found: dict[str, str] = {}
        groups = (([] if pair else own.inputs, self.static), (own.outputs, self.moving))
        for variables, fields in groups:
            names = sorted(v.name for v in variables)
            if names != sorted(fields) and not len(names) == len(fields) == 1:
                return None
            found |= zip(sorted(fields), names, strict=True)
        return found if not pair or len(own.inputs) == len(own.outputs) == 1 else None


def _stated(opened: h5py.File) -> dict[str, str]:
    """Return the file's own words on the origin of its fields."""
    parts = ("recipe", "seed", "versions", "manifest_sha256")
    return {part: " ".join(_words(opened.attrs[part])) for part in parts if part in opened.attrs}


def _words(value: Any) -> list[str]:
    """Return the texts of an attribute: Python writes str, and C, Fortran and MATLAB bytes of fixed length,
    padded, even a single one as an array."""
    plain = (
        w.decode(errors="replace") if isinstance(w, bytes) else str(w) for w in np.ravel(value)
    )
    return [word.rstrip("\0 ") for word in plain]
