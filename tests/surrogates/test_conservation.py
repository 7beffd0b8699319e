"""Integrals that predictions keep, whatever the operator says."""

from __future__ import annotations

import json
from dataclasses import replace

import jaxtyping
import lightning
import numpy as np
import onnxruntime
import pytest
import torch

from sobolev import Grid, SphereGrid, Surrogate
from sobolev.datasets import PRESETS, OperatorDataModule, generate
from sobolev.grids.variables import Variable
from sobolev.operators import FNO, SFNO
from sobolev.surrogates.files import meaning_digest
from sobolev.training import OperatorModule

HEAT = Variable("before", "heat before", "J"), Variable("after", "heat after", "J")
SCALES = {"before": (3.0, 2.0), "after": (-1.0, 5.0)}
SPHERE = SphereGrid(12, 24, radius=2.0)
CASES = [
    (Grid.periodic(16), lambda: FNO(1, 1, (4,), width=8, depth=2)),
    (Grid.neumann(7, 9), lambda: FNO(1, 1, (3, 2), width=8, depth=2, boundary="neumann")),
    (SPHERE, lambda: SFNO(1, 1, SPHERE, width=8, depth=2)),
]
each_grid = pytest.mark.parametrize(("grid", "operator"), CASES)


def surrogate_of(grid, operator, conserved):
    torch.manual_seed(0)
    built = operator()
    return Surrogate(built, grid, HEAT[:1], HEAT[1:], SCALES, conserved=conserved).double().eval()


@each_grid
@torch.no_grad()
def test_the_integral_is_the_inputs_on_every_grid_and_nothing_else_changes(grid, operator):
    plain, kept = (surrogate_of(grid, operator, c) for c in (None, {"after": "before"}))
    u = 4.0 + torch.randn(3, 1, *grid.shape, dtype=torch.float64)
    before = (u * grid.quadrature()).sum(tuple(range(2, u.ndim)))
    for sizes in (grid.shape, [2 * n for n in grid.shape]):
        weights = grid.resized(*sizes).quadrature()
        p, q = plain(u, size=sizes), kept(u, size=sizes)
        after = (q * weights).sum(tuple(range(2, u.ndim)))
        torch.testing.assert_close(after, before, rtol=1e-13, atol=0)
        missing = (before - (p * weights).sum(tuple(range(2, u.ndim)))) / weights.sum()
        assert missing.abs().min() > 0.1
        difference = (q - p) - missing.reshape(3, 1, *[1] * grid.ndim)
        assert difference.abs().max() < 1e-12


def test_the_file_keeps_it_and_a_wrong_one_is_named(tmp_path):
    grid, operator = CASES[0]
    kept = surrogate_of(grid, operator, {"after": "before"}).float()
    again = Surrogate.load(kept.save(tmp_path / "surrogate"))
    u = torch.randn(2, 1, 16)
    assert again.conserved == {"after": "before"}
    assert torch.equal(again(u), kept(u))
    meaning = json.loads((tmp_path / "surrogate" / "surrogate.json").read_text())
    assert meaning["conserved"] == {"after": "before"}
    for wrong in ({"after": "now"}, {"now": "before"}):
        with pytest.raises(ValueError, match="the outputs are after, the inputs before"):
            surrogate_of(grid, operator, wrong)
    meaning.pop("self_sha256")
    for damaged in (["after"], 3, {"after": 1}, {"after": ["before"]}, {"later": "before"}):
        changed = {**meaning, "conserved": damaged}
        changed["self_sha256"] = meaning_digest(changed)
        (tmp_path / "surrogate" / "surrogate.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=r"surrogate\.json"):
            Surrogate.load(tmp_path / "surrogate")
    kelvin = Variable("after", "temperature after", "K")
    with pytest.raises(ValueError, match="in K cannot be that of before in J"):
        Surrogate(operator(), grid, HEAT[:1], [kelvin], SCALES, conserved={"after": "before"})


@pytest.fixture(scope="module")
def sphere(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "sphere"
    recipe = replace(PRESETS["swe-random"], hours=3, solver_resolution=16, stored_resolution=16)
    return generate(recipe, path, {"train": 2, "valid": 1, "test": 1}, progress=False)


@pytest.mark.slow
def test_what_the_recipe_declares_holds_in_its_own_data(sphere, flow_data, tmp_path):
    """Burgers' on the solver's own nodes: picking few of them folds modes onto the mean."""
    recipe = replace(PRESETS["burgers-fno"], solver_resolution=128)
    burgers = generate(recipe, tmp_path / "burgers", {"train": 4}, resolution=128, progress=False)
    for path in (sphere, flow_data, burgers):
        data = OperatorDataModule(path)
        (inputs, outputs), weights = data.pairs("train")[:], data.grid.quadrature()
        assert data.conserved
        for u, y in zip(inputs.unbind(1), outputs.unbind(1), strict=True):
            u, y = ((w.double() * weights).sum(tuple(range(1, u.ndim))) for w in (u, y))
            size = (outputs.double().abs() * weights).sum(tuple(range(2, outputs.ndim))).max()
            assert (u - y).abs().max() < 1e-6 * size


@pytest.mark.slow
def test_mass_is_kept_over_a_rollout_in_single_precision(sphere):
    """200 steps of an untrained network, damped so that it stays finite: drift of rounding alone."""
    data = OperatorDataModule(sphere, window=(1, 2))
    operator = SFNO(3, 3, data.grid, width=8, depth=2)
    module = OperatorModule(operator, data, conserve=True)
    assert module.surrogate.conserved == {
        f"{v.name}": data.inputs[i].name for i, v in enumerate(module.surrogate.outputs)
    }
    with torch.no_grad():
        operator.project.weight.mul_(1e-2)
        inputs = data.pairs("test")[:1][0]
        frames = module.surrogate.unrolled(inputs, 200)
    assert (frames[:, -1] - inputs).abs().amax((0, 2, 3)).min() > 0  # something has happened
    mass = (frames[:, :, 2].double() * data.grid.quadrature()).sum((-2, -1))
    first = (inputs[:, 2].double() * data.grid.quadrature()).sum((-2, -1))
    assert ((mass - first) / first).abs().max() < 1e-6


def test_work_stays_where_the_fields_are(sphere):
    data = OperatorDataModule(sphere)
    operator = SFNO(3, 3, data.grid, width=8, depth=2)
    module = OperatorModule(operator, data, conserve=True, noise=0.1, noise_spectrum="pink")
    module.trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    inputs = data.pairs("train")[:2][0]
    with torch.device("meta"):
        assert module.surrogate(module._noisy(inputs, 0)).device.type == "cpu"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_onnx_file_keeps_it_at_every_resolution(tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # sizes are symbols there
    grid = CASES[1][0]
    shallow = FNO(1, 1, (3, 2), width=8, depth=1, boundary="neumann")
    kept = surrogate_of(grid, lambda: shallow, {"after": "before"}).float()
    file = kept.export_onnx(tmp_path / "heat.onnx")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for sizes in (grid.shape, (24, 17)):
        u = np.random.default_rng(0).standard_normal((2, 1, *sizes)).astype(np.float32)
        (v,) = session.run(["outputs"], {"inputs": u})
        np.testing.assert_allclose(v.mean((2, 3)), u.mean((2, 3)), atol=1e-5)  # cells of one size


def test_a_mapping_for_other_data_and_what_is_refused(flow_data, tmp_path):
    flow = OperatorDataModule(flow_data, window=(2, 2))
    network = FNO(2, 2, modes=(3, 3), width=4, depth=1)
    for conserve in (True, {"vorticity": "vorticity"}):
        surrogate = OperatorModule(network, flow, conserve=conserve).surrogate
        last = flow.inputs[1].name
        assert surrogate.conserved == {v.name: last for v in surrogate.outputs}
    with pytest.raises(ValueError, match="trajectories conserve their quantities, vorticity"):
        OperatorModule(network, flow, conserve={"energy": "energy"})
    darcy = generate(
        replace(PRESETS["darcy-fno"], solver_resolution=9), tmp_path / "darcy", {"train": 2},
        progress=False,
    )  # fmt: skip
    data, network = OperatorDataModule(darcy), FNO(1, 1, (3, 3), width=4, boundary="dirichlet")
    with pytest.raises(ValueError, match="declares no conserved quantity"):
        OperatorModule(network, data, conserve=True)
