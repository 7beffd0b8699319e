"""Classes from outside the package, which the user names: nothing else is ever imported."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from sobolev.datasets.recipes.base import Recipe
from sobolev.datasets.recipes.presets import find_recipe
from sobolev.operators import Operator


def recipes_of(options: argparse.Namespace) -> list[type[Recipe]]:
    """Return the recipes that ``--recipes`` names."""
    return _classes(options.recipes, Recipe)


def operators_of(options: argparse.Namespace) -> list[type[Operator]]:
    """Return the operators that ``--operators`` names."""
    return _classes(options.operators, Operator)


def recipe_named(name: str) -> Recipe:
    """Return a preset, or the recipe that ``MODULE:CLASS`` or ``FILE.py:CLASS`` names, with its defaults.

    Raises:
        ValueError: for a name that is neither, and a class with parameters that have no default.
    """
    if ":" not in name:
        return find_recipe(name)
    recipe = named_class(name, Recipe)
    bare = [f.name for f in fields(recipe) if f.default is f.default_factory is MISSING]
    if bare:
        raise ValueError(
            f"{name} has no default for {', '.join(bare)}: give it one in the class; --set changes it"
        )
    return recipe()


def named_class(name: str, kind: type) -> Any:
    """Import ``MODULE:CLASS``, or ``FILE.py:CLASS``, the module being found from the working directory too.

    Raises:
        ValueError: for another form, a module that is not there, or a class that is none of ``kind``.
    """
    place, _, attribute = name.rpartition(":")
    if not (place and attribute):
        raise ValueError(f"{name!r} is not of the form MODULE:CLASS or FILE.py:CLASS")
    file = Path(place)
    folder, module = (file.parent, file.stem) if file.suffix == ".py" else (Path(), place)
    if file.suffix == ".py" and not file.is_file():
        raise FileNotFoundError(f"there is no file {file}, of which {attribute} could be taken")
    if (home := str(folder.resolve())) not in sys.path:
        sys.path.insert(0, home)  # for processes that draw samples too
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        raise ValueError(f"{name}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ValueError(
            f"{name} is no {kind.__name__.lower()}: a class derived from sobolev's {kind.__name__} is needed, and "
            f"{place} has {'none of that name' if found is None else repr(found)}"
        )
    return found


def _classes(names: Sequence[str] | None, kind: type) -> list[Any]:
    return [named_class(name, kind) for name in names or ()]
