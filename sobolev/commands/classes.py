"""Classes from outside the package, which the user names: nothing else is ever imported."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from sobolev.datasets.recipes.base import Recipe
from sobolev.datasets.recipes.presets import find_recipe, with_defaults
from sobolev.operators import Operator


def recipes_of(options: argparse.Namespace) -> list[type[Recipe]]:
    """Return the recipes that ``--recipes`` names."""
    return _classes(options.recipes, Recipe)


def operators_of(options: argparse.Namespace) -> list[type[Operator]]:
    """Return the operators that ``--operators`` names."""
    return _classes(options.operators, Operator)


def recipe_named(name: str) -> Recipe:
    """Return a preset, or the recipe that an installed package declares or ``MODULE:CLASS`` or ``FILE.py:CLASS``
    names, with its defaults.

    Raises:
        ValueError: for a name that is neither, and a class with parameters that have no default.
    """
    return with_defaults(named_class(name, Recipe)) if ":" in name else find_recipe(name)


def named_class(name: str, kind: type) -> Any:
    """Import ``MODULE:CLASS``, or ``FILE.py:CLASS``, the module being found from the working directory too.

    Raises:
        ValueError: for another form, a module that is not there, or a class that is none of ``kind``.
    """
    place, _, attribute = name.rpartition(":")
    if not (place and attribute):
        raise ValueError(f"{name!r} is not of the form MODULE:CLASS or FILE.py:CLASS")
    found = getattr(_module(place, attribute), attribute, None)
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ValueError(
            f"{name} is no {kind.__name__.lower()}: a class derived from sobolev's {kind.__name__} is needed, and "
            f"{place} has {'none of that name' if found is None else repr(found)}"
        )
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise ValueError(f"{name} is not finished: it leaves {', '.join(missing)} undefined")
    return found


def _module(place: str, attribute: str) -> ModuleType:
    """Import the module, or the file, that a class is to be taken from."""
    file = Path(place)
    is_file = file.suffix == ".py"
    folder, module = (file.parent, file.stem) if is_file else (Path(), place)
    if is_file and not file.is_file():
        raise FileNotFoundError(f"there is no file {file}, of which {attribute} could be taken")
    if (home := str(folder.resolve())) not in sys.path:
        sys.path.insert(0, home)  # for processes that draw samples too
    try:
        found = importlib.import_module(module)
    except Exception as error:  # a file of the user's, in which anything may go wrong
        raise ValueError(
            f"{place} could not be imported: {type(error).__name__}: {error}"
        ) from error
    source = getattr(found, "__file__", None)
    if is_file and (source is None or Path(source).resolve() != file.resolve()):
        raise ValueError(
            f"{place} is hidden by another module of the name {module} ({source or 'of Python itself'}); give the "
            "file another name"
        )
    return found


def _classes(names: Sequence[str] | None, kind: type) -> list[Any]:
    return [named_class(name, kind) for name in names or ()]
