"""``sobolev train``: a configuration in, a run folder with a surrogate out."""

from __future__ import annotations

import contextlib
import copy
import difflib
import inspect
import logging
import pickle
import re
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn, cast

import lightning
import torch
import yaml
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSamplerWrapper
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.utils.data import DataLoader, Sampler, SequentialSampler

import sobolev
import sobolev.operators
import sobolev.training
from sobolev.datasets import OperatorDataModule
from sobolev.datasets.loading.items import Items
from sobolev.datasets.store.whole_files import replacing
from sobolev.surrogates.surrogate import Surrogate
from sobolev.training.callbacks.callbacks import (
    WATCHED,
    AveragedWeights,
    Clock,
    EpochLines,
    Patience,
    PredictionPictures,
    Profile,
    RunCheckpoint,
    WholeCheckpoints,
    duration,
    epochs_of,
    find_learning_rate,
)
from sobolev.training.module import SHARDED, START, OperatorModule, changes

_PARTS = (
    "config.yaml", "metrics*.csv", "tensorboard", "checkpoints", "surrogate", "evaluation*",
    "profile.txt", "learning_rate.png", ".lr_find_*.ckpt",
    "stage-*", "spectra.png", "boosting.json", "single", "ensemble", "comparison.json",
)  # fmt: skip
CONFIGS = Path(str(resources.files("sobolev.training"))) / "configs"
"""The configurations that come with the package, one per problem and operator."""
_log = logging.getLogger("sobolev")


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
        return fit(command_line(_TrainCLI, OperatorModule, arguments, "train", _DESCRIPTION))


def command_line(
    kind: type[_TrainCLI],
    module: type[OperatorModule],
    arguments: Sequence[str],
    command: str,
    description: str,
) -> _TrainCLI:
    """The command line of ``sobolev COMMAND``, parsed, with everything in it built."""
    return kind(
        module,
        SharedData,
        run=False,
        args=_with_config_path(arguments),
        save_config_callback=None,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        parser_class=_Parser,
        parser_kwargs={
            "prog": f"sobolev {command}",
            "description": description,
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


def fit(cli: _TrainCLI) -> Path:
    """Train what the command line built, or the rest of it, and save the surrogate in the run folder."""
    run, latest = cli.run, cli.run / "checkpoints" / "last.ckpt"
    if cli.config.resume:
        checkpoint = _checkpoint(latest)
        if (run / "surrogate").is_dir():
            _log.info(f"{run} is complete; nothing is left to train")
            return run
        if cli.trainer.max_steps > 0:  # Lightning repeats an epoch's beginning, without batches
            _log.warning(
                "a run counted in trainer.max_steps goes on with another order of samples than an undisturbed one; "
                "runs of trainer.max_epochs (and trainer.limit_train_batches) resume exactly"
            )
        if cli.config.find_learning_rate:  # the schedule found then goes on
            cli.model.learning_rate = checkpoint["optimizer_states"][0]["param_groups"][0]["max_lr"]
        if checkpoint[START] is not None:
            cli.model.surrogate.provenance[START] = checkpoint[START]
    else:
        cli.model.check_ready(cli.trainer)
    if _is_first_process():
        cli.prepare_folder()
    surrogate = cli.model.surrogate
    if isinstance(cli.trainer.strategy, SHARDED):  # to be filled from a checkpoint, which is whole
        surrogate = copy.deepcopy(surrogate)
    try:
        if cli.config.find_learning_rate and not cli.config.resume:
            cli.model.learning_rate = find_learning_rate(
                cli.trainer, cli.model, cli.datamodule, run / "learning_rate.png"
            )
        cli.trainer.fit(
            cli.model,
            cli.datamodule,
            ckpt_path=latest if cli.config.resume else None,
            weights_only=True,
        )
    except SystemExit:  # Lightning's answer to Ctrl-C and to SIGTERM
        if cli.trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    if cli.trainer.is_global_zero:
        _keep_best(cli, surrogate)
        surrogate.save(run / "surrogate")
    return run


class SharedData(OperatorDataModule):
    """Each of n processes takes every n-th item of the one order of an epoch: together their batches
    of b are those of one process with batches of n·b.

    In training the last items are made up to a multiple of n by the first of the epoch, so that all
    processes take as many steps; in validation every item counts once.
    """

    def _loader(self, items: Items, sampler: Sampler | None = None) -> DataLoader:
        trainer = self.trainer
        if trainer is not None and trainer.world_size > 1:
            if len(items) < trainer.world_size:
                raise ValueError(
                    f"{len(items)} items cannot be shared by {trainer.world_size} processes; use more data or fewer "
                    "trainer.devices"
                )
            share = (
                UnrepeatedDistributedSamplerWrapper
                if sampler is None
                else DistributedSamplerWrapper
            )
            sampler = share(
                sampler or SequentialSampler(items),
                num_replicas=trainer.world_size,
                rank=trainer.global_rank,
                shuffle=False,
            )
        return super()._loader(items, sampler)


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
            known |= {*sobolev.operators.__all__, *sobolev.training.__all__, *torch.optim.__all__}
            for part in reversed(wrong.split(".")):
                near = difflib.get_close_matches(part, sorted(known), n=1)
                if part not in known and near:
                    message = f"{message.strip()}; did you mean {near[0]!r}?"
                    break
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


_WRONG_KEY = re.compile(
    r"does not accept option '([\w.]+)'|[Kk]ey '([\w.]+)'|'([\w.]+)' is not (?:expected|accepted)"
    r"|[Uu]nrecognized arguments?: --([\w.]+)|dot import path string: ([\w.]+)"
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
        parser.link_arguments("data", "model.data", apply_on="instantiate")

    def before_instantiate_classes(self) -> None:
        config = self.config
        name = Path(str(config.config[0])).stem if config.get("config") else "run"
        self.run = Path(config.run or Path("runs") / name)
        self.plain = yaml.safe_load(self.parser.dump(config, skip_none=False))
        for volatile in ("config", "run", "resume", "overwrite", "profile"):
            self.plain.pop(volatile, None)
        if _is_first_process():  # the others may find its new folder
            self._check_folder()
        if config.resume:  # the checkpoint holds all of it, and the folder may hold another by now
            config.model.start = None

    def _check_folder(self) -> None:
        file = self.run / "config.yaml"
        if self.run.exists() and not self.run.is_dir():
            raise NotADirectoryError(
                f"{self.run} is a file, and a run is a folder; give another --run"
            )
        if self.config.resume:
            if not file.is_file():
                raise FileNotFoundError(
                    f"there is no run in {self.run} to resume ({file} is missing)"
                )
            _refuse_changes(yaml.safe_load(file.read_text()), self.plain, self.run)
        elif file.exists() and not self.config.overwrite:
            raise FileExistsError(
                f"{self.run} holds a run already; give --resume, --overwrite or another --run"
            )

    def prepare_folder(self) -> None:
        """Clear or continue the run folder, once everything in the configuration has proved
        good."""
        if self.config.overwrite:
            for part in _PARTS:
                for found in self.run.glob(part):
                    shutil.rmtree(found) if found.is_dir() else found.unlink()
        for unfinished in (self.run / "checkpoints").glob(".*.part"):  # of a killed process
            unfinished.unlink()
        self.run.mkdir(parents=True, exist_ok=True)
        if (metrics := self.run / "metrics.csv").exists():  # Lightning's logger would delete it
            metrics.rename(
                self.run / f"metrics-{len(list(self.run.glob('metrics-*.csv'))):03d}.csv"
            )
        with replacing(self.run / "config.yaml") as file:
            file.write_text(yaml.safe_dump(self.plain, sort_keys=False))

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        settings = self.config_init["trainer"]
        loggers = [CSVLogger(self.run, "", ""), TensorBoardLogger(self.run, "tensorboard", "")]
        plugins = _as_list(settings.get("plugins"))
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(WholeCheckpoints())
        return super().instantiate_trainer(
            default_root_dir=settings.get("default_root_dir") or self.run,
            logger=loggers if settings.get("logger") in (None, True) else settings["logger"],
            callbacks=[*_as_list(settings.get("callbacks")), *self._callbacks(settings)],
            plugins=plugins,
            **kwargs,
        )

    def _callbacks(self, settings: Any) -> list[Callback]:
        folder, config = self.run / "checkpoints", self.config_init
        ours: list[Callback] = [
            Clock(),
            PredictionPictures(),
            RichProgressBar() if settings.get("enable_progress_bar") else EpochLines(),
            RunCheckpoint(folder, "best", monitor=WATCHED),
            # a callback of its own: the one above saves only when the validation error has fallen
            RunCheckpoint(folder, "last", every_n_epochs=1, save_on_train_epoch_end=True),
        ]
        if config.ema is not None:
            ours.insert(0, AveragedWeights(config.ema))
        if config.patience is not None:
            ours.insert(0, Patience(config.patience))
        if config.profile:
            ours.insert(0, Profile(self.run / "profile.txt"))
        return ours


def _as_list(given: Any) -> list[Any]:
    """What may be given as nothing, one thing or several."""
    if given is None:
        return []
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _is_first_process() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0


def _with_config_path(arguments: Sequence[str]) -> list[str]:
    """The arguments, with ``--config NAME`` turned into the path of the configuration of that
    name."""
    result = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, equals, value = argument.rpartition("=")
        is_config = option in ("--config", "-c") if equals else before in ("--config", "-c")
        is_content = ":" in value  # YAML or JSON, not the name of it
        if is_config and not is_content and not Path(value).is_file():
            argument = f"{option}{equals}{_configuration(value)}"
        result.append(argument)
    return result


def _configuration(name: str) -> Path:
    """The file of a configuration that comes with the package."""
    names = config_names()
    if name not in names:
        near = difflib.get_close_matches(Path(name).stem, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise FileNotFoundError(
            f"there is no file {name!r}, and no configuration of that name; {hint}sobolev comes with {', '.join(names)}"
        )
    return CONFIGS / f"{name}.yaml"


def _accelerator() -> str:
    """Lightning's choice, but never Apple's: it lacks the float64 in which grids and metrics are
    computed."""
    return "auto" if torch.cuda.is_available() or not torch.backends.mps.is_available() else "cpu"


def _checkpoint(path: Path) -> dict[str, Any]:
    """Epoch and optimiser of a checkpoint to go on from; raises ``FileNotFoundError`` or ``ValueError``
    for one that is no good."""
    if not path.exists():
        raise FileNotFoundError(
            f"there is no checkpoint to resume from ({path} is missing): the first is written after the first epoch; "
            "begin again with --overwrite"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        found = {name: checkpoint[name] for name in ("epoch", "optimizer_states")}
        return {**found, START: checkpoint.get(START)}
    except (RuntimeError, EOFError, OSError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} is damaged or holds more than tensors and numbers: {error}"
        ) from error


def _refuse_changes(before: dict[str, Any], now: dict[str, Any], run: Path) -> None:
    """A resumed run must have the settings it began with; only where and how to run may change."""
    trainer = (
        "max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm",
        "precision", "limit_train_batches", "devices", "num_nodes",
    )  # fmt: skip

    def binding(settings: dict[str, Any]) -> dict[str, Any]:
        parts = ("model", "data", "seed_everything", "ema", "patience", "find_learning_rate")
        chosen = {part: settings.get(part) for part in parts}
        chosen["trainer"] = {name: settings.get("trainer", {}).get(name) for name in trainer}
        chosen["data"] = {k: v for k, v in (chosen["data"] or {}).items() if k != "workers"}
        return chosen

    if changed := changes(binding(before), binding(now)):
        raise ValueError(
            f"{run} was begun with other settings of {', '.join(changed)}; learning rates and the order of samples "
            "follow from them, so resume with the same ones or train anew in another --run"
        )


def _keep_best(cli: _TrainCLI, surrogate: Surrogate) -> None:
    """Give the surrogate the weights that did best in validation, else the last ones, and the record of
    its training."""
    trainer, best, score, epoch = cli.trainer, _checkpoints(cli.trainer), None, None
    callbacks: list[Callback] = cast(Any, trainer).callbacks
    seconds = sum(next(c for c in callbacks if isinstance(c, Clock)).seconds, 0.0)
    if best.best_model_path and best.best_model_score is not None:
        checkpoint = _filled(surrogate, Path(best.best_model_path))
        score, epoch = float(best.best_model_score), checkpoint["epoch"] + 1
    elif surrogate is not cli.model.surrogate:
        _filled(surrogate, cli.run / "checkpoints" / "last.ckpt")
    surrogate.provenance["training"] = {
        "valid_relative_l2": score,
        "best_epoch": epoch,
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": round(seconds, 1),
        "seed": cli.config.seed_everything,
        "optimizer": type(trainer.optimizers[0]).__name__,
        "learning_rate": cli.model.learning_rate,
        "ema": cli.config.ema,
        "versions": {
            "sobolev": sobolev.__version__,
            "torch": torch.__version__,
            "lightning": lightning.__version__,
        },
    }
    done, wanted = trainer.current_epoch, epochs_of(trainer)
    early = f" (stopped early, of {wanted})" if wanted is not None and done < wanted else ""
    found = (
        "no validation"
        if score is None
        else f"best in epoch {epoch}: valid relative L² {score:.5f}"
    )
    _log.info(f"{done} epoch{'s' * (done != 1)}{early} in {duration(seconds)}; {found}")


def _filled(surrogate: Surrogate, path: Path) -> dict[str, Any]:
    """A checkpoint, whose weights the surrogate is given."""
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    weights = {
        name.removeprefix("surrogate."): values
        for name, values in checkpoint["state_dict"].items()
        if name.startswith("surrogate.")
    }
    surrogate.load_state_dict(weights)
    return checkpoint


def _checkpoints(trainer: lightning.Trainer) -> ModelCheckpoint:
    """The callback that watches the validation error, among those the user may have added."""
    return next(
        callback
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, RunCheckpoint) and callback.monitor == WATCHED
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice about loader processes and its tips for other products, and with its
    refusals of settings as ``ValueError``."""
    noisy = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
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
            # a run without validation has no best weights, and keeps its last
            warnings.filterwarnings("ignore", message=".*could not find the monitored key.*")
            yield
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
