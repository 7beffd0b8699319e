"""The configurations that come along: each fits the data that its head names, and trains at small size."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
import yaml

from sobolev import Surrogate
from sobolev.commands.boosting_cli import boosted as boost_command
from sobolev.commands.train import trained as train
from sobolev.datasets import (
    HoledDarcyRecipe,
    NavierStokesRecipe,
    ShallowWaterRecipe,
    generate,
)
from sobolev.datasets.loading.windows import Window
from sobolev.datasets.recipes.presets import PRESETS
from sobolev.operators import operator_from
from sobolev.training.runs.configurations import CONFIGS, config_names

# What Lightning and torch warn about by themselves, in code that is not ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]
each_config = pytest.mark.parametrize("name", config_names())
SMALL = {"width": 4, "depth": 2, "levels": 2, "projection": 8, "grid": {"nlat": 16, "nlon": 32}}
"""For these arguments of an operator, wherever they stand."""


def text_of(name: str) -> str:
    return (CONFIGS / f"{name}.yaml").read_text()


def described(settings):
    """``class_path`` and ``init_args`` as ``operator_from`` takes them, at any depth."""
    if isinstance(settings, list):
        return [described(s) for s in settings]
    if not isinstance(settings, dict):
        return settings
    if "class_path" not in settings:
        return {key: described(value) for key, value in settings.items()}
    room, _, name = settings["class_path"].rpartition(".")
    assert room == "sobolev.operators"
    return {"class": name, "arguments": described(settings["init_args"])}


def shrunk(settings):
    """Settings of an operator, at any depth, with sizes that train in no time."""
    if isinstance(settings, list):
        return [shrunk(s) for s in settings]
    if not isinstance(settings, dict):
        return settings
    small = {key: SMALL.get(key, shrunk(value)) for key, value in settings.items()}
    if "modes" in small:
        small["modes"] = [min(m, 3) for m in small["modes"]]
    if "smoothings" in small:
        small["smoothings"] = small["smoothings"][: small["levels"]]
    return small


def parameters(name: str) -> int:
    with torch.device("meta"):
        operator = operator_from(described(yaml.safe_load(text_of(name))["model"]["operator"]))
    return sum(p.numel() for p in operator.parameters())


@each_config
def test_the_operator_fits_the_data_that_the_head_says_how_to_make(name):
    content = yaml.safe_load(text_of(name))
    found = re.search(
        r"# Data: sobolev generate (\S+) (\S+?)(?: --resolution (\d+))?\. ", text_of(name)
    )
    assert found, f"the head of {name}.yaml lacks the line that makes its data"
    preset, path, resolution = found.groups()
    recipe, data = PRESETS[preset], content["data"]
    assert data["path"] == path
    if resolution is not None:  # training may be on a coarser grid than the one stored
        assert int(resolution) % data["resolution"] == 0
    else:
        assert "resolution" not in data
    assert recipe.symmetries or not data.get("augment")
    window = Window(*data.get("window", (1, 1)))
    if recipe.times:
        assert window.span <= len(recipe.times)
        assert "# Protocol: " in text_of(name)
    outputs = window.outputs(recipe.outputs) if recipe.times else recipe.outputs
    given = [*recipe.parameters, *recipe.inputs]
    inputs = [*given, *(window.inputs(recipe.outputs) if recipe.times else [])]
    with torch.device("meta"):
        operator = operator_from(described(content["model"]["operator"]))
    assert (operator.in_channels, operator.out_channels) == (len(inputs), len(outputs))
    operator.check_grid(recipe.grid(data.get("resolution", recipe.default_resolution)))


@pytest.fixture(scope="module")
def small_data(tmp_path_factory, burgers_data, darcy_data):
    """A small data set for each folder that configurations name."""
    folder, samples = tmp_path_factory.mktemp("data"), {"train": 2, "valid": 1}
    flow = {"viscosity": 0.01, "time": 5.0, "interval": 0.1, "solver_resolution": 16}
    recipes = {
        "ns": NavierStokesRecipe(**flow),
        "ns-sym": NavierStokesRecipe(**flow, forcing="symmetric"),
        "swe": ShallowWaterRecipe(hours=2, solver_resolution=24, stored_resolution=16),
        "nu": replace(PRESETS["burgers-nu"], solver_resolution=32, steps=10),
        "holes": HoledDarcyRecipe(solver_resolution=33, stored_resolution=33),
    }
    drawn = {n: generate(r, folder / n, samples, progress=False) for n, r in recipes.items()}
    return {
        "data/burgers": burgers_data, "data/darcy": darcy_data, "data/ns-1e-3": drawn["ns"],
        "data/ns-1e-5": drawn["ns"], "data/ns-sym": drawn["ns-sym"], "data/swe": drawn["swe"],
        "data/burgers-nu": drawn["nu"], "data/darcy-holes": drawn["holes"],
    }  # fmt: skip


@pytest.mark.slow
@each_config
def test_trains_at_small_size(name, small_data, tmp_path, monkeypatch):
    content = yaml.safe_load(text_of(name))
    data, operator = content["data"], content["model"]["operator"]
    assert data["path"] in small_data, f"no small data set stands for {data['path']} of {name}.yaml"
    data["path"] = str(small_data[data["path"]])
    data.pop("resolution", None)
    data["batch_size"] = 8
    operator["init_args"] = shrunk(operator["init_args"])
    content["trainer"] = {
        "max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1, "accelerator": "cpu",
        "logger": False,  # drawing for it would take longer than all the rest
    }  # fmt: skip
    file = tmp_path / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content))
    boosted = operator["class_path"].endswith("SpecBoost")
    fit = boost_command if boosted else train
    run = fit(["--config", str(file), "--run", str(tmp_path / "run")])
    surrogate = Surrogate.load(run / "surrogate")
    assert type(surrogate.operator).__name__ == operator["class_path"].rpartition(".")[2]
    assert all(p.isfinite().all() for p in surrogate.parameters())


def test_the_pair_of_the_gfno_comparison_is_matched():
    """The counts of the paper's table; our G-FNO does without its position channel, one weight for
    each of 10 channels."""
    assert parameters("ns-sym-fno") == 928_661
    assert parameters("ns-sym-gfno") == 853_121 - 10
