"""Operators built from their descriptions, as they stand in files."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from sobolev.grids import installed
from sobolev.operators.base import Operator, class_name
from sobolev.operators.fno import FNO
from sobolev.operators.gfno import GFNO
from sobolev.operators.mgno import MgNO
from sobolev.operators.modulated import Modulated
from sobolev.operators.planar import Planar
from sobolev.operators.sfno import SFNO
from sobolev.operators.specboost import SpecBoost
from sobolev.operators.stfno import SpatioTemporalFNO
from sobolev.operators.trajectory import Trajectory

OWN = (FNO, GFNO, SFNO, MgNO, Modulated, Planar, SpatioTemporalFNO, SpecBoost, Trajectory)
"""The classes that every description may name."""


def operator_from(
    description: Mapping[str, Any], operators: Sequence[type[Operator]] = ()
) -> Operator:
    """Build an operator from ``Operator.description``: one of sobolev's, one of ``operators``, or one that an
    installed package declares.

    Nothing is imported because a description says so. What it names, at any depth of its arguments,
    must be here or given.

    Args:
        description: a mapping of ``class`` and ``arguments``; among these, operators stand by their
            descriptions.
        operators: further classes, which a description names as ``module:Class`` or ``Class``.

    >>> operator_from(FNO(1, 1, modes=(4,), width=8).description).width
    8

    Raises:
        ValueError: for a name that is none of these classes', arguments that the class does not take,
            or what is no description at all.
    """
    if not _is_description(description):
        raise ValueError(
            f"an operator is described by a mapping of class and arguments, as .description is; got {description!r}"
        )
    found = _named(description["class"], operators)
    arguments = description["arguments"]
    try:
        inspect.signature(found).bind(**arguments)
    except TypeError as error:
        raise ValueError(f"these are no arguments of {found.__name__}: {error}") from error
    return found(**{name: _built(value, operators) for name, value in arguments.items()})


def _named(name: str, operators: Sequence[type[Operator]]) -> type[Operator]:
    """Return the class with this name, as a description has it."""
    ours = {operator.__name__: operator for operator in OWN}
    if name in ours:
        return ours[name]
    given = [
        operator for operator in operators if name in (class_name(operator), operator.__name__)
    ]
    if len(given) > 1:
        raise ValueError(
            f"several classes are called {name}: {', '.join(map(class_name, given))}; name one of these"
        )
    if given:
        return given[0]
    if ":" in str(name) and (entry := installed.with_identity(installed.OPERATORS, name)):
        return entry.load(Operator)
    known = [*ours, *map(class_name, operators)]
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]}?" if near else _how_to_say(name)
    raise ValueError(f"{name!r} is not one of sobolev's operators ({', '.join(ours)}){hint}")


def classes_in(operator: Operator) -> list[type[Operator]]:
    """Return the classes of an operator and of the operators that it is made of.

    >>> classes_in(FNO(1, 1, modes=(4,), width=8))
    [<class 'sobolev.operators.fno.FNO'>]
    """
    found = (type(part) for part in operator.modules() if isinstance(part, Operator))
    return list(dict.fromkeys(found))


def _how_to_say(name: Any) -> str:
    """Return the way to name a class from outside, if this is one."""
    if not (isinstance(name, str) and ":" in name):
        return ""
    return f"; if it is yours, say so: operators=[{name.rpartition(':')[2]}], or --operators {name}"


def _built(value: Any, operators: Sequence[type[Operator]]) -> Any:
    """Return an argument with every description in it replaced by its operator."""
    if _is_description(value):
        return operator_from(value, operators)
    return [_built(v, operators) for v in value] if isinstance(value, list) else value


def _is_description(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {"class", "arguments"}
