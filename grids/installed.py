"""Classes that installed packages declare: whoever installs one has named them.

A package says in its ``pyproject.toml``, here with a recipe and an operator::

    [project.entry-points."sobolev.recipes"]
    heat = "my_package.heat:HeatRecipe"

    [project.entry-points."sobolev.operators"]
    my-net = "my_package.nets:MyNet"

Nothing of it is imported before its name is asked for.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

RECIPES = "sobolev.recipes"
"""Group of the recipes."""
OPERATORS = "sobolev.operators"
"""Group of the operators."""


@dataclass(frozen=True, order=True)
class Declared:
    """A class that a package declares in a group, by a name."""

    name: str
    group: str
    module: str
    attribute: str
    package: str
    """The package and its version."""

    @property
    def identity(self) -> str:
        """The name of the class in files."""
        return f"{self.module}:{self.attribute}"

    def load(self, kind: type) -> Any:
        """Import the class.

        Raises:
            ValueError: naming the package, if the class cannot be imported, is none of ``kind``, or is declared
                elsewhere than where it is defined: files would not lead back to it.
        """
        said = f"{self.package} declares {self.name} = {self.identity} in {self.group}"
        try:
            found = getattr(importlib.import_module(self.module), self.attribute)
        except Exception as error:  # another's code, in which anything may go wrong
            raise ValueError(
                f"{said}, which cannot be imported ({type(error).__name__}: {error}); mend or uninstall it"
            ) from error
        if not (isinstance(found, type) and issubclass(found, kind)):
            raise ValueError(
                f"{said}, which is no class derived from sobolev's {kind.__name__}, but {found!r}"
            )
        if (home := f"{found.__module__}:{found.__qualname__}") != self.identity:
            raise ValueError(
                f"{said}, but the class is defined as {home}: its package should say that"
            )
        if missing := sorted(getattr(found, "__abstractmethods__", ())):
            raise ValueError(f"{said}, which leaves {', '.join(missing)} undefined")
        return found


def declared(group: str) -> list[Declared]:
    """Return what installed packages declare in a group, by name."""
    found = []
    for entry in entry_points(group=group):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a package"
        found.append(Declared(entry.name, group, entry.module, entry.attr, package))
    return sorted(found)


def named(group: str, name: str) -> Declared | None:
    """Return what is declared in a group by a name."""
    return _only([entry for entry in declared(group) if entry.name == name])


def with_identity(group: str, identity: str) -> Declared | None:
    """Return what is declared in a group as ``module:Class``."""
    return _only([entry for entry in declared(group) if entry.identity == identity])


def _only(found: list[Declared]) -> Declared | None:
    """Return the one that is declared, if any.

    Raises:
        ValueError: if packages declare several classes by one name.
    """
    if len({entry.identity for entry in found}) > 1:
        several = ", ".join(f"{entry.identity} ({entry.package})" for entry in found)
        raise ValueError(
            f"several packages declare {found[0].name}: {several}; give MODULE:CLASS, or uninstall one"
        )
    return found[0] if found else None
