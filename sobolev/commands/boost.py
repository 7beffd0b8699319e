"""``sobolev boost``: the stages of a SpecBoost, each a train run of its own, in one run folder."""

from __future__ import annotations

from collections.abc import Sequence

from sobolev.commands.options import Commands
from sobolev.commands.train import saved


def declare(commands: Commands) -> None:
    commands.add_parser(
        "boost",
        help="train the stages of a SpecBoost one after another (train's options and more)",
        add_help=False,
    )


def run(arguments: Sequence[str]) -> int:
    """Boost as the command line says."""
    from sobolev.commands.boosting_cli import boosted
    from sobolev.commands.own_operators import operators_apart

    operators, others = operators_apart("boost", arguments)
    return saved(boosted(others, operators), operators)
