"""Loading a surrogate and predicting with it takes little more than torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from sobolev import Grid, Surrogate
from sobolev.grids.variables import Variable
from sobolev.operators import FNO

HEAVY = (
    "lightning",
    "torchmetrics",
    "tensorboard",
    "matplotlib",
    "sobolev.solvers",
    "torch._dynamo",
)
_PREDICT = """
import sys
import torch
before = set(sys.modules)
import numpy
import xarray
from sobolev import Surrogate
surrogate = Surrogate.load(sys.argv[1])
x = numpy.arange(16) / 16
given = xarray.Dataset({"u": ("x", numpy.sin(6 * x))}, {"x": x})
assert surrogate.predict(given).v.shape == (16,)
print(*(set(sys.modules) - before))
"""


@pytest.mark.slow
def test_predicting_loads_nothing_that_trains_draws_or_solves(tmp_path):
    names = Variable("u", "before", "1"), Variable("v", "after", "1")
    scales = {"u": (0.0, 1.0), "v": (0.0, 1.0)}
    with torch.random.fork_rng():
        operator = FNO(1, 1, modes=(4,), width=4, depth=1)
    Surrogate(operator, Grid.periodic(16), names[:1], names[1:], scales).save(tmp_path / "s")
    command = [sys.executable, "-c", _PREDICT, str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    loaded = set(done.stdout.split())
    found = [m for m in loaded if any(m == h or m.startswith(f"{h}.") for h in HEAVY)]
    assert not found
    assert "sobolev.surrogates.surrogate" in loaded
