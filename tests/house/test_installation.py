"""Wheel and sdist hold every package under one name."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from support.imports import ROOT, modules, packages

import sobolev

DATA = (
    "sobolev/training/configs/burgers-fno.yaml",
    "sobolev/evaluation/templates/report.html",
    "sobolev/commands/templates/recipe.py.txt",
    "sobolev/datasets/recipes/costs.json",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """A wheel and an sdist of this checkout."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    return wheel, sdist


@pytest.mark.slow
def test_the_wheel_holds_every_module(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    folders = {name: name.replace(".", "/") for name in packages()}
    files = {
        f"{folders[max((p for p in folders if f'{m}.'.startswith(f'{p}.')), key=len)]}/{file.name}"
        for m, sources in modules().items()
        for file in sources
    }
    assert {*files, *DATA} <= names
    assert not [n for n in names if not n.startswith(("sobolev/", "sobolev-"))]


@pytest.mark.slow
def test_the_sdist_holds_every_source(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {str(f.relative_to(ROOT)) for files in modules().values() for f in files}
    assert sources <= names


@pytest.mark.slow
@pytest.mark.parametrize("kind", [0, 1], ids=["wheel", "sdist"])
def test_both_install_and_run(built, kind, tmp_path):
    venv.create(tmp_path / "env", with_pip=False, system_site_packages=False)
    python = tmp_path / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    flags = ["--no-build-isolation"] if kind else []
    if kind:
        subprocess.run([*pip, "setuptools>=77"], check=True, capture_output=True)
    subprocess.run([*pip, "--no-deps", *flags, str(built[kind])], check=True, capture_output=True)
    run = [python, "-m", "sobolev", "--version"]
    shown = subprocess.run(run, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert shown == f"sobolev {sobolev.__version__}\n"
