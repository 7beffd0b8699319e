"""Every command, with an equation and an operator from a folder of the user's, named on the command line."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import jaxtyping
import pytest
import torch
import xarray as xr
import yaml
from support.outside import NET, SOLVER

from sobolev import Surrogate
from sobolev.__main__ import main
from sobolev.datasets import Manifest, open_dataset

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*treespec.*", "ignore:.*number of training batches.*"),
]


def sobolev(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with both files, data drawn from one and a run of the other."""
    home = tmp_path_factory.mktemp("outside")
    (home / "ring_solver.py").write_text(SOLVER)
    (home / "ring_net.py").write_text(NET)
    importlib.invalidate_caches()
    samples = [w for s in ("train=8", "valid=2", "test=3") for w in ("--samples", s)]
    ring = f"{home / 'ring_solver.py'}:RingRecipe"
    assert sobolev("generate", ring, home / "data", *samples, "--workers", 1) == 0
    settings = {
        "model": {
            "operator": {"class_path": "UNet", "init_args": {"in_channels": 1, "out_channels": 1}}
        },
        "data": {"path": str(home / "data"), "batch_size": 4, "augment": True},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": False},
    }
    (home / "ring.yaml").write_text(yaml.safe_dump(settings))
    train = ("train", "--config", home / "ring.yaml", "--run", home / "run")
    assert sobolev(*train, "--operators", f"{home / 'ring_net.py'}:UNet") == 0
    given = open_dataset(home / "data", "test").drop_vars(["status", "error_estimate"])
    given.to_netcdf(home / "in.nc", engine="h5netcdf")
    return home


def own(home: Path, kind: str = "UNet") -> tuple[str, str]:
    return ("--operators", f"{home / 'ring_net.py'}:{kind}")


def test_the_class_stands_in_the_files_by_its_module(home):
    operator = yaml.safe_load((home / "run" / "config.yaml").read_text())["model"]["operator"]
    assert operator["class_path"] == "ring_net.UNet"
    saved = json.loads((home / "run" / "surrogate" / "surrogate.json").read_text())
    assert saved["operator"]["class"] == "ring_net:UNet"


def test_a_run_is_resumed_to_the_same_bits(home, capsys):
    """One that was stopped before it saved its surrogate, and one that is complete."""
    train = ("train", "--config", home / "ring.yaml", *own(home))
    before = Surrogate.load(home / "run", operators=[type_of(home)]).state_dict()
    shutil.rmtree(home / "run" / "surrogate")
    for _ in range(2):
        assert sobolev(*train, "--run", home / "run", "--resume") == 0
        assert "operators=[UNet]" in capsys.readouterr().out
        now = Surrogate.load(home / "run", operators=[type_of(home)]).state_dict()
        assert all(torch.equal(before[name], now[name]) for name in before)


def type_of(home: Path) -> type:
    from sobolev.commands.classes import named_class
    from sobolev.operators import Operator

    return named_class(own(home)[1], Operator)


def test_its_surrogate_is_judged_and_predicts(home):
    ring = f"{home / 'ring_solver.py'}:RingRecipe"
    words = ("--data", home / "data", "--recipes", ring, "--resolution", 32, "--resolution", 16)
    assert sobolev("evaluate", home / "run", *words, *own(home), "--no-solver-timing") == 0
    found = json.loads((home / "run" / "evaluation" / "evaluation.json").read_text())
    assert [score["resolution"] for score in found["scores"]] == [32, 16]
    words = (home / "in.nc", home / "out.nc", "--resolution", 48, *own(home))
    assert sobolev("predict", home / "run", *words) == 0
    assert dict(xr.open_dataset(home / "out.nc", engine="h5netcdf").sizes) == {"sample": 3, "x": 48}
    assert sobolev("verify", home / "data", "--recipes", ring, "--redraw", 1) == 0


def test_onnx_says_why_not(home, capsys):
    """An operator is exported if it says that it can be: ``exportable = True``."""
    assert sobolev("onnx", home / "run", home / "ring.onnx", *own(home)) == 2
    assert "UNet" in capsys.readouterr().err


def test_without_its_name_every_command_says_how_to_name_it(home, capsys):
    for words in (
        ("predict", home / "run", home / "in.nc", home / "no.nc"),
        ("evaluate", home / "run", "--data", home / "data"),
        ("onnx", home / "run", home / "ring.onnx"),
    ):
        assert sobolev(*words) == 2
        said = capsys.readouterr().err
        assert "operators=[UNet], or --operators ring_net:UNet" in said
        assert len(said.splitlines()) == 1


def test_a_configuration_imports_nothing(home, tmp_path, capsys):
    """Neither by the path of a class, nor nested, nor by an option of its own."""
    (home / "ring_trap.py").write_text("raise SystemExit('imported because a file says so')")
    inner = {"class_path": "ring_trap.Net"}
    outer = {"class_path": "SpecBoost", "init_args": {"stages": [inner]}}
    for operator in (inner, "ring_trap.Net", outer):
        settings = {"model": {"operator": operator}, "data": {"path": str(home / "data")}}
        (tmp_path / "trap.yaml").write_text(yaml.safe_dump(settings))
        assert sobolev("train", "--config", tmp_path / "trap.yaml", "--run", tmp_path / "run") == 2
        assert "add --operators ring_trap:Net" in capsys.readouterr().err
    settings = yaml.safe_load((home / "ring.yaml").read_text())
    settings["operators"] = own(home)[1]
    (tmp_path / "named.yaml").write_text(yaml.safe_dump(settings))
    assert sobolev("train", "--config", tmp_path / "named.yaml", "--run", tmp_path / "run") == 2
    assert "name your own operators on the command line" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Letters", "is no operator: a class derived from sobolev's Operator is needed"),
        ("Nothing", "none of that name"),
        ("Idle", "is not finished: it leaves forward, ndim undefined"),
    ],
)
def test_what_is_no_operator_is_refused_in_a_line(home, name, message, tmp_path, capsys):
    train = ("train", "--config", home / "ring.yaml", "--run", tmp_path / "run")
    assert sobolev(*train, *own(home, name)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("broken_net.py", "class UNet(:", "broken_net.py could not be imported: SyntaxError"),
        ("needy_net.py", "import no_such_module", "could not be imported: ModuleNotFoundError"),
        ("statistics.py", NET, "is hidden by another module of the name statistics"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named(home, file, text, message, tmp_path, capsys):
    (tmp_path / file).write_text(text)
    train = ("train", "--config", home / "ring.yaml", "--run", tmp_path / "run")
    assert sobolev(*train, "--operators", f"{tmp_path / file}:UNet") == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_boosts_are_made_of_it_too(home, monkeypatch):
    """Stages, their resumption and the comparison find the class."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    settings = yaml.safe_load((home / "ring.yaml").read_text())
    stage = settings["model"]["operator"]
    settings["model"]["operator"] = {
        "class_path": "SpecBoost",
        "init_args": {"stages": [stage] * 2},
    }
    (home / "boost.yaml").write_text(yaml.safe_dump(settings))
    boost = ("boost", "--config", home / "boost.yaml", "--run", home / "boost", *own(home))
    assert sobolev(*boost) == 0
    assert sobolev(*boost, "--resume", "--compare") == 0
    table = json.loads((home / "boost" / "comparison.json").read_text())
    assert table["single"]["operator"]["class_path"] == "ring_net.UNet"
    assert len(Surrogate.load(home / "boost", operators=[type_of(home)]).operator.stages) == 2
    assert Manifest.read(home / "data").recipe["times_of_day"] == [0.5, 1.0]
