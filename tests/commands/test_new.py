"""What ``sobolev new`` writes is good as written: it is linted, its tests pass, and the commands take it."""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import xarray as xr

from sobolev.__main__ import main
from sobolev.datasets import open_dataset

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*treespec.*", "ignore:.*number of training batches.*"),
]
RULES = "E,F,I,UP,B,SIM,C4,RUF,NPY,PT"


def sobolev(line: str) -> int:
    return main(shlex.split(line))


def next_commands(said: str) -> list[str]:
    """What the user is told to do, but for the tests."""
    return said.replace("\\\n", " ").strip().splitlines()[2:]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a new recipe and a new operator."""
    home = tmp_path_factory.mktemp("new")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert sobolev("new recipe fresh_heat") == 0
        assert sobolev("new operator fresh_net") == 0
    importlib.invalidate_caches()
    return home


@pytest.mark.slow
def test_its_own_tests_pass(home):
    run = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "."]
    done = subprocess.run(run, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "14 passed" in done.stdout


def test_it_is_linted_and_formatted(home):
    for words in (
        f"check --select {RULES} --ignore F722,RUF001,RUF002,RUF003 --line-length 120",
        "format --diff --line-length 100",
    ):
        run = [sys.executable, "-m", "ruff", *words.split(), "--isolated", "."]
        done = subprocess.run(run, cwd=home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_commands_that_it_prints_work(home, tmp_path, monkeypatch, capsys):
    """From the equation to predictions and a graph by the operator, as a user would go on."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # torch.export traces sizes
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert sobolev("new recipe hot_ring") == 0
    for line in next_commands(capsys.readouterr().out):
        small = line.replace("train=100", "train=8").replace("=20", "=2")
        assert sobolev(small.removeprefix("  sobolev ")) == 0, small
    capsys.readouterr()
    assert sobolev("new operator hot_net") == 0
    for line in next_commands(capsys.readouterr().out):
        small = line.replace("DATA", "data/hot_ring").replace("max_epochs 20", "max_epochs 1")
        more = " --model.operator.init_args.depth 1"  # the exporter takes time for each layer
        if " evaluate " in small:
            more = " --no-solver-timing --recipes hot_ring.py:HotRingRecipe"
        assert sobolev(small.removeprefix("  sobolev ") + more) == 0, small
    given = open_dataset("data/hot_ring", "test").drop_vars(["status", "error_estimate"])
    given.to_netcdf("in.nc", engine="h5netcdf")
    mine = "--operators hot_net.py:HotNet"
    assert sobolev(f"predict runs/hot_net in.nc out.nc --resolution 96 --symmetrize {mine}") == 0
    assert xr.open_dataset("out.nc", engine="h5netcdf").sizes["x"] == 96
    assert sobolev(f"onnx runs/hot_net hot.onnx {mine}") == 0
    described = json.loads(Path("runs/hot_net/surrogate/surrogate.json").read_text())["operator"]
    assert described["class"] == "hot_net:HotNet"


def test_nothing_is_overwritten(home, monkeypatch, capsys):
    """Neither file is touched where one of them is there."""
    monkeypatch.chdir(home)
    before = {file.name: file.read_bytes() for file in home.glob("*.py")}
    (home / "test_other.py").write_text("mine = True\n")
    for name in ("fresh_heat", "fresh_net", "other"):
        assert sobolev(f"new recipe {name}") == 2
        assert "is there already" in capsys.readouterr().err
    assert not (home / "other.py").exists()
    assert {name: (home / name).read_bytes() for name in before} == before
    (home / "test_other.py").unlink()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My-Net", "'My-Net' names no file to import from"),
        ("a/b", "names no file"),
        ("lambda", "names no file"),
        ("2d", "names no file"),
        ("torch", "Python has a module called torch already"),
    ],
)
def test_what_is_no_name_is_refused(name, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sobolev(f"new operator {name}") == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
