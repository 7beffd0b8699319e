"""``sobolev train``: a configuration in, a run folder with a surrogate out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sobolev.commands.options import Commands


def declare(commands: Commands) -> None:
    commands.add_parser(
        "train", help="train a surrogate on a data set (all of Lightning's options)", add_help=False
    )


def run(arguments: Sequence[str]) -> int:
    """Train as the command line says."""
    return saved(trained(arguments))


def trained(given: Sequence[str] | Mapping[str, Any]) -> Path:
    """Train as arguments or settings say, and return the run folder.

    Raises:
        FileExistsError: if the folder already holds a run and neither ``--resume`` nor
            ``--overwrite`` is given.
        ValueError: for a data set, operator or checkpoint that do not go together.
    """
    from sobolev.commands.lightning_cli import TrainCLI
    from sobolev.training.runs.run import quiet

    with quiet():
        prepared = TrainCLI(given).prepared
        prepared.fit()
    return prepared.run.folder


def saved(run: Path) -> int:
    """Say where the surrogate is."""
    from lightning.pytorch.utilities import rank_zero_only

    rank_zero_only(print)(f'surrogate saved: sobolev.Surrogate.load("{run / "surrogate"}")')
    return 0
