"""Every operator of the operators' table, saved, loaded and used to predict: bit for bit."""

from __future__ import annotations

import math
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
import xarray as xr
from support.operators import CASES, shallow

from sobolev import Axis, Grid, SphereGrid, Surrogate
from sobolev.grids.description import axis_coords
from sobolev.grids.variables import Variable
from sobolev.operators import SFNO, Operator, Planar, Trajectory

INPUTS = [Variable("force", "force", "N"), Variable("load", "load", "kg")]
OUTPUT = Variable("height", "height above ground", "m")
SCALES = {"force": (3.0, 2.0), "load": (0.5, 0.1), "height": (-10.0, 5.0)}
each_operator = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def surrogate_of(case, operator: Operator | None = None) -> Surrogate:
    """On the grid that the operator is built for, at the row's sizes."""
    operator = operator or case.build()
    for p in operator.parameters():  # as after training, when no layer is negligible
        torch.nn.init.normal_(p, 0.0, 0.2)
    grid = grid_for(operator, case.space)
    return Surrogate(operator, grid, INPUTS, [OUTPUT], SCALES).eval()


def grid_for(operator, sizes) -> Grid | SphereGrid:
    if isinstance(operator, SFNO):
        return operator.sphere.resized(*sizes)
    return SphereGrid(*sizes) if isinstance(operator, Planar) else flat(operator, sizes)


def flat(operator, sizes) -> Grid:
    kinds = operator.boundary or ["periodic"] * operator.ndim
    axes = zip("zyx"[-len(kinds) :], sizes, kinds, strict=True)
    return Grid(*(Axis(name, n, 2.0, boundary=kind) for name, n, kind in axes))


def dataset(grid) -> xr.Dataset:
    values = np.random.default_rng(0).standard_normal((2, 3, *grid.shape))
    fields = {
        v.name: (("sample", *grid.dims), SCALES[v.name][0] + SCALES[v.name][1] * u)
        for v, u in zip(INPUTS, values, strict=True)
    }
    return xr.Dataset(fields, axis_coords(grid))


@each_operator
def test_save_load_predict_is_bit_for_bit(case, tmp_path):
    surrogate = surrogate_of(case)
    again = Surrogate.load(surrogate.save(tmp_path / "surrogate"))
    assert again.grid == surrogate.grid
    assert (again.inputs, again.outputs) == ([*INPUTS], [OUTPUT])
    for sizes in (case.space, case.other):
        data = dataset(surrogate.grid.resized(*sizes))
        expected, found = surrogate.predict(data), again.predict(data)
        xr.testing.assert_identical(found, expected)
        height = found["height"]
        assert height.shape == (3, *sizes)
        assert height.std() > 1e-3 * math.sqrt((height**2).mean())


ONE_OF_EACH = {type(case.build()): case for case in reversed(CASES.values())}
del ONE_OF_EACH[Trajectory]  # the graph of its operator


@pytest.mark.slow
@pytest.mark.parametrize("case", ONE_OF_EACH.values(), ids=lambda case: type(case.build()).__name__)
def test_operators_that_say_so_are_one_graph_at_every_resolution(case, tmp_path, monkeypatch):
    """``export_onnx`` compares its file with torch at three resolutions. One layer deep: the time that
    an export takes goes with the size of the graph."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    case = replace(case, space=case.other)  # fine enough for all modes
    surrogate = surrogate_of(case, shallow(case.build()))
    if not surrogate.operator.exportable:
        with pytest.raises(ValueError, match="cannot be exported"):
            surrogate.export_onnx(tmp_path / "s.onnx")
        return
    surrogate(case.input())  # weights kept from here must not become constants of the file
    assert surrogate.export_onnx(tmp_path / "s.onnx").is_file()
