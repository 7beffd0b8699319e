"""``sobolev train``: a configuration in, a run folder with a surrogate out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sobolev.commands.options import Commands

if TYPE_CHECKING:
    from sobolev.operators import Operator


def declare(commands: Commands) -> None:
    commands.add_parser(
        "train", help="train a surrogate on a data set (all of Lightning's options)", add_help=False
    )


def run(arguments: Sequence[str]) -> int:
    """Train as the command line says."""
    from sobolev.commands.own_operators import operators_apart

    operators, others = operators_apart("train", arguments)
    return saved(trained(others, operators), operators)


def trained(
    given: Sequence[str] | Mapping[str, Any], operators: Sequence[type[Operator]] = ()
) -> Path:
    """Train as arguments or settings say, and return the run folder.

    Args:
        given: the arguments, or all settings.
        operators: classes from outside the package that they may name.

    Raises:
        FileExistsError: if the folder already holds a run and neither ``--resume`` nor
            ``--overwrite`` is given.
        ValueError: for a data set, operator or checkpoint that do not go together.
    """
    from sobolev.commands.lightning_cli import TrainCLI
    from sobolev.training.runs.run import quiet

    with quiet():
        prepared = TrainCLI(given, operators).prepared
        prepared.fit()
    return prepared.run.folder


def saved(run: Path, operators: Sequence[type[Operator]] = ()) -> int:
    """Say where the surrogate is."""
    from lightning.pytorch.utilities import rank_zero_only

    own = f", operators=[{', '.join(kind.__name__ for kind in operators)}]" if operators else ""
    rank_zero_only(print)(f'surrogate saved: sobolev.Surrogate.load("{run / "surrogate"}"{own})')
    return 0
