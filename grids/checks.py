"""What a number is, and refusals of bad arguments, each in one sentence.

NumPy's numbers are numbers, wherever a number is asked for: they come from a sweep, ``np.arange`` or a
table. ``plain`` makes them Python's, which JSON and YAML know.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np


def is_whole(value: Any) -> bool:
    """Return whether a value is a whole number, Python's or NumPy's; truth values are none.

    >>> is_whole(3), is_whole(np.int64(3)), is_whole(True), is_whole(3.0)
    (True, True, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Return whether a value is a finite real number, Python's or NumPy's; truth values are none.

    >>> is_real(3), is_real(np.float32(0.5)), is_real(np.True_), is_real(math.nan)
    (True, True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def plain(value: Any) -> Any:
    """Return a value with NumPy's numbers and arrays as Python's, in lists, tuples and mappings too.

    >>> plain({"modes": np.array([4, 4]), "width": np.int64(8), "name": "a"})
    {'modes': [4, 4], 'width': 8, 'name': 'a'}
    """
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, dict):
        return {plain(key): plain(entry) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(entry) for entry in value)
    return value


def make_plain(record: Any) -> None:
    """Make NumPy's numbers in the fields of a dataclass, frozen or not, Python's."""
    for name in (f.name for f in fields(record)):
        value = getattr(record, name)
        if isinstance(value, (np.generic, np.ndarray, list, tuple, dict)):
            object.__setattr__(record, name, plain(value))


def check_whole(owner: str, **values: int | Sequence[int]) -> None:
    """Refuse counts that are not whole numbers of at least 1.

    Raises:
        ValueError: naming the first wrong one.
    """
    for name, value in values.items():
        several = isinstance(value, (list, tuple, np.ndarray))
        numbers: Sequence[Any] = value if several else [value]  # type: ignore[assignment]
        for number in numbers:
            if not is_whole(number) or number < 1:
                raise ValueError(
                    f"{owner} needs whole numbers of at least 1; {name} has {number!r}"
                )


def whole_numbers(owner: str, name: str, values: Sequence[int]) -> list[int]:
    """Return the entries of an argument that has one per axis, as a list.

    Raises:
        ValueError: if ``values`` is no sequence of whole numbers of at least 1.
    """
    values = plain(values)
    if not isinstance(values, (list, tuple)):
        raise ValueError(
            f"{owner} needs {name} as a list, one whole number per axis; got {values!r}"
        )
    check_whole(owner, **{name: values})
    return list(values)


def real_number(what: str, value: float) -> float:
    """Return a finite number.

    Raises:
        ValueError: for anything else, truth values among them.
    """
    if not is_real(value):
        raise ValueError(f"{what} is a real number, got {value!r}")
    return float(value)


def is_of_kind(value: Any, kind: Any) -> bool:
    """Return whether a value from JSON has the type that it is annotated with.

    An integer stands for a float, a list for a tuple or a sequence, and numbers have to be finite. The
    entries are checked, too.

    >>> is_of_kind(1, float), is_of_kind(True, int | None), is_of_kind([1, "2"], list[int])
    (True, False, False)
    >>> is_of_kind([1, 2.5], tuple[float, ...]), is_of_kind([1], tuple[int, int])
    (True, False)
    """
    if kind is Any:
        return True
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if _is_tuple(kind):
        kinds = _entry_kinds(kind, value) if isinstance(value, (list, tuple)) else None
        return kinds is not None and all(map(is_of_kind, value, kinds))
    if get_origin(kind) in (Union, UnionType):
        return any(is_of_kind(value, one) for one in get_args(kind))
    if get_origin(kind) is list:
        (entry,) = get_args(kind)
        return isinstance(value, list) and all(is_of_kind(v, entry) for v in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict)
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and abs(value) <= sys.float_info.max
    return type(value) is (type(None) if kind is None else kind)


def as_annotated(value: Any, kind: Any) -> Any:
    """Return a value from JSON of the type that it is annotated with: tuples, which JSON has as lists, at any
    depth, and floats.

    >>> as_annotated([[0, 1], [2, 3]], tuple[tuple[float, ...], ...] | None)
    ((0.0, 1.0), (2.0, 3.0))
    """
    if get_origin(kind) in (Union, UnionType):
        kind = next((one for one in get_args(kind) if is_of_kind(value, one)), kind)
    if _is_tuple(kind):
        return tuple(map(as_annotated, value, _entry_kinds(kind, value) or ()))
    if get_origin(kind) is list:
        return [as_annotated(entry, get_args(kind)[0]) for entry in value]
    return float(value) if kind is float and type(value) is int else value


def _is_tuple(kind: Any) -> bool:
    """Return whether values of a kind are kept as tuples."""
    return kind is tuple or get_origin(kind) in (tuple, Sequence)


def _entry_kinds(kind: Any, values: Sequence[Any]) -> list[Any] | None:
    """Return the kinds of a tuple's entries; None if it has another number of them."""
    given = get_args(kind)
    if not given:
        return [Any] * len(values)
    if get_origin(kind) is Sequence or given[1:] == (...,):
        return [given[0]] * len(values)
    return list(given) if len(given) == len(values) else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question with the known word that is nearest; nothing where none is near.

    >>> did_you_mean("burgers-fn", ["burgers-fno", "darcy-fno"])
    "did you mean 'burgers-fno'?"
    >>> did_you_mean("heat", ["burgers-fno", "darcy-fno"])
    ''
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""
