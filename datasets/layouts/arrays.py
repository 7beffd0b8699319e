"""Files of plain arrays without a grid: neuralop's .pt, and the FNO papers' MATLAB files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import torch

from sobolev.datasets.layouts.foreign import (
    Foreign,
    Lazy,
    UserWords,
    array,
    as_array,
    decimals,
    tensors_in,
    unknown,
    wrong,
)
from sobolev.datasets.recipes.burgers import BurgersRecipe
from sobolev.datasets.recipes.darcy import DarcyRecipe
from sobolev.datasets.recipes.navier_stokes import NavierStokesRecipe
from sobolev.grids import Axis, Grid
from sobolev.grids.variables import Variable

_FNO = BurgersRecipe.references


def read_neuralop(file: Path, meaning: UserWords, stack: ExitStack) -> Foreign:
    found = tensors_in(file)
    pair = [_as_lazy(t) for key in "xy" if isinstance(t := found.get(key), torch.Tensor)]
    if len(pair) < 2 or pair[0].shape != pair[1].shape or len(pair[0].shape) not in (2, 3):
        expected = "a dictionary of tensors x and y of one shape (sample, [1,] x[, y])"
        raise wrong(file, "neuralop", found, expected)
    if more := [name for name in found if name not in ("x", "y")]:
        raise ValueError(
            f"{file} holds {', '.join(map(str, more))} beside x and y, which neuralop's layout does not know; name the "
            "fields that you want by --inputs and --outputs"
        )
    axes = _axes(meaning, pair[0], None, None, "a .pt file holds no coordinates")
    return _pair(pair, unknown(["input", "output"], file.name), axes)


def _as_lazy(t: torch.Tensor) -> Lazy:
    """Return a tensor without an axis for a single channel."""
    values = as_array(t)
    return Lazy.of(values[:, 0] if values.ndim > 2 and values.shape[1] == 1 else values)


def _axes(
    meaning: UserWords, values: Lazy, boundary: str | None, length: float | None, why: str = ""
) -> list[Axis]:
    sizes = zip("xy", values.shape[1:], strict=False)
    return [meaning.axis(name, size, boundary, length, why) for name, size in sizes]


def _pair(
    pair: Sequence[Lazy], variables: Sequence[Variable], axes: list[Axis], references: str = "not known", **facts: Any
) -> Foreign:  # fmt: skip
    """Return an input and an output on axes that come x first."""
    fields = {v.name: f.turned(len(axes)) for v, f in zip(variables, pair, strict=True)}
    grid = Grid(*axes[::-1])
    return Foreign(fields, grid, variables[:1], variables[1:], references=references, facts=facts)


def read_mat(file: Path, meaning: UserWords, stack: ExitStack) -> Foreign:
    """Read a MATLAB file; its problem is known by the names of the arrays and their numbers of axes."""
    arrays = _arrays(file, stack)
    ranks = {name: len(values.shape) for name, values in arrays.items()}
    if ranks.get("a") == 3 and ranks.get("u") == 4 and "t" in ranks:
        return _navier_stokes(file, arrays, meaning)
    recipe: type[BurgersRecipe | DarcyRecipe]
    if ranks.get("coeff") == ranks.get("sol") == 3:
        recipe = DarcyRecipe
        pair = [arrays["coeff"], arrays["sol"]]
        axes = _axes(meaning, pair[0], "neumann", 1.0)
        facts: dict[str, Any] = {
            "note": "the published fields were solved for on nodes, interpolated to cell centres and transposed; the "
            "pressure does not vanish on the border"
        }
    elif ranks.get("a") == ranks.get("u") == 2:
        recipe = BurgersRecipe
        pair = [arrays["a"], arrays["u"]]
        why = "the papers disagree, (0, 1) in ICLR 2021 and (0, 2π) in JMLR 2023; viscosity 0.1 fits 2π"
        axes = _axes(meaning, pair[0], "periodic", None, why)
        facts = {"time": 1.0}
    else:
        expected = "a and u (Burgers), coeff and sol (Darcy), or a, u and t (Navier–Stokes)"
        raise wrong(file, "fno-mat", arrays, expected)
    if pair[0].shape != pair[1].shape:
        raise ValueError(
            f"{file}: expected two arrays of one shape, got {pair[0].shape} and {pair[1].shape}"
        )
    return _pair(pair, [*recipe.inputs, *recipe.outputs], axes, _FNO, **facts)


def _navier_stokes(file: Path, arrays: dict[str, Lazy], meaning: UserWords) -> Foreign:
    a = arrays["a"]
    u = arrays["u"]
    times = decimals(arrays["t"].read(slice(None)))
    if u.shape != (wanted := (*a.shape, len(times))):
        raise ValueError(
            f"{file}: expected u of shape (sample, x, y, time) = {wanted} by a and t, got {u.shape}"
        )
    if not times[0] > 0:
        raise ValueError(
            f"{file}: a is the field at time 0, so that t must begin later, got {times[0]}"
        )

    def read(samples: slice) -> np.ndarray:
        frames = np.concatenate([a.read(samples)[..., None], u.read(samples)], axis=-1)
        return frames.transpose(0, 3, 2, 1)

    (vorticity,) = NavierStokesRecipe.outputs
    fields = {vorticity.name: Lazy(u.shape, np.result_type(a.dtype, u.dtype), read)}
    grid = Grid(*_axes(meaning, a, "periodic", 1.0)[::-1])
    return Foreign(fields, grid, [], [vorticity], [0.0, *times], references=_FNO)


def _arrays(file: Path, stack: ExitStack) -> dict[str, Lazy]:
    """Return the arrays of a file. MATLAB 7.3 stores the axes the other way round; older files are read as
    a whole."""
    if h5py.is_hdf5(file):
        opened = stack.enter_context(h5py.File(file, "r", locking=False))
        names = [name for name in opened if isinstance(opened.get(name), h5py.Dataset)]
        return {name: _transposed(array(opened, name)) for name in names}
    try:
        content = scipy.io.loadmat(file)
    except Exception as error:  # whatever a damaged file leads scipy to
        raise ValueError(f"{file} cannot be read as a MATLAB file: {error}") from error
    return {name: Lazy.of(v) for name, v in content.items() if not name.startswith("__")}


def _transposed(data: h5py.Dataset) -> Lazy:
    return Lazy(data.shape[::-1], data.dtype, lambda samples: data[..., samples].transpose())
