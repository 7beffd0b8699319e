"""The command line of `sobolev boost`, and of each of its stages."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.console
import rich.table
from lightning.pytorch.cli import LightningArgumentParser

from sobolev.commands.lightning_cli import TrainCLI
from sobolev.operators import Operator
from sobolev.training.boosting.boost_run import Boost
from sobolev.training.boosting.compared import Compared
from sobolev.training.boosting.stages import BoostingModule, frozen_on_purpose
from sobolev.training.runs.run import quiet

_DESCRIPTION = """\
Train the stages of a SpecBoost one after another, each on what the earlier ones leave of the fields, rescaled: a
network that is trained on the fields themselves spends itself on the few modes that carry their energy. The
configuration is that of `sobolev train`, with a SpecBoost of two stages or more as model.operator; trainer.max_epochs,
or --epochs, is for each stage. The run folder receives config.yaml, a train run for each stage (stage-0, stage-1, ...),
surrogate (the stages that are finished), boosting.json, and spectra.png: the spectrum of what each stage leaves, beside
the truth's, on validation data. Examples: `sobolev boost --config burgers-specboost`, the same with `--epochs 60 120
--held-out 0.2`, or with `--resume --compare`.
"""


class BoostCLI(TrainCLI):
    """The command line of a whole boost, and of each of its stages."""

    COMMAND = "boost"
    DESCRIPTION = _DESCRIPTION
    MODULE = BoostingModule

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--epochs",
            type=int,
            nargs="+",
            default=None,
            help="epochs of each stage: one number for all, or one each (default: trainer.max_epochs)",
        )
        parser.add_argument(
            "--held-out",
            type=float,
            default=0.0,
            help="share of the training samples that each later stage has to itself, so that it learns from residuals "
            "of samples that no earlier stage was fitted to; by default all stages learn from all samples",
        )
        parser.add_argument(
            "--compare",
            action="store_true",
            help="train for the same time a single operator of as many parameters, and an ensemble of the stages' "
            "operators, and print how they do (RUN/single, RUN/ensemble, RUN/comparison.json)",
        )
        parser.add_argument("--stage", type=int, default=0, help=argparse.SUPPRESS)
        parser.link_arguments("held_out", "model.held_out")
        parser.link_arguments("stage", "model.stage")

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        self.datamodule = self.model.data


def boosted(
    given: Sequence[str] | Mapping[str, Any], operators: Sequence[type[Operator]] = ()
) -> Path:
    """Boost as arguments or settings say, which may name ``operators`` from outside the package, and return
    the run folder.

    The folder holds ``config.yaml``, a train run ``stage-0/``, ``stage-1/`` … for each stage,
    ``surrogate/`` with the stages that are finished, ``boosting.json`` and ``spectra.png``; with
    ``--compare`` also the runs ``single/`` and ``ensemble/`` and ``comparison.json``.

    Raises:
        FileExistsError: if the folder already holds a run and neither ``--resume`` nor
            ``--overwrite`` is given.
        FileNotFoundError: if there is nothing to resume.
        ValueError: for an operator without stages, another number of epochs than stages, or a run to
            resume that was begun with other settings or on another data set.
    """
    with quiet(), frozen_on_purpose():
        cli = BoostCLI(given, operators)
        config = cli.config
        boost = Boost(
            cli.prepared,
            lambda settings: BoostCLI(settings, operators).prepared,
            epochs=config.epochs,
            held_out=config.held_out,
        )
        compared = None
        if config.compare:  # refused before anything is trained, where widths cannot be matched
            compared = Compared(boost, lambda settings: TrainCLI(settings, operators).prepared)
        run = boost.finish()
        if compared is not None:
            print_comparison(compared.finish())
    return run


def print_comparison(table: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the comparison."""
    splits = [split for split in ("valid", "test") if table["boosting"][split]]
    single = table["single"]["operator"]
    width = single["init_args"]["width"]
    name = single["class_path"].rpartition(".")[2]
    caption = f"Ratios are to boosting. The single operator is the last stage's, {name}, of width {width}."
    shown = rich.table.Table(caption=caption)
    heads = [f"{split} relative {norm}" for split in splits for norm in ("L²", "H¹")]
    for head in ("", "parameters", "epochs", "seconds", *heads):
        shown.add_column(head, justify="right" if head else "left")
    for name, entry in table.items():
        errors = [entry[s][f"relative_{norm}"] for s in splits for norm in ("l2", "h1")]
        shown.add_row(
            name, f"{entry['parameters']:,} (× {entry['parameters_ratio']:.2f})", " + ".join(map(str, entry["epochs"])),
            f"{entry['seconds']:.0f} (× {entry['seconds_ratio']:.2f})", *(f"{error:.5f}" for error in errors),
        )  # fmt: skip
    rich.console.Console(width=120).print(shown)
