"""Operators from outside the package in the configurations of ``sobolev train`` and ``boost``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sobolev.commands.classes import operators_of
from sobolev.commands.options import add_operators
from sobolev.grids import installed
from sobolev.operators import Operator
from sobolev.operators.building import OWN


def operators_apart(
    command: str, arguments: Sequence[str]
) -> tuple[list[type[Operator]], list[str]]:
    """Return the operators that ``--operators`` names, imported, and the other arguments.

    They come first: a configuration may name them in short, as it does our own, once they are there.
    """
    parser = argparse.ArgumentParser(
        prog=f"sobolev {command}", add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS
    )
    add_operators(parser)
    options, others = parser.parse_known_args(arguments)
    _declared({argument.rpartition("=")[2] for argument in others})  # imported: that is enough
    return operators_of(options), others


def _declared(paths: Collection[str]) -> list[type[Operator]]:
    """Return the operators among these, in short or by their paths, that installed packages declare, imported."""
    ours = {kind.__name__ for kind in OWN}
    found = [
        entry
        for entry in installed.declared(installed.OPERATORS)
        if entry.attribute in {*paths} - ours or f"{entry.module}.{entry.attribute}" in paths
    ]
    return [entry.load(Operator) for entry in found]


def check_file(file: str | Path, operators: Sequence[type[Operator]]) -> None:
    """Refuse a configuration whose operator is a class from outside that the user has not named, before
    Lightning's parser imports it because the file says so.

    Raises:
        ValueError: naming the class and the option.
    """
    try:
        settings = yaml.safe_load(Path(file).read_text())
    except yaml.YAMLError:  # which the parser will say in its words
        return
    model = settings.get("model") if isinstance(settings, Mapping) else None
    if isinstance(model, Mapping):
        check_named(model.get("operator"), operators, str(file))


def check_named(settings: Any, operators: Sequence[type[Operator]], place: str) -> None:
    """Refuse the settings of an operator with a class from outside that the user has not named.

    Raises:
        ValueError: naming the class and the option.
    """
    paths = list(_class_paths(settings))
    operators = [*operators, *_declared(paths)]
    for path in paths:
        home, _, name = path.rpartition(".")
        is_ours = not home or home.partition(".")[0] == "sobolev"
        if not is_ours and getattr(sys.modules.get(home), name, None) not in operators:
            raise ValueError(
                f"the operator {path} in {place} is not one of sobolev's, and nothing is imported because a file says "
                f"so: if it is yours, add --operators {home}:{name}"
            )


def _class_paths(settings: Any, name: str = "operator") -> Iterator[str]:
    """Yield the classes that settings name, at any depth: those of operators that operators are made of, too."""
    if isinstance(settings, str) and name in ("class_path", "operator", "stages"):
        yield settings
    elif isinstance(settings, Mapping):
        for inner, value in settings.items():
            yield from _class_paths(value, inner)
    elif isinstance(settings, list):
        for value in settings:
            yield from _class_paths(value, name)
