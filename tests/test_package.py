"""The house: imports point downwards, doctests run, and the package installs under its own name."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import sobolev

ROOT = Path(__file__).parents[1]
ROOMS = ("solvers", "datasets", "operators", "training")
MAY_IMPORT = {
    "solvers": {"solvers"},
    "datasets": {"datasets", "solvers"},
    "operators": {"operators", "solvers"},
    "training": set(ROOMS),
}


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_downwards(room):
    for file in (ROOT / room).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            rooms = {name.split(".")[1] for name in names if name.startswith("sobolev.")}
            assert rooms <= MAY_IMPORT[room], f"{file} imports {rooms - MAY_IMPORT[room]}"


def modules():
    for room in ROOMS:
        package = importlib.import_module(f"sobolev.{room}")
        yield package.__name__
        yield from (f"{package.__name__}.{m.name}" for m in pkgutil.iter_modules(package.__path__))


@pytest.mark.parametrize("name", list(modules()))
def test_docstrings_are_true(name):
    module = importlib.import_module(name)
    assert (
        doctest.testmod(module, extraglobs={"torch": importlib.import_module("torch")}).failed == 0
    )


def test_the_face_is_all_there():
    for name in (*sobolev.__all__, *ROOMS):
        assert getattr(sobolev, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sobolev.nothing  # noqa: B018


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted(p.name for p in (ROOT / "notebooks").glob("*.ipynb")))
def test_notebooks_run(notebook, tmp_path):
    book = nbformat.read(ROOT / "notebooks" / notebook, as_version=4)
    NotebookClient(book, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()


@pytest.mark.slow
def test_wheel_and_sdist_install_under_one_name(tmp_path):
    build = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        str(tmp_path / "dist"),
        str(ROOT),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    assert "sobolev/training/configs/burgers-fno.yaml" in names
    assert "sobolev/solvers/grids.py" in names
    assert not [n for n in names if n.startswith(("datasets/", "solvers/", "tests/"))]
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    for archive in (wheel, sdist):
        install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall"]
        flags = [] if archive is wheel else ["--no-build-isolation"]
        if flags:
            subprocess.run(
                [python, "-m", "pip", "install", "--quiet", "setuptools>=77"],
                check=True,
                capture_output=True,
            )
        subprocess.run([*install, *flags, str(archive)], check=True, capture_output=True)
        run = [python, "-m", "sobolev", "--version"]
        shown = subprocess.run(run, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
        assert shown == f"sobolev {sobolev.__version__}\n"
