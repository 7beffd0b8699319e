"""The documents are true: their Python and shell blocks run, the names and links in their prose lead somewhere.

A document's blocks run in order, in one namespace and one folder, where the data sets and surrogates lie that documents
speak of, all of them small. What is printed at full size is made small by the tables below and by nothing else, so
that a misspelt name, option or preset fails as it would for a reader.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jaxtyping
import numpy as np
import onnx
import pytest
import xarray as xr
from lightning.pytorch.cli import LightningCLI
from support.imports import ROOT

from sobolev.__main__ import main
from sobolev.datasets import (
    AllenCahnRecipe,
    BurgersRecipe,
    DarcyRecipe,
    GrayScottRecipe,
    NavierStokesRecipe,
    OperatorDataModule,
    ShallowWaterRecipe,
    generate,
    open_dataset,
)
from sobolev.datasets.recipes.presets import PRESETS
from sobolev.operators import FNO, SpatioTemporalFNO, Trajectory
from sobolev.training import OperatorModule

# What Lightning, torch and its exporter warn about by themselves, in code that is not ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
]

PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]  # fmt: skip

PENDING: dict[tuple[str, str], set[str]] = {}
"""What documents speak of and the package does not have yet, as the errors word it. The list may only shrink: what is
found must go."""

DRAWINGS = {"docs/design.md"}
"""Documents whose blocks without an info string are drawings."""

SMALL_FLOW = {"viscosity": 0.01, "time": 1.5, "interval": 0.1, "solver_resolution": 16}
SMALL = {
    "burgers-fno": BurgersRecipe(solver_resolution=256, steps=40),
    "darcy-fno": DarcyRecipe(solver_resolution=33),
    "ns-fno-1e-3": NavierStokesRecipe(**SMALL_FLOW),
    "ns-fno-1e-5": NavierStokesRecipe(**SMALL_FLOW),
    "ns-sym": NavierStokesRecipe(**SMALL_FLOW, forcing="symmetric"),
    "swe-random": ShallowWaterRecipe(hours=2, solver_resolution=24, stored_resolution=16),
    "gray-scott": GrayScottRecipe(solver_resolution=128, stored_resolution=64, time=20.0, step=5.0),
    "allen-cahn": AllenCahnRecipe(solver_resolution=128, time=0.1),
}
"""What stands for the presets: the same problems on coarse grids."""

SAMPLES = {"train": 12, "valid": 10, "test": 4}

SMALLER_LINES = [
    (r" --(?:samples|workers) \S+", ""),
    (r"^(sobolev generate .*)$", r"\1 --workers 1 --samples train=12 --samples valid=10 --samples test=4"),
    (r"--resolution (?:2048|4096|141|211)\b", ""),
    (r"--resolution 1024\b", "--resolution 128"),
    (r"--resolution 8192\b", "--resolution 256"),
    (r"--resolution 85\b", "--resolution 17"),
    (r"--resolution 421\b", "--resolution 33"),
    (r" --trainer\.max_epochs \d+", ""),
    (r"^(sobolev train .*)$", r"\1 --trainer.max_epochs 1"),
    (r"^(sobolev train (?!.*--resume).*)$", r"\1 --overwrite"),
    (r"^(sobolev evaluate .*)$", r"\1 --no-solver-timing --trajectories 2"),
    (r"^(sobolev show .*)$", r"\1 --animation none --samples 0"),
]  # fmt: skip
"""From what a document prints to what is run in its place, one after another."""

SMALLER_PYTHON = [
    (r'\{"train": \d+, "valid": \d+, "test": \d+\}', repr(SAMPLES)),
    (r"resolution=1024\b", "resolution=128"),
    (r"resolution=8192\b", "resolution=256"),
    (r"max_epochs=\d+", "max_epochs=1, enable_progress_bar=False"),
    (r"\.rollout\((\w+), \d+\)", r".rollout(\1, 3)"),
    (r'\.export_onnx\("burgers.onnx"\)', ".export_onnx"),  # which takes many seconds
    (r"Grid\.periodic\(128, 128", "Grid.periodic(48, 48"),
]

TRAINED = {
    "sobolev train --config burgers-fno --trainer.max_epochs 60",
    "sobolev train --operators my_net.py:MyNet --model.operator MyNet --model.operator.init_args.in_channels 1 "
    "--model.operator.init_args.out_channels 1 --data.path data/heat --trainer.max_epochs 20 --run runs/my_net",
}
"""Training commands that are run; of all others the real command line reads every option as printed, and no more."""

ONLY_READ = {
    r"sobolev (train|boost) .*": "training takes its time; tests/training/test_configs.py trains every configuration",
    r"sobolev demo\b.*": "takes a minute even when small; tests/commands/test_command_line.py runs it",
    r"sobolev generate .*--dask .*": "needs a cluster; tests/datasets/test_generation.py starts one",
    r"sobolev import .*": "needs files of other tools; tests/datasets/test_imports.py makes some",
    r"sobolev onnx .*": "takes seconds; tests/surrogates/test_onnx.py does it",
}
"""Commands of which the real command line reads every option as printed, and no more, each with the reason."""

NOT_RUN = {
    r"make \w+( PDE=\w+)?": "sets up an environment, or takes all tests",
    r"\.venv/bin/pre-commit install": "changes the checkout",
    r"python -m pytest test_\w+\.py": "tests/commands/test_new.py runs these tests",
    r"pip install .*": "nothing is installed while tests run",
    r"(OMP_NUM_THREADS=\d )?python benchmarks/\w+\.py .*": "takes minutes",
    r"dask scheduler &|srun dask worker .*": "needs a cluster",
    r"#!/bin/bash|\[ -e .*": "a job script",
}
"""Lines that are only recognised, all of the line, each with the reason. Targets of make and scripts must be there."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a document: its info string, its text, and the line that it begins on."""

    kind: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    found = re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", (ROOT / page).read_text(), re.MULTILINE)
    return [Block(m[1], m[2], m.string.count("\n", 0, m.start()) + 2) for m in found]


def prose(page: str) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*\n(?:.*\n)*?```$", "", (ROOT / page).read_text(), flags=re.MULTILINE)


def replaced(text: str, table: list[tuple[str, str]]) -> str:
    for pattern, replacement in table:
        text = re.sub(pattern, replacement, text)
    return text


class Pending:
    """Lets pass what PENDING says of a page, and insists that all of it was met."""

    def __init__(self, page: str, test: str) -> None:
        self.expected = PENDING.get((page, test), set())
        self.met: set[str] = set()

    @contextlib.contextmanager
    def at(self, place: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            met = {words for words in self.expected if words in str(error)}
            if not met:
                error.add_note(f"at {place}")
                raise
            self.met |= met

    def check(self) -> None:
        assert self.met == self.expected, "found by now: take them out of PENDING"


# What documents expect to find.


@pytest.fixture(scope="module")
def quick_and_small() -> Iterator[None]:
    """Small recipes for the presets, and no type checks: readers do without them, and torch's exporter
    cannot bear them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        for name, recipe in SMALL.items():
            patch.setitem(PRESETS, name, recipe)
        yield


@pytest.fixture(scope="module")
def workshop(quick_and_small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data sets, surrogates and files that documents speak of."""
    folder = tmp_path_factory.mktemp("workshop")
    for preset, path, resolution in (
        ("burgers-fno", "burgers", 128),
        ("darcy-fno", "darcy", 17),
        ("ns-fno-1e-3", "ns-1e-3", None),
    ):
        generate(preset, folder / "data" / path, SAMPLES, resolution=resolution, progress=False)
    shutil.copytree(folder / "data" / "burgers", folder / "data" / "demo-burgers")
    run = folder / "runs" / "burgers-fno"
    train = "train --config burgers-fno --trainer.max_epochs 1 --model.operator.init_args.width 8"
    assert main([*train.split(), "--data.path", str(folder / "data/burgers"), "--run", str(run)]) == 0  # fmt: skip
    shutil.copytree(run, folder / "runs" / "demo")
    for name, operator, data in (
        ("darcy-fno", FNO(1, 1, (4, 4), width=8, boundary="dirichlet"), OperatorDataModule(folder / "data/darcy")),
        ("ns-1e-3-fno", FNO(10, 1, (4, 4), width=8), OperatorDataModule(folder / "data/ns-1e-3", window=(10, 1))),
        (
            "ns-1e-3-stfno",
            Trajectory(SpatioTemporalFNO(1, 1, (4, 4, 3), width=4, latent_steps=10, horizon=4), 10, 4),
            OperatorDataModule(folder / "data/ns-1e-3", window=(10, 4)),
        ),
    ):  # fmt: skip
        OperatorModule(operator, data).surrogate.save(folder / "runs" / name / "surrogate")
    for name, dataset in (
        ("velocities", open_dataset(folder / "data/burgers", "test")),
        ("permeabilities", open_dataset(folder / "data/darcy", "test")),
        ("frames", open_dataset(folder / "data/ns-1e-3", "test").isel(time=slice(0, 10))),
    ):
        dataset.load().to_netcdf(folder / f"{name}.nc", engine="h5netcdf")
    own_fields().to_netcdf(folder / "mine.nc", engine="h5netcdf")
    shutil.copy(run / "config.yaml", folder / "mine.yaml")
    onnx.save(copy_of_inputs(), folder / "burgers.onnx")
    return folder


def own_fields() -> xr.Dataset:
    """Fields of a reader: names, dimensions and nodes that no recipe of ours has, rows from the top."""
    fields = np.random.default_rng(0).standard_normal((20, 6, 8))
    dims = ("run", "y", "x")
    return xr.Dataset(
        {"kappa": (dims, fields, {"units": "m/d"}), "head": (dims, fields, {"units": "m"})},
        {"y": 5.5 - np.arange(6.0), "x": 0.5 + np.arange(8.0)},
    )


def copy_of_inputs() -> onnx.ModelProto:
    """A graph with the names and shapes of an exported Burgers surrogate, and nothing to compute."""
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 1, "x"])
        for name in ("inputs", "outputs")
    ]
    node = onnx.helper.make_node("Identity", ["inputs"], ["outputs"])
    graph = onnx.helper.make_graph([node], "copy", ends[:1], ends[1:])
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10
    )


# What is done with a block.


class _Read(Exception):
    """The command line has read all options, and they are good."""


def only_read(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the command line read its options, and stop before anything is done."""
    kind, name = (
        (LightningCLI, "parse_arguments")
        if arguments[0] in ("train", "boost")
        else (argparse.ArgumentParser, "parse_args")
    )
    read = getattr(kind, name)

    def stop(*args, **kwargs):
        read(*args, **kwargs)
        raise _Read

    with monkeypatch.context() as patch:
        patch.setattr(kind, name, stop)
        with pytest.raises(_Read):
            main(arguments)


def commands(text: str) -> Iterator[tuple[int, str]]:
    """The commands of a shell block, without comments, and how many lines above each one there are."""
    number, joined = 0, ""
    for i, line in enumerate(text.splitlines()):
        if not joined:
            number = i
        joined += re.sub(r"(^|\s)#(?!!|SBATCH).*", "", line).strip()
        if joined.endswith("\\"):
            joined = joined[:-1]
            continue
        if joined and not joined.startswith("#SBATCH"):
            yield number, " ".join(joined.split())
        joined = ""


def run_command(line: str, done: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if matches(line, NOT_RUN):
        targets = re.findall(r"^\w+(?=:)", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert not line.startswith("make ") or line.split()[1] in targets, f"no {line}"
        scripts = re.findall(r"benchmarks/\w+\.py", line)
        assert all((ROOT / script).is_file() for script in scripts), f"there is no {scripts}"
        return
    line = re.sub(r"^(OMP_NUM_THREADS=\d |torchrun .* -m -- |srun \S+ )", "", line)
    assert line.startswith("sobolev "), f"not a command of sobolev, nor among NOT_RUN: {line}"
    if matches(line, ONLY_READ) and line not in TRAINED:
        only_read([word for word in shlex.split(line)[1:] if word != "$how"], monkeypatch)
        return
    small = " ".join(replaced(line, SMALLER_LINES).split())
    if small not in done:
        assert main(shlex.split(small)[1:]) == 0, f"failed, run as: {small}"
        done.add(small)


def matches(line: str, table: dict[str, str]) -> bool:
    return any(re.fullmatch(pattern, line) for pattern in table)


@pytest.fixture(scope="module")
def done() -> set[str]:
    """Commands that have been run: what they leave lies in the workshop, so that once is enough."""
    return set()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_document_runs(page, workshop, done, tmp_path, monkeypatch):
    shutil.copytree(workshop, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    pending = Pending(page, "blocks")
    for block in blocks(page):
        if block.kind == "python":
            text = "\n" * (block.line - 1) + replaced(block.text, SMALLER_PYTHON)
            with pending.at(f"{page}:{block.line}"):
                exec(compile(text, str(ROOT / page), "exec"), names)
        elif block.kind == "sh":
            for number, line in commands(block.text):
                with pending.at(f"{page}:{block.line + number}: {line}"):
                    run_command(line, done, monkeypatch)
        else:
            known = ("yaml", "text", *([""] if page in DRAWINGS else []))
            assert block.kind in known, (
                f"{page}:{block.line} begins a block of {block.kind or 'what'}?"
            )
    pending.check()


@pytest.mark.parametrize("page", PAGES)
def test_dotted_names_in_the_prose_are_there(page):
    pending = Pending(page, "names")
    for name in sorted(set(re.findall(r"`(sobolev(?:\.\w+)+)", prose(page)))):
        with pending.at(page):
            assert is_there(name), f"there is no {name}"
    pending.check()


def is_there(name: str) -> bool:
    """Whether a dotted name leads to a module, or to something in one."""
    home, _, last = name.rpartition(".")
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module(name)
        return True
    with contextlib.suppress(ModuleNotFoundError):
        return hasattr(importlib.import_module(home), last)
    return False


@pytest.mark.parametrize("page", PAGES)
def test_files_and_links_in_the_prose_are_there(page):
    text, pending = prose(page), Pending(page, "files")
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        with pending.at(page):
            assert file.exists(), f"there is no {target}"
            assert not anchor or anchor in anchors(file), f"{path} has no heading {anchor}"
    for path in sorted(set(re.findall(rf"`((?:{ROOMS})/[\w/.-]+\.(?:py|md|ipynb|yaml))`", text))):
        with pending.at(page):
            assert (ROOT / path).exists() or path in EXAMPLES, f"there is no {path}"
    pending.check()


MADE = ("data", "runs", "build", "dist")  # by commands, in whoever's working tree
ROOMS = "|".join(
    p.name
    for p in ROOT.iterdir()
    if p.is_dir() and not p.name.startswith(".") and p.name not in MADE
)
EXAMPLES = {"operators/mine.py", "tests/operators/test_mine.py", "tests/solvers/test_heat.py"}
"""Files that a reader is asked to write."""


def anchors(file: Path) -> set[str]:
    """Headings as GitHub links to them."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_the_readme_is_short_and_leads_to_every_document():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 145
    assert max(map(len, lines)) <= 120
    index = "\n".join(lines).rpartition("\n## ")[2]
    assert [page for page in PAGES[1:] if f"({page})" not in index] == []
