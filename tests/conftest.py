"""Small data sets and trained runs that many tests share."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import beartype

# The import hook below would compile these anew in every process: they come first, from Python's cache.
import h5py  # noqa: F401
import jaxtyping
import lightning  # noqa: F401
import pytest
import scipy.io  # noqa: F401
import torch
import xarray  # noqa: F401
from torch.utils.tensorboard import SummaryWriter

# Every annotation of the package is checked while the tests run; an int may stand for a float, as PEP 484 has it.
_checks = types.ModuleType("sobolev_type_checks")
_checks.checked = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
sys.modules[_checks.__name__] = _checks
jaxtyping.install_import_hook("sobolev", f"{_checks.__name__}.checked")

from sobolev.datasets import (  # noqa: E402
    BurgersRecipe,
    DarcyRecipe,
    NavierStokesRecipe,
    generate,
)

SMALL_BURGERS = BurgersRecipe(solver_resolution=128, steps=40)
SMALL_DARCY = DarcyRecipe(solver_resolution=33)
SMALL_FLOW = NavierStokesRecipe(viscosity=0.01, time=0.7, interval=0.1, solver_resolution=16)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures for TensorBoard take longer than small trainings: only tests marked ``draws`` draw them."""
    if "draws" not in request.keywords:
        monkeypatch.setattr(SummaryWriter, "add_figure", lambda self, tag, figure, *_, **__: None)


@pytest.fixture(scope="session")
def burgers_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training, 4 validation and 6 test fields at 64 of 128 nodes."""
    path = tmp_path_factory.mktemp("data") / "burgers"
    samples = {"train": 24, "valid": 4, "test": 6}
    return generate(SMALL_BURGERS, path, samples, resolution=64, progress=False)


@pytest.fixture(scope="session")
def darcy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 training and 4 test fields at 17² of 33² nodes; no validation split."""
    path = tmp_path_factory.mktemp("data") / "darcy"
    return generate(SMALL_DARCY, path, {"train": 20, "test": 4}, resolution=17, progress=False)


@pytest.fixture(scope="session")
def flow_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training and 3 test trajectories of 8 frames at 16²."""
    path = tmp_path_factory.mktemp("data") / "flow"
    return generate(SMALL_FLOW, path, {"train": 12, "test": 3}, progress=False)
