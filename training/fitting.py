"""``sobolev train``: a configuration in, a run folder with a surrogate out."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import logging
import re
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

import sobolev
import sobolev.operators
from sobolev.datasets import OperatorDataModule
from sobolev.training.module import OperatorModule

_WATCHED = "valid/relative_l2"
CONFIGS = Path(str(resources.files("sobolev.training"))) / "configs"
"""The configurations that come with the package, one per problem and operator."""


def train(arguments: Sequence[str]) -> Path:
    """Train as the command line says and return the run folder.

    The folder holds ``config.yaml``, ``metrics.csv``, ``tensorboard/``, ``checkpoints/`` and
    ``surrogate/``.

    Raises:
        FileExistsError: if the folder already holds a run and neither ``--resume`` nor
            ``--overwrite`` is given.
        ValueError: for a data set, operator or checkpoint that do not go together.
    """
    with _quiet():
        cli = _TrainCLI(
            OperatorModule,
            OperatorDataModule,
            run=False,
            args=[_named(argument) for argument in arguments],
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=_Parser,
            parser_kwargs={"prog": "sobolev train", "description": _DESCRIPTION},
            trainer_defaults={
                "gradient_clip_val": 1.0,
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 10,
            },
        )
        run = cli.run
        latest = run / "checkpoints" / "last.ckpt"
        if cli.config.resume and not latest.exists():
            raise FileNotFoundError(
                f"{run} holds no checkpoint to resume from ({latest} is missing)"
            )
        started = time.perf_counter()
        try:
            cli.trainer.fit(
                cli.model,
                cli.datamodule,
                ckpt_path=latest if cli.config.resume else None,
                weights_only=True,
            )
        except SystemExit:  # Lightning's answer to Ctrl-C
            if cli.trainer.interrupted:
                raise KeyboardInterrupt from None
            raise
        except RuntimeError as error:
            if cli.config.resume and "state_dict" in str(error):
                raise ValueError(
                    f"the checkpoint in {run} belongs to another model: {error}"
                ) from error
            raise
        _keep_best(cli.trainer, cli.model)
        _record(cli, time.perf_counter() - started)
        cli.model.surrogate.save(run / "surrogate")
    return run


def config_names() -> list[str]:
    """Names that ``--config`` understands besides paths."""
    return sorted(file.stem for file in CONFIGS.glob("*.yaml"))


_DESCRIPTION = (
    "Train a surrogate on a data set. --config takes a YAML file or the name of one that comes with sobolev "
    f"({', '.join(config_names())}); every option below may stand in it or override it here. The run folder receives "
    "config.yaml, metrics.csv, tensorboard/, checkpoints/ and surrogate/."
)


class _Parser(LightningArgumentParser):
    """Tells which option a misspelt one may have meant."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        found = _WRONG_KEY.search(message)
        if found:
            wrong = next(group for group in found.groups() if group)
            known = {"init_args", "class_path"} | {
                o.rpartition(".")[2].lstrip("-") for a in self._actions for o in a.option_strings
            }
            for name in sobolev.operators.__all__:
                known |= set(inspect.signature(getattr(sobolev.operators, name)).parameters)
            for part in reversed(wrong.split(".")):
                near = difflib.get_close_matches(part, sorted(known), n=1)
                if part not in known and near:
                    message = f"{message.strip()}; did you mean {near[0]!r}?"
                    break
        self.exit(2, f"sobolev train: error: {' '.join(message.split())}\n")


_WRONG_KEY = re.compile(
    r"does not accept option '([\w.]+)'|[Kk]ey '([\w.]+)'|'([\w.]+)' is not (?:expected|accepted)"
    r"|[Uu]nrecognized arguments?: --([\w.]+)"
)


class _TrainCLI(LightningCLI):
    """Lightning's command line with a run folder."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run", type=str | None, default=None, help="run folder (default: runs/NAME OF CONFIG)"
        )
        parser.add_argument(
            "--resume", action="store_true", help="continue from the run's last checkpoint"
        )
        parser.add_argument("--overwrite", action="store_true", help="replace a run that is there")
        parser.link_arguments("data", "model.data", apply_on="instantiate")

    def before_instantiate_classes(self) -> None:
        config = self.config
        name = Path(str(config.config[0])).stem if config.get("config") else "run"
        self.run = Path(config.run or Path("runs") / name)
        if (self.run / "config.yaml").exists() and not config.resume:
            if not config.overwrite:
                raise FileExistsError(
                    f"{self.run} holds a run already; give --resume, --overwrite or another --run"
                )
            shutil.rmtree(self.run)
        self.run.mkdir(parents=True, exist_ok=True)
        plain = yaml.safe_load(self.parser.dump(config, skip_none=False))
        for volatile in ("config", "run", "resume", "overwrite"):
            plain.pop(volatile, None)
        if config.resume and (self.run / "config.yaml").exists():
            _refuse_changes(yaml.safe_load((self.run / "config.yaml").read_text()), plain, self.run)
        (self.run / "config.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        settings = self.config_init["trainer"]
        loggers = [CSVLogger(self.run, "", ""), TensorBoardLogger(self.run, "tensorboard", "")]
        ours: list[Callback] = [
            ModelCheckpoint(
                self.run / "checkpoints", "best", monitor=_WATCHED, save_last=True,
                enable_version_counter=False,
            ),
            RichProgressBar() if sys.stderr.isatty() else _EpochLines(),
        ]  # fmt: skip
        given = settings.get("callbacks") or []
        return super().instantiate_trainer(
            default_root_dir=self.run,
            logger=loggers if settings.get("logger") is None else settings["logger"],
            callbacks=[*(given if isinstance(given, list) else [given]), *ours],
            enable_progress_bar=sys.stderr.isatty(),
            enable_model_summary=False,
            **kwargs,
        )


class _EpochLines(Callback):
    """A line per epoch where there is no terminal for a progress bar."""

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if "/" in k}
        text = "  ".join(f"{name} {value:.5f}" for name, value in sorted(values.items()))
        logging.getLogger("sobolev").info(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {text}"
        )


def _named(argument: str) -> str:
    """``--config NAME`` with the path of the configuration that has this name."""
    option, equals, value = argument.rpartition("=")
    if (
        (not equals or option == "--config")
        and value in config_names()
        and not Path(value).exists()
    ):
        return f"{option}{equals}{CONFIGS / value}.yaml"
    return argument


def _refuse_changes(before: dict[str, Any], now: dict[str, Any], run: Path) -> None:
    """Model and data of a resumed run must be the ones it began with."""
    for part in ("model", "data"):
        if before.get(part) != now.get(part):
            changed = [k for k in now[part] if now[part][k] != before.get(part, {}).get(k)]
            raise ValueError(
                f"{run} was begun with other settings of {part}.{', '.join(changed)}; resume with the same ones"
            )


def _keep_best(trainer: lightning.Trainer, module: OperatorModule) -> None:
    """Give the module the weights that did best in validation."""
    best = _checkpoints(trainer).best_model_path
    if best:
        state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
        module.load_state_dict(state)


def _checkpoints(trainer: lightning.Trainer) -> ModelCheckpoint:
    """The callback that watches the validation error, among those the user may have added."""
    return next(
        callback
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint) and callback.monitor == _WATCHED
    )


def _record(cli: _TrainCLI, seconds: float) -> None:
    """What the surrogate remembers of its training."""
    score = _checkpoints(cli.trainer).best_model_score
    cli.model.surrogate.provenance["training"] = {
        "valid_relative_l2": None if score is None else float(score),
        "epochs": cli.trainer.current_epoch,
        "steps": cli.trainer.global_step,
        "seconds": round(seconds, 1),
        "seed": cli.config.seed_everything,
        "versions": {
            "sobolev": sobolev.__version__,
            "torch": torch.__version__,
            "lightning": lightning.__version__,
        },
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice about loader processes, and its tips for other products."""
    noisy = [
        logging.getLogger(name)
        for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric")
    ]
    levels = [logger.level for logger in noisy]
    for logger in noisy:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*treespec.*")
            warnings.filterwarnings("ignore", message=".*args parameter is intended.*")
            warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
            warnings.filterwarnings("ignore", message=".*number of training batches.*")
            yield
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
