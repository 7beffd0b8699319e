"""``sobolev train``: a configuration in, a run folder with a surrogate out."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import logging
import pickle
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
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

import sobolev
import sobolev.operators
from sobolev.datasets import OperatorDataModule
from sobolev.training.module import OperatorModule

_PARTS = ("config.yaml", "metrics*.csv", "tensorboard", "checkpoints", "surrogate", "evaluation")
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
            args=_with_config_path(arguments),
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=_Parser,
            parser_kwargs={
                "prog": "sobolev train",
                "description": _DESCRIPTION,
                "allow_abbrev": False,
            },
            trainer_defaults={
                "accelerator": _accelerator(),
                "devices": 1,
                "gradient_clip_val": 1.0,
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 10,
                "enable_progress_bar": sys.stderr.isatty(),
                "enable_model_summary": False,
            },
        )
        run, latest = cli.run, cli.run / "checkpoints" / "last.ckpt"
        if (
            cli.config.resume
            and _epochs_done(latest) == cli.trainer.max_epochs
            and (run / "surrogate").is_dir()
        ):
            logging.getLogger("sobolev").info(f"{run} is complete; nothing is left to train")
            return run
        if getattr(rank_zero_only, "rank", 0) == 0:
            cli.prepare_folder()
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
        except MisconfigurationException as error:
            raise ValueError(str(error)) from error
        if cli.trainer.is_global_zero:
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
        if (self.run / "config.yaml").exists() and not config.resume and not config.overwrite:
            raise FileExistsError(
                f"{self.run} holds a run already; give --resume, --overwrite or another --run"
            )
        self.plain = yaml.safe_load(self.parser.dump(config, skip_none=False))
        for volatile in ("config", "run", "resume", "overwrite"):
            self.plain.pop(volatile, None)
        if config.resume and (self.run / "config.yaml").exists():
            before = yaml.safe_load((self.run / "config.yaml").read_text())
            _refuse_changes(before, self.plain, self.run)

    def prepare_folder(self) -> None:
        """Clear or continue the run folder, once everything in the configuration has proved
        good."""
        if self.config.overwrite:
            for part in _PARTS:
                for found in self.run.glob(part):
                    shutil.rmtree(found) if found.is_dir() else found.unlink()
        self.run.mkdir(parents=True, exist_ok=True)
        if (metrics := self.run / "metrics.csv").exists():  # Lightning's logger would delete it
            metrics.rename(
                self.run / f"metrics-{len(list(self.run.glob('metrics-*.csv'))):03d}.csv"
            )
        (self.run / "config.yaml").write_text(yaml.safe_dump(self.plain, sort_keys=False))

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        settings = self.config_init["trainer"]
        loggers = [CSVLogger(self.run, "", ""), TensorBoardLogger(self.run, "tensorboard", "")]
        ours: list[Callback] = [
            ModelCheckpoint(
                self.run / "checkpoints", "best", monitor=_WATCHED, enable_version_counter=False
            ),
            # a callback of its own: the one above saves only when the validation error has fallen
            ModelCheckpoint(
                self.run / "checkpoints", "last", every_n_epochs=1, enable_version_counter=False
            ),
            RichProgressBar() if settings.get("enable_progress_bar") else _EpochLines(),
        ]
        given = settings.get("callbacks") or []
        return super().instantiate_trainer(
            default_root_dir=settings.get("default_root_dir") or self.run,
            logger=loggers if settings.get("logger") is None else settings["logger"],
            callbacks=[*(given if isinstance(given, list) else [given]), *ours],
            **kwargs,
        )


class _EpochLines(Callback):
    """A line per epoch where there is no terminal for a progress bar."""

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if "/" in k}
        text = "  ".join(f"{name} {value:.5f}" for name, value in sorted(values.items()))
        logging.getLogger("sobolev").info(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {text}"
        )


def _with_config_path(arguments: Sequence[str]) -> list[str]:
    """The arguments, with ``--config NAME`` turned into the path of the configuration of that
    name."""
    result = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, equals, value = argument.rpartition("=")
        is_config = option in ("--config", "-c") if equals else before in ("--config", "-c")
        if is_config and value in config_names() and not Path(value).is_file():
            argument = f"{option}{equals}{CONFIGS / value}.yaml"
        result.append(argument)
    return result


def _accelerator() -> str:
    """Lightning's choice, but never Apple's: it lacks the float64 in which grids and metrics are
    computed."""
    return "auto" if torch.cuda.is_available() or not torch.backends.mps.is_available() else "cpu"


def _epochs_done(path: Path) -> int:
    """Epochs behind a checkpoint; raises ``FileNotFoundError`` or ``ValueError`` for one that is no good."""
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint to resume from ({path} is missing)")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)["epoch"] + 1
    except (RuntimeError, EOFError, OSError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} is damaged or holds more than tensors and numbers: {error}"
        ) from error


def _refuse_changes(before: dict[str, Any], now: dict[str, Any], run: Path) -> None:
    """A resumed run must have the settings it began with; only where and how to run may change."""
    parts = {part: list(now[part]) for part in ("model", "data")}
    parts["trainer"] = [
        "max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "precision",
    ]  # fmt: skip
    changed = [
        f"{part}.{name}"
        for part, names in parts.items()
        for name in names
        if now[part][name] != before.get(part, {}).get(name)
    ]
    if changed or now["seed_everything"] != before.get("seed_everything"):
        names = ", ".join(changed or ["seed_everything"])
        raise ValueError(
            f"{run} was begun with other settings of {names}; learning rates and the order of samples "
            "follow from them, so resume with the same ones or train anew in another --run"
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
        "seconds_since_last_start": round(seconds, 1),
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
