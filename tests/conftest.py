"""Small data sets that many tests share, and what holds in every test."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Check every annotation of the package.

    Not where workers do the tests: the process that hands them out imports nothing.
    """
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    # The import hook would compile these anew in every process: they come first, from Python's cache.
    import h5py  # noqa: F401
    import jaxtyping
    import lightning  # noqa: F401
    import scipy.io  # noqa: F401
    import support.annotations  # noqa: F401
    import xarray  # noqa: F401

    jaxtyping.install_import_hook("sobolev", "support.annotations.checked")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool | None, bool | None]:
    """Draw in tests that are marked ``draws`` and in the fixtures that they are the first to ask for, in no others:
    most of an evaluation's time is matplotlib's."""
    from support.drawing import undrawn

    with contextlib.nullcontext() if "draws" in item.keywords else undrawn():
        return (yield)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def burgers_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training, 4 validation and 6 test fields at 64 of 128 nodes."""
    from sobolev.datasets import BurgersRecipe, generate

    path = tmp_path_factory.mktemp("data") / "burgers"
    recipe = BurgersRecipe(solver_resolution=128, steps=40)
    samples = {"train": 24, "valid": 4, "test": 6}
    return generate(recipe, path, samples, resolution=64, progress=False)


@pytest.fixture(scope="session")
def darcy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 training and 4 test fields at 17² of 33² nodes; no validation split."""
    from sobolev.datasets import DarcyRecipe, generate

    path = tmp_path_factory.mktemp("data") / "darcy"
    recipe = DarcyRecipe(solver_resolution=33)
    return generate(recipe, path, {"train": 20, "test": 4}, resolution=17, progress=False)


@pytest.fixture(scope="session")
def flow_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training and 3 test trajectories of 8 frames at 16²."""
    from sobolev.datasets import NavierStokesRecipe, generate

    path = tmp_path_factory.mktemp("data") / "flow"
    recipe = NavierStokesRecipe(viscosity=0.01, time=0.7, interval=0.1, solver_resolution=16)
    return generate(recipe, path, {"train": 12, "test": 3}, progress=False)
