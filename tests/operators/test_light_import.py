"""The room loads with torch and little else."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from sobolev.operators.layers.spherical_transforms import constant_when_compiled

HEAVY = ("torch._dynamo", "h5py", "lightning", "matplotlib", "onnx", "scipy", "sympy", "tensorly")
HEAVY += ("torch_harmonics", "torchmetrics", "xarray")


@pytest.mark.slow
def test_the_room_loads_neither_the_compiler_nor_what_trains_stores_or_draws():
    program = "import sys, sobolev.operators; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not set(HEAVY) & set(done.stdout.split())


def test_constants_are_marked_as_torch_marks_them():
    """Ours does not import the compiler to do so; a release that marks otherwise fails here."""

    def function() -> int:
        return 1

    def other() -> int:
        return 1

    ours, theirs = constant_when_compiled(function), torch.compiler.assume_constant_result(other)
    assert vars(ours) == vars(theirs) != {}
