"""NumPy's numbers are numbers in every room, and leave it as Python's: files are JSON and YAML."""

from __future__ import annotations

import json
from dataclasses import fields

import jaxtyping
import numpy as np
import pytest
import torch
import yaml

from sobolev import Axis, Grid, SphereGrid, Surrogate
from sobolev.datasets import (
    BurgersRecipe,
    DarcyRecipe,
    Manifest,
    NavierStokesRecipe,
    OperatorDataModule,
    ShallowWaterRecipe,
    generate,
)
from sobolev.datasets.loading.windows import Window
from sobolev.grids.checks import plain
from sobolev.grids.description import describe_grid
from sobolev.grids.restriction import at_resolution
from sobolev.grids.variables import Parameter, Variable
from sobolev.operators import FNO, GFNO, SFNO, MgNO, operator_from
from sobolev.training import BandLoss, OperatorModule, SobolevLoss, train

I, F = np.int64, np.float32

# What Lightning and torch warn about by themselves, in code that is not ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """As for users, whose annotations nobody checks."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def of_python(value) -> bool:
    """Whether no NumPy number is left, at any depth."""
    if isinstance(value, dict):
        return all(of_python(v) for v in value.values())
    if isinstance(value, (list, tuple)):
        return all(map(of_python, value))
    return not isinstance(value, (np.generic, np.ndarray))


def test_plain_goes_to_every_depth():
    given = {I(1): (np.True_, [F(0.5), np.arange(2)]), "s": np.str_("a"), "none": None}
    assert plain(given) == {1: (True, [0.5, [0, 1]]), "s": "a", "none": None}
    assert of_python(plain(given))


@pytest.mark.parametrize(
    ("grid", "same"),
    [
        (lambda: Grid.periodic(I(8), length=F(2.0)), Grid.periodic(8, length=2.0)),
        (
            lambda: Grid.neumann(I(8), I(6), length=np.array([1.0, 2.0])),
            Grid.neumann(8, 6, length=(1.0, 2.0)),
        ),
        (lambda: Grid(Axis("x", I(8), F(0.5), F(0.25))), Grid(Axis("x", 8, 0.5, 0.25))),
        (lambda: SphereGrid(I(8), I(16), radius=F(2.0)), SphereGrid(8, 16, radius=2.0)),
        (lambda: at_resolution(Grid.periodic(8, 8), I(4)), Grid.periodic(4, 4)),
        (lambda: at_resolution(Grid.periodic(8, 8), np.array([4, 6])), Grid.periodic(4, 6)),
    ],
)
def test_grids(grid, same):
    assert grid() == same
    assert json.dumps(describe_grid(grid())) == json.dumps(describe_grid(same))


@pytest.mark.parametrize(
    ("operator", "same"),
    [
        (lambda: FNO(I(1), I(1), modes=np.array([4]), width=I(8)), FNO(1, 1, modes=(4,), width=8)),
        (
            lambda: GFNO(
                I(2), I(2), modes=[I(3), I(3)], width=I(4), vectors={"in": [(I(0), I(1))]}
            ),
            GFNO(2, 2, modes=[3, 3], width=4, vectors={"in": [[0, 1]]}),
        ),
        (
            lambda: MgNO(1, 1, levels=I(2), width=I(4), smoothings=[I(1), (I(2), I(0))]),
            MgNO(1, 1, levels=2, width=4, smoothings=[1, (2, 0)]),
        ),
        (
            lambda: SFNO(1, 1, grid=SphereGrid(8, 16), width=I(4), depth=I(1)),
            SFNO(1, 1, grid=SphereGrid(8, 16), width=4, depth=1),
        ),
    ],
    ids=["fno", "gfno", "mgno", "sfno"],
)
def test_operators(operator, same):
    description = json.loads(json.dumps(operator().description))
    assert description == json.loads(json.dumps(same.description))
    assert of_python(operator().configuration)
    found = operator_from(description, ()).state_dict()
    assert {k: v.shape for k, v in found.items()} == {
        k: v.shape for k, v in same.state_dict().items()
    }


@pytest.mark.parametrize(
    "recipe",
    [
        lambda: BurgersRecipe(viscosity=F(0.1), steps=I(10), solver_resolution=I(64)),
        lambda: DarcyRecipe(solver_resolution=I(17), low=F(3.0)),
        lambda: NavierStokesRecipe(solver_resolution=I(16), viscosity=F(1e-3)),
        lambda: ShallowWaterRecipe(solver_resolution=I(16), hours=I(2)),
    ],
    ids=["burgers", "darcy", "navier-stokes", "shallow water"],
)
def test_recipes(recipe):
    made = recipe()
    assert of_python({f.name: getattr(made, f.name) for f in fields(made)})
    assert json.loads(json.dumps(made.configuration())) == made.configuration()


def test_a_recipe_whose_parameters_differ():
    varied = Parameter("viscosity", "viscosity", "1", F(0.25), F(0.5))
    made = BurgersRecipe(steps=10, solver_resolution=64, parameters=(varied,))
    assert (varied.low, type(varied.low)) == (0.25, float)
    assert json.loads(json.dumps(made.configuration())) == made.configuration()


def test_a_data_set_a_run_and_a_surrogate(tmp_path):
    recipe = BurgersRecipe(solver_resolution=64, steps=10)
    path = generate(
        recipe, tmp_path / "data", {"train": I(6), "test": I(2)}, resolution=I(16), seed=I(3),
        workers=I(1), progress=False,
    )  # fmt: skip
    same = generate(
        recipe, tmp_path / "same", {"train": 6, "test": 2}, resolution=16, seed=3, progress=False
    )
    assert Manifest.read(path).digest == Manifest.read(same).digest
    data = OperatorDataModule(
        path, I(2), resolution=I(8), train_samples=I(4), valid_fraction=F(0.25), seed=I(1),
        workers=I(0),
    )  # fmt: skip
    module = OperatorModule(
        FNO(1, 1, modes=(I(3),), width=I(2), depth=1), data, learning_rate=F(1e-3)
    )
    surrogate = train(
        module, data, tmp_path / "run", patience=I(3), ema=F(0.5), max_epochs=I(1),
        accelerator="cpu", enable_progress_bar=False,
    )  # fmt: skip
    settings = yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text())
    assert settings["trainer"]["max_epochs"] == 1
    assert settings["patience"] == 3
    assert of_python(surrogate.provenance.to_json())
    assert Surrogate.load(tmp_path / "run").provenance == surrogate.provenance


def test_windows_provenance_and_losses(tmp_path):
    assert Window(I(2), I(1), I(3)) == Window(2, 1, 3)
    assert type(Window(I(2)).history) is int
    u = Variable("u", "u", "1")
    record = {"note": F(1), "data": {"seed": I(3), "interval": F(0.5), "window": [I(1), 1, 1]}}
    operator = FNO(1, 1, modes=(4,), width=4)
    surrogate = Surrogate(operator, Grid.periodic(16), [u], [u], {"u": (F(0), F(1))}, record)
    surrogate.record(training={"seconds": F(2.0), "epochs": I(3)})
    again = Surrogate.load(surrogate.save(tmp_path / "s"))
    assert again.provenance == surrogate.provenance
    assert again.provenance.training.epochs == 3
    grid = Grid.periodic(16)
    p, y = torch.randn(2, 1, 16), torch.randn(2, 1, 16)
    loss = BandLoss(grid, np.array([20.0]), np.array([0.25, 0.75])) + F(0.5) * SobolevLoss(
        grid, I(1)
    )
    same = BandLoss(grid, [20.0], [0.25, 0.75]) + 0.5 * SobolevLoss(grid, 1)
    assert torch.allclose(loss(p, y), same(p, y))


@pytest.mark.parametrize("value", [np.True_, True, F(2.0), np.nan, "8", I(0)])
def test_what_is_no_count_is_still_refused(value):
    with pytest.raises(ValueError, match="whole numbers of at least 1"):
        FNO(1, 1, modes=(4,), width=value)
    with pytest.raises(ValueError, match="whole number"):
        Grid.periodic(value)
