"""Recipes and operators that an installed package declares are there by name, and imported no sooner."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from support.outside import NET, SOLVER

from sobolev import Surrogate
from sobolev.__main__ import main
from sobolev.datasets import Manifest, generate, verify
from sobolev.operators import operator_from

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
]
ENTRIES = """\
[sobolev.recipes]
ring = ring_package.solver:RingRecipe
broken = ring_package.broken:Nothing
burgers-fno = ring_package.broken:Nothing
elsewhere = ring_package:RingRecipe
twice = ring_package.solver:RingRecipe

[sobolev.operators]
ring-net = ring_package.net:RingNet
broken = ring_package.broken:Nothing
"""
SAMPLES = {"train": 8, "valid": 2, "test": 2}


def sobolev(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """A folder of installed packages: one that is good but for its broken parts, and one that claims a name of
    the other."""
    packages = tmp_path_factory.mktemp("site")
    package = packages / "ring_package"
    package.mkdir()
    (package / "__init__.py").write_text("from ring_package.solver import RingRecipe\n")
    (package / "solver.py").write_text(SOLVER)
    (package / "net.py").write_text(NET.replace("UNet", "RingNet"))
    (package / "broken.py").write_text("raise RuntimeError('this package is broken')\n")
    declare(packages, "ring-package", ENTRIES)
    declare(packages, "rival", "[sobolev.recipes]\ntwice = rival:Other\n")
    return packages


@pytest.fixture
def site(packages, tmp_path, monkeypatch) -> Path:
    """A folder to work in, while the packages are installed. What was imported stays so: classes that have lost
    their module would confuse Lightning's command line in later tests."""
    monkeypatch.syspath_prepend(packages)
    return tmp_path


def declare(site: Path, name: str, entries: str) -> None:
    info = site / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(entries)


def test_listing_imports_nothing(site, capsys):
    before = set(sys.modules)
    assert sobolev("recipes") == 0
    told = capsys.readouterr().out
    assert "ring_package.solver:RingRecipe, declared by ring-package 1.2\n" in told
    assert "declared by ring-package 1.2, hidden by the preset above" in told
    assert not [name for name in {*sys.modules} - before if name.startswith("ring_package")]
    assert sobolev("recipes", "ring") == 0
    assert "times_of_day" in capsys.readouterr().out
    assert "ring_package.broken" not in sys.modules


def test_data_are_drawn_by_its_name_and_read_by_its_class(site):
    """The card says a command that draws the same; verification needs no --recipes."""
    assert sobolev("generate", "ring", site / "data", "--samples", "train=3", "--workers", 1) == 0
    assert Manifest.read(site / "data").recipe["class"] == "ring_package.solver:RingRecipe"
    assert verify(site / "data", redraw=2) == []
    assert "sobolev generate ring ." in (site / "data" / "README.md").read_text()
    again = ("generate", "ring", site / "data", "--resume", "--samples", "train=4", "--workers", 1)
    assert sobolev(*again) == 0
    assert Manifest.read(site / "data").requested == {"train": 4}
    assert sobolev("generate", "burgers-fno", site / "data", "--resume") == 2


def test_its_operator_is_trained_and_loaded_by_its_name(site, capsys):
    """In short or by its path, and nothing has to be named to read the surrogate."""
    generate("ring", site / "data", SAMPLES, progress=False)
    for path in ("RingNet", "ring_package.net.RingNet"):
        settings = {
            "model": {"operator": {"class_path": path, "init_args": {"in_channels": 1, "out_channels": 1}}},
            "data": {"path": str(site / "data"), "batch_size": 4},
            "trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": False},
        }  # fmt: skip
        (site / "ring.yaml").write_text(yaml.safe_dump(settings))
        run = ("train", "--config", site / "ring.yaml", "--run", site / path)
        assert sobolev(*run) == 0, capsys.readouterr().err
    saved = json.loads((site / path / "surrogate" / "surrogate.json").read_text())
    assert saved["operator"]["class"] == "ring_package.net:RingNet"
    assert type(Surrogate.load(site / path).operator).__module__ == "ring_package.net"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "ring-package 1.2 declares broken = ring_package.broken:Nothing in sobolev.recipes, which "
         "cannot be imported (RuntimeError: this package is broken); mend or uninstall it"),
        ("elsewhere", "but the class is defined as ring_package.solver:RingRecipe"),
        ("twice", "several packages declare twice: ring_package.solver:RingRecipe (ring-package 1.2), rival:Other"),
        ("rign", "did you mean 'ring'?"),
    ],
)  # fmt: skip
def test_what_is_no_good_is_named_and_breaks_no_other(site, name, message, capsys):
    assert sobolev("recipes", name) == 2
    assert message in capsys.readouterr().err
    assert sobolev("recipes", "ring") == 0
    assert sobolev("recipes", "burgers-fno") == 0


def test_a_file_that_names_a_broken_one_says_so(site):
    description = {"class": "ring_package.broken:Nothing", "arguments": {}}
    with pytest.raises(ValueError, match=r"declares broken = ring_package\.broken:Nothing in"):
        operator_from(description)
    with pytest.raises(ValueError, match="is not one of sobolev's operators"):
        operator_from({**description, "class": "ring_package.net:Idle"})
