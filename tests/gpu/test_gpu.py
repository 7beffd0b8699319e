"""On a GPU everything gives what it gives on a CPU, and leaves it on the GPU."""

from __future__ import annotations

import copy
import math

import jaxtyping
import pytest
import torch
from support.operators import CASES, shallow
from support.placed import WORK
from torch import Tensor

from sobolev import Surrogate
from sobolev.certification import calibrate, certified, refine
from sobolev.datasets import (
    BurgersRecipe,
    DarcyRecipe,
    GrayScottRecipe,
    NavierStokesRecipe,
    OperatorDataModule,
    Recipe,
    ShallowWaterRecipe,
    open_dataset,
)
from sobolev.grids.streams import stream
from sobolev.operators import FNO, SpatioTemporalFNO, Trajectory
from sobolev.solvers import Darcy, Grid
from sobolev.training import OperatorModule, train

GPU = "cuda"
SINGLE, DOUBLE = 1e-4, 1e-9
"""Relative errors by which devices may differ."""
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU; torch sees none"),
    # what Lightning and torch say of themselves, in code that is not ours
    pytest.mark.filterwarnings("default"),
]
RECIPES: dict[str, Recipe] = {
    "Burgers": BurgersRecipe(solver_resolution=128, steps=40),
    "Darcy, few nodes": DarcyRecipe(solver_resolution=33, tolerance=1e-12),
    "Darcy, many nodes": DarcyRecipe(solver_resolution=241, tolerance=1e-11),
    "Navier–Stokes": NavierStokesRecipe(viscosity=0.01, time=0.5, interval=0.1),
    "shallow water": ShallowWaterRecipe(hours=2, solver_resolution=32, stored_resolution=16),
    "Gray–Scott": GrayScottRecipe(
        length=1.0, time=40.0, u_diffusivity=2e-4, v_diffusivity=1e-4, solver_resolution=64,
        stored_resolution=None,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _full_precision(monkeypatch):
    """Convolutions would else round to TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def assert_equal_on(device: str, got: Tensor, expected: Tensor, tolerance: float) -> None:
    assert got.device.type == device
    assert distance(got.cpu(), expected) < tolerance


def distance(a: Tensor, b: Tensor) -> float:
    return float(((a - b).norm() / b.norm()).detach())


def assert_same_fields(got, expected, tolerance):
    """Compare data sets, whose fields lie on the CPU; drifts are rounding, and differ."""
    assert set(got.data_vars) == set(expected.data_vars)
    for name, wanted in expected.data_vars.items():
        if str(name).endswith("_drift"):
            continue
        gap = float(((got[name] - wanted) ** 2).sum() / (wanted**2).sum().clip(min=1e-30))
        assert math.sqrt(gap) < tolerance, name


@pytest.mark.parametrize("name", WORK)
def test_work_is_done_where_its_input_is(name):
    expected = WORK[name]("cpu")
    tolerance = DOUBLE if torch.finfo(expected.dtype).bits == 64 else SINGLE
    assert_equal_on(GPU, WORK[name](GPU), expected, tolerance)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_solve_on_it(name):
    recipe = RECIPES[name]
    inputs, grid = (
        recipe.draw([stream(0, i) for i in range(3)]),
        recipe.grid(recipe.solver_resolution),
    )
    assert_equal_on(GPU, recipe.solve(inputs.to(GPU), grid), recipe.solve(inputs, grid), DOUBLE)


@pytest.mark.parametrize("preconditioner", ["poisson", "multigrid"])
def test_darcy_keeps_its_tolerance_where_products_may_round_to_tf32(preconditioner):
    """A preconditioner of three digits costs iterations, not digits."""
    recipe, grid = DarcyRecipe(solver_resolution=129), Grid.dirichlet(129, 129)
    a = recipe.draw([stream(0, i) for i in range(2)])[:, 0].to(GPU)
    precise = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        found = Darcy(preconditioner=preconditioner).solution(a, grid)
    finally:
        torch.set_float32_matmul_precision(precise)
    assert float(found.residual.max()) <= 1e-10


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_operators_and_their_gradients_are_those_of_the_cpu(case):
    operator, u = case.build(), case.input()
    twin = copy.deepcopy(operator).to(GPU)
    for size in (None, case.other):
        there = twin(u.to(GPU), size=size)
        here = operator(u, size=size)
        assert_equal_on(GPU, there, here, SINGLE)
    there.square().mean().backward()
    here.square().mean().backward()
    gradients = [
        torch.cat([p.grad.flatten().cpu() for p in one.parameters() if p.grad is not None])
        for one in (twin, operator)
    ]
    assert distance(*gradients) < SINGLE


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_autocast_stays_near_full_precision(case):
    operator, u = case.build().to(GPU), case.input().to(GPU)
    with torch.autocast(GPU, dtype=torch.bfloat16):
        low = operator(u)
    assert distance(low.float(), operator(u)) < 0.05


def test_compiled_operators_are_those_that_were_written(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    case = CASES["FNO 2-d"]
    operator, u = shallow(case.build()).to(GPU), case.input().to(GPU)
    assert_equal_on(GPU, torch.compile(operator)(u), operator(u).cpu(), SINGLE)


def trained(operator, path, folder, accelerator, window="none", **options) -> Surrogate:
    """Train for a few steps, the same ones on each device."""
    given = {} if window == "none" else {"window": window}
    data = OperatorDataModule(path, batch_size=4, augment=True, **given)
    module = OperatorModule(operator, data, learning_rate=1e-3, **options)
    return train(module, data, folder, max_epochs=2, accelerator=accelerator)


def test_a_run_is_that_of_the_cpu_and_its_surrogate_moves(darcy_data, tmp_path):
    operator = FNO(1, 1, (4, 4), width=8, depth=2, boundary="dirichlet")
    here = trained(copy.deepcopy(operator), darcy_data, tmp_path / "cpu", "cpu")
    trained(operator, darcy_data, tmp_path / "gpu", "gpu")
    there = Surrogate.load(tmp_path / "gpu" / "surrogate")
    given = open_dataset(darcy_data, "test")
    assert_same_fields(there.predict(given), here.predict(given), 1e-2)
    moved = copy.deepcopy(there).to(GPU)
    for use in (
        lambda s: s.predict(given),
        lambda s: s.predict(given, resolution=33),
        lambda s: s.symmetrized().predict(given),
        lambda s: certified(s, given),
    ):
        assert_same_fields(use(moved), use(there), SINGLE)
    bounds = certified(moved, given, tolerance=1e-3)
    assert float(bounds["error_bound"].max()) <= 1e-3
    assert refine(moved, given)["residual_after"].max() < 2e-3


def test_flows_are_trained_rolled_out_and_certified(flow_data, tmp_path):
    operator = Trajectory(
        SpatioTemporalFNO(1, 1, modes=(3, 3, 2), width=4, depth=2, latent_steps=4), 2, 4
    )
    options = {"noise": 0.01, "noise_spectrum": "pink", "conserve": True}
    there = trained(operator, flow_data, tmp_path / "gpu", "gpu", (2, 4), **options)
    here = Surrogate.load(tmp_path / "gpu" / "surrogate")
    there = there.to(GPU)
    given = open_dataset(flow_data, "test").isel(time=slice(0, 2))
    assert_same_fields(there.rollout(given, 6), here.rollout(given, 6), 1e-3)
    data = OperatorDataModule(flow_data, window=(2, 4))
    for one in (there, here):
        calibrate(one, data, quantile=0.6, split="test")
    assert_same_fields(certified(there, given), certified(here, given), 1e-3)
    assert_same_fields(refine(there, given), refine(here, given), 1e-2)


def test_a_run_in_bf16_ends_in_a_surrogate_of_float32(burgers_data, tmp_path):
    data = OperatorDataModule(burgers_data, batch_size=8)
    module = OperatorModule(FNO(1, 1, (4,), width=8, depth=2), data, learning_rate=1e-2)
    surrogate = train(
        module, data, tmp_path / "run", max_epochs=20, accelerator="gpu", precision="bf16-mixed"
    )
    assert {p.dtype for p in surrogate.parameters()} == {torch.float32}
    prediction = surrogate.predict(open_dataset(burgers_data, "test"))
    truth = open_dataset(burgers_data, "test")["velocity"]
    assert float(((prediction["velocity"] - truth) ** 2).sum() / (truth**2).sum()) < 0.25
