"""Refusals of bad arguments, each in one sentence."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence


def check_whole(owner: str, **values: int | Sequence[int]) -> None:
    """Refuse counts that are not whole numbers of at least 1.

    Raises:
        ValueError: naming the first wrong one.
    """
    for name, value in values.items():
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(
                    f"{owner} needs whole numbers of at least 1; {name} has {number!r}"
                )


def whole_numbers(owner: str, name: str, values: Sequence[int]) -> list[int]:
    """Return the entries of an argument that has one per axis, as a list.

    Raises:
        ValueError: if ``values`` is no sequence of whole numbers of at least 1.
    """
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
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{what} is a real number, got {value!r}")
    return float(value)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question with the known word that is nearest; nothing where none is near.

    >>> did_you_mean("burgers-fn", ["burgers-fno", "darcy-fno"])
    "did you mean 'burgers-fno'?"
    >>> did_you_mean("heat", ["burgers-fno", "darcy-fno"])
    ''
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""
