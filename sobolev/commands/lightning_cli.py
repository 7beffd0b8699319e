"""The command line of `sobolev train` and `sobolev boost`, on Lightning's."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import lightning
import torch
import yaml
from jaxtyping import Float
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from matplotlib.figure import Figure
from torch import Tensor

import sobolev.operators
import sobolev.training
from sobolev.commands.own_operators import check_file, check_named
from sobolev.datasets.loading.datamodule import OperatorDataModule
from sobolev.evaluation import figures
from sobolev.evaluation.comparison import Comparison
from sobolev.grids.checks import did_you_mean
from sobolev.operators import Operator
from sobolev.surrogates import Surrogate
from sobolev.training.boosting.runs import Prepared
from sobolev.training.callbacks.checkpoints import WholeCheckpoints
from sobolev.training.module import OperatorModule
from sobolev.training.runs.configurations import config_names, configuration
from sobolev.training.runs.run import Run, is_first_process, trainer_defaults

DESCRIPTION = (
    "Train a surrogate on a data set. --config takes a YAML file or the name of one that comes with sobolev "
    f"({', '.join(config_names())}); every option below may stand in it or override it here. The run folder receives "
    "config.yaml, metrics.csv, tensorboard/, checkpoints/ and surrogate/."
)
_WRONG_KEY = re.compile(
    r"does not accept option '([\w.]+)'|[Kk]ey '([\w.]+)'|'([\w.]+)' is not (?:expected|accepted)"
    r"|[Uu]nrecognized arguments?: --([\w.]+)|dot import path string: ([\w.]+)"
)


class Parser(LightningArgumentParser):
    """A parser that tells which option a misspelt one may have meant."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        found = _WRONG_KEY.search(message)
        if found:
            wrong = next(group for group in found.groups() if group)
            known = {"init_args", "class_path"} | {
                o.rpartition(".")[2].lstrip("-") for a in self._actions for o in a.option_strings
            }
            for name in sobolev.operators.__all__:
                known |= set(inspect.signature(getattr(sobolev.operators, name)).parameters)
            known |= {*sobolev.operators.__all__, *sobolev.training.__all__, *torch.optim.__all__}
            for part in reversed(wrong.split(".")):
                near = did_you_mean(part, sorted(known))
                if part not in known and near:
                    message = f"{message.strip()}; {near}"
                    break
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


class TrainCLI(LightningCLI):
    """Lightning's command line with a run folder.

    Everything that it names is built when it is made.
    """

    COMMAND = "train"
    DESCRIPTION = DESCRIPTION
    MODULE: type[OperatorModule] = OperatorModule

    def __init__(
        self,
        given: Sequence[str] | Mapping[str, Any],
        operators: Sequence[type[Operator]] = (),
    ) -> None:
        self.operators = operators
        settings = (
            dict(given) if isinstance(given, Mapping) else _with_config_path(given, operators)
        )
        super().__init__(
            self.MODULE,
            OperatorDataModule,
            run=False,
            args=settings,
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=Parser,
            parser_kwargs={
                "prog": f"sobolev {self.COMMAND}",
                "description": self.DESCRIPTION,
                "allow_abbrev": False,
            },
            trainer_defaults=trainer_defaults(),
        )

    @property
    def prepared(self) -> Prepared:
        """The run with all that it takes."""
        return Prepared(self.folder_run, self.model, self.datamodule, self.trainer)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run", type=str | None, default=None, help="run folder (default: runs/NAME OF CONFIG)"
        )
        parser.add_argument(
            "--resume", action="store_true", help="continue from the run's last checkpoint"
        )
        parser.add_argument("--overwrite", action="store_true", help="replace a run that is there")
        parser.add_argument(
            "--ema",
            type=float | None,
            default=None,
            help="validate and save an exponential moving average of the weights with this decay, such as 0.999",
        )
        parser.add_argument(
            "--patience",
            type=int | None,
            default=None,
            help="stop when the validation error has not fallen for so many epochs",
        )
        parser.add_argument(
            "--find_learning_rate",
            "--find-learning-rate",
            action="store_true",
            help="try 100 steps of growing learning rate first and use the one it suggests; see learning_rate.png",
        )
        parser.add_argument(
            "--profile", action="store_true", help="write to profile.txt where the time goes"
        )
        parser.add_argument(
            "--operators",
            default=None,
            metavar="MODULE:CLASS",
            help="operator of your own that the configuration names, or FILE.py:CLASS; repeat. On the command line "
            "alone: nothing is imported because a file says so",
        )
        parser.link_arguments("data", "model.data", apply_on="instantiate")

    def before_instantiate_classes(self) -> None:
        config = self.config
        if config.operators is not None:  # those of the command line have been taken out
            raise ValueError(
                f"operators: {config.operators} stands in a configuration; name your own operators on the command "
                "line, by --operators MODULE:CLASS"
            )
        name = Path(str(config.config[0])).stem if config.get("config") else "run"
        plain = yaml.safe_load(self.parser.dump(config, skip_none=False))
        for volatile in ("config", "run", "resume", "overwrite", "profile", "operators"):
            plain.pop(volatile, None)
        check_named(plain["model"]["operator"], self.operators, "the configuration")
        self.folder_run = Run(
            Path(config.run or Path("runs") / name), plain,
            config.resume, config.overwrite, config.ema, config.patience, config.find_learning_rate,
            config.profile, config.seed_everything, draw_predictions,
        )  # fmt: skip
        if is_first_process():  # the others may find its new folder
            self.folder_run.check()
        if config.resume:  # the checkpoint holds all of it, and the folder may hold another by now
            config.model.start = None

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        settings = self.config_init["trainer"]
        run = self.folder_run
        plugins = _as_list(settings.get("plugins"))
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(WholeCheckpoints())
        own = run.callbacks(progress_bar=bool(settings.get("enable_progress_bar")))
        default = settings.get("logger") in (None, True)
        return super().instantiate_trainer(
            default_root_dir=settings.get("default_root_dir") or run.folder,
            logger=run.loggers() if default else settings["logger"],
            callbacks=[*_as_list(settings.get("callbacks")), *own],
            plugins=plugins,
            **kwargs,
        )


def draw_predictions(
    surrogate: Surrogate,
    inputs: Float[Tensor, "sample inputs *space"],
    targets: Float[Tensor, "sample outputs *space"],
    predictions: Float[Tensor, "sample outputs *space"],
) -> Figure:
    """Draw truth, prediction and error of the median and the worst of some samples."""
    comparison = Comparison(surrogate.grid, inputs, targets, predictions, surrogate)
    return figures.fields(comparison, surrogate)


def _as_list(given: Any) -> list[Any]:
    """Return a list of the things given, which may be nothing, one thing or several."""
    if given is None:
        return []
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _with_config_path(arguments: Sequence[str], operators: Sequence[type[Operator]]) -> list[str]:
    """Return the arguments, with ``--config NAME`` turned into the path of the configuration of that
    name; files may name these operators and our own."""
    result = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, equals, value = argument.rpartition("=")
        is_config = option in ("--config", "-c") if equals else before in ("--config", "-c")
        is_content = ":" in value  # YAML or JSON, not the name of it
        if is_config and not is_content:
            file = Path(value) if Path(value).is_file() else configuration(value)
            check_file(file, operators)
            argument = f"{option}{equals}{file}"
        result.append(argument)
    return result
