"""Every command, on data of a recipe from outside the package: nothing asks which problem it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jaxtyping
import pytest
import torch
import xarray as xr
import yaml
from support import kuramoto_sivashinsky
from support.kuramoto_sivashinsky import KuramotoSivashinskyRecipe

from sobolev import Surrogate
from sobolev.__main__ import COMMANDS, main
from sobolev.datasets import Manifest, open_dataset, verify

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*treespec.*", "ignore:.*number of training batches.*"),
]
OWN = f"{kuramoto_sivashinsky.__file__}:KuramotoSivashinskyRecipe"
RUN = {
    "model": {
        "operator": {
            "class_path": "FNO",
            "init_args": {
                "in_channels": 1,
                "out_channels": 1,
                "modes": [8],
                "width": 12,
                "depth": 2,
            },
        },
        "conserve": True,
    },
    "data": {"batch_size": 8, "augment": True},
    "trainer": {"max_epochs": 2, "accelerator": "cpu", "logger": False},
}


def sobolev(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Data drawn from the file, and a run trained on them."""
    home = tmp_path_factory.mktemp("kuramoto")
    samples = [
        w
        for split, n in (("train", 8), ("valid", 2), ("test", 3))
        for w in ("--samples", f"{split}={n}")
    ]
    assert (
        sobolev("generate", OWN, home / "data", *samples, "--resolution", 32, "--workers", 1) == 0
    )
    settings = {**RUN, "data": {**RUN["data"], "path": str(home / "data")}}
    (home / "ks.yaml").write_text(yaml.safe_dump(settings))
    assert sobolev("train", "--config", home / "ks.yaml", "--run", home / "run") == 0
    given = open_dataset(home / "data", "test").isel(time=[0])
    given.drop_vars(["status", "error_estimate"]).to_netcdf(home / "in.nc", engine="h5netcdf")
    return home


def test_its_file_names_it_and_none_other_is_imported(home):
    manifest = Manifest.read(home / "data")
    assert manifest.recipe["class"] == "kuramoto_sivashinsky:KuramotoSivashinskyRecipe"
    assert manifest.recipe["scales"] == [1.0, 2.0]
    with pytest.raises(ValueError, match="--recipes MODULE:CLASS"):
        verify(home / "data", redraw=1)


def test_generate_goes_on_and_verify_draws_again(home, capsys):
    assert sobolev("generate", OWN, home / "data", "--resume", "--workers", 1) == 0
    assert sobolev("verify", home / "data", "--redraw", 1, "--recipes", OWN) == 0
    assert "every file is as it was written" in capsys.readouterr().out


def test_evaluate_rolls_out_and_counts_what_it_cost(home):
    words = ("--data", home / "data", "--recipes", OWN, "--resolution", 32, "--resolution", 64)
    assert sobolev("evaluate", home / "run", *words, "--out", home / "report") == 0
    found = json.loads((home / "report" / "evaluation.json").read_text())
    assert [score["resolution"] for score in found["scores"]] == [32, 64]
    assert found["rollouts"]["predicted_frames"] == 6
    paid = found["break_even"]
    assert paid is not None, found["no_break_even"]
    assert any(s["setting"].startswith("step") for s in paid["tried"])
    assert "Navier–Stokes" in found["no_certificates"]
    assert (home / "report" / "report.html").is_file()


def test_without_its_name_evaluate_says_what_it_cannot_know(home):
    words = ("--data", home / "data", "--out", home / "unnamed")
    assert sobolev("evaluate", home / "run", *words) == 0
    found = json.loads((home / "unnamed" / "evaluation.json").read_text())
    assert "not drawn from a recipe of sobolev" in found["no_break_even"]


def test_predict_rollout_and_symmetrised_averages(home):
    assert sobolev("predict", home / "run", home / "in.nc", home / "out.nc", "--symmetrize") == 0
    found = xr.open_dataset(home / "out.nc", engine="h5netcdf")
    averaged = Surrogate.load(home / "run").symmetrized()
    assert averaged.symmetries == ("odd reflection", "shifts")
    given = xr.open_dataset(home / "in.nc", engine="h5netcdf")
    mirrored = -given.height.isel(x=-torch.arange(32).numpy() % 32).values
    turned = averaged.predict(given.assign(height=(given.height.dims, mirrored)))
    assert (
        abs(turned.height.values + found.height.isel(x=-torch.arange(32).numpy() % 32).values).max()
        < 1e-5
    )
    rolled = Surrogate.load(home / "run").rollout(given, 4)
    drift = rolled.height.mean("x") - given.height.isel(time=0, drop=True).mean("x")
    assert abs(drift).max() < 1e-5  # the integral is kept


def test_what_its_equation_does_not_offer_is_refused_in_words(home, capsys, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as where sobolev is used
    for words, message in (
        (("predict", home / "run", home / "in.nc", home / "c.nc", "--certify"), "Navier–Stokes"),
        (("calibrate", home / "run", "--data", home / "data"), "Navier–Stokes"),
        (("refine", home / "run", home / "in.nc", home / "r.nc"), "can be refined"),
    ):
        assert sobolev(*words, "--recipes", OWN) == 2
        assert message in capsys.readouterr().err
        assert sobolev(*words) == 2
        assert "--recipes kuramoto_sivashinsky:KuramotoSivashinskyRecipe" in capsys.readouterr().err


def test_show_export_and_import(home, capsys):
    assert sobolev("show", home / "data", "--out", home / "figures", "--animation", "none") == 0
    assert sobolev("export", home / "data", home / "well", "--to", "well") == 0
    capsys.readouterr()
    assert sobolev("import", home / "well", home / "again", "--from", "well") == 0


def test_boost_and_onnx(home, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # torch.export traces sizes
    stage = {
        "class_path": "FNO",
        "init_args": {**RUN["model"]["operator"]["init_args"], "modes": [4]},
    }
    boosted = yaml.safe_load((home / "ks.yaml").read_text())
    boosted["model"]["operator"] = {
        "class_path": "SpecBoost",
        "init_args": {"stages": [stage, stage]},
    }
    (home / "boost.yaml").write_text(yaml.safe_dump(boosted))
    assert (
        sobolev("boost", "--config", home / "boost.yaml", "--run", home / "boost", "--epochs", 1)
        == 0
    )
    assert Surrogate.load(home / "boost").conserved
    assert sobolev("onnx", home / "run", home / "ks.onnx") == 0


def test_its_parameters_are_listed_and_set(home, tmp_path, capsys):
    assert sobolev("recipes", OWN) == 0
    assert "interval" in capsys.readouterr().out
    words = ("--samples", "train=1", "--set", "frames=2", "--set", "solver_resolution=32")
    assert sobolev("generate", OWN, tmp_path / "short", *words) == 0
    assert Manifest.read(tmp_path / "short").recipe["frames"] == 2


def test_no_command_is_forgotten():
    """All but the demo, which has problems of its own, and new, which reads none."""
    source = Path(__file__).read_text()
    names = {module.__name__.rpartition(".")[2].partition("_")[0] for module in COMMANDS} - {
        "demo",
        "new",
    }
    assert not [name for name in names if f'"{name}"' not in source]


def test_the_solver_conserves_and_converges():
    """The mean is kept to rounding, and halving steps lets its error fall to a sixteenth, in float64."""
    recipe = KuramotoSivashinskyRecipe(frames=2)
    grid = recipe.grid(64)
    x = grid.points()[0] * 2 * torch.pi / 32
    u = (torch.sin(x) + 0.5 * torch.cos(2 * x))[None, None]
    ends = [replace(recipe, step=0.025 / 2**i).solve(u, grid)[0, 0, -1] for i in range(3)]
    assert abs(ends[2].mean() - u.mean()) < 1e-13
    ratio = (ends[0] - ends[1]).norm() / (ends[1] - ends[2]).norm()
    assert 12 < ratio < 20
