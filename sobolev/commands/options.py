"""The common parts of the declarations of commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TypeAlias

RUN = "run folder of `sobolev train`, or a surrogate folder"
SYMMETRIZE = """\
average over the symmetries that the recipe of the training data declares: as a rule more accurate, and as many times
the work as they are (Darcy 8, Burgers 2)"""

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add(
    commands: Commands,
    name: str,
    command: Callable[[argparse.Namespace], int],
    text: str,
    details: str = "",
) -> argparse.ArgumentParser:
    """Add a parser for one command. ``text`` stands in the list of commands, ``details`` above the options
    of the command."""
    sub = commands.add_parser(
        name,
        help=text,
        description=details or text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.set_defaults(command=command)
    return sub


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if not (text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def resolution(text: str) -> int | tuple[int, ...]:
    """Return nodes per axis: one number for all axes, or one for each, such as 64x32."""
    sizes = tuple(positive(part) for part in text.split("x"))
    return sizes[0] if len(sizes) == 1 else sizes


def sizes_in_words(sizes: int | Sequence[int]) -> str:
    """Return nodes per axis as ``resolution`` takes them.

    >>> sizes_in_words(64), sizes_in_words([64, 32])
    ('64', '64x32')
    """
    return str(sizes) if isinstance(sizes, int) else "x".join(map(str, sizes))


def add_recipes(sub: argparse.ArgumentParser) -> None:
    """Let the user name recipes from outside the package."""
    _add_classes(sub, "recipes", "recipe of your own that may have drawn the data")


def add_operators(sub: argparse.ArgumentParser) -> None:
    """Let the user name operators from outside the package."""
    _add_classes(sub, "operators", "operator of your own that the surrogate may be made of")


def _add_classes(sub: argparse.ArgumentParser, name: str, what: str) -> None:
    sub.add_argument(
        f"--{name}",
        action="append",
        metavar="MODULE:CLASS",
        help=f"{what}, or FILE.py:CLASS; repeat",
    )
