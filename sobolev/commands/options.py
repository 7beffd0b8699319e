"""What the declarations of commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add(
    commands: Commands,
    name: str,
    command: Callable[[argparse.Namespace], int],
    text: str,
    details: str = "",
) -> argparse.ArgumentParser:
    """A parser for one command; ``text`` stands in the list of commands, ``details`` above its options."""
    sub = commands.add_parser(
        name,
        help=text,
        description=details or text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.set_defaults(command=command)
    return sub


def positive(text: str) -> int:
    if not (text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
