"""The graph of the package's imports, read from its sources: every import statement counts, those inside
functions and under ``TYPE_CHECKING`` too."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).parents[2]


def packages() -> dict[str, Path]:
    """Every package that is installed, and its folder, as ``pyproject.toml`` says."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = tools["package-dir"]
    found = {}
    for name in tools["packages"]:
        home = max((h for h in folders if name == h or name.startswith(f"{h}.")), key=len)
        found[name] = ROOT.joinpath(folders[home], *name.removeprefix(home).split("."))
    return found


def modules() -> dict[str, list[Path]]:
    """Every module, and the files it is written in: a stub that lists a package's names counts."""
    found: dict[str, list[Path]] = {}
    for package, folder in packages().items():
        for file in sorted([*folder.glob("*.py"), *folder.glob("*.pyi")]):
            name = package if file.stem == "__init__" else f"{package}.{file.stem}"
            found.setdefault(name, []).append(file)
    return found


def graph() -> dict[str, set[str]]:
    """What each module imports of the others.

    ``from sobolev.solvers import darcy`` is an edge to that module, ``from sobolev.solvers import Darcy``
    one to the package.
    """
    known = modules()
    edges: dict[str, set[str]] = {}
    for name, files in known.items():
        found = {
            target for file in files for target in _imported(ast.parse(file.read_text()), known)
        }
        edges[name] = found - {name}
    return edges


def _imported(tree: ast.Module, known: dict[str, list[Path]]) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = node.module or ""
            full = {alias.name: f"{home}.{alias.name}" for alias in node.names}
            found |= {full[name] if full[name] in known else home for name in full}
    return found & set(known)


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of more than one module."""
    names = sorted(edges)
    number = {name: i for i, name in enumerate(names)}
    pairs = [(number[a], number[b]) for a in names for b in edges[a]]
    rows, columns = np.array(pairs, dtype=int).reshape(-1, 2).T
    matrix = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(len(names), len(names)))
    _, labels = connected_components(matrix.tocsr(), connection="strong")
    parts = [{names[i] for i in np.flatnonzero(labels == label)} for label in np.unique(labels)]
    return [part for part in parts if len(part) > 1]
