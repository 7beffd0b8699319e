"""``sobolev boost``: the stages of a SpecBoost, each a train run of its own, in one run folder."""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import lightning
import rich.console
import rich.table
import torch
import yaml
from lightning.pytorch.cli import LightningArgumentParser

from sobolev.datasets import Manifest, OperatorDataModule
from sobolev.datasets.store.whole_files import replacing
from sobolev.evaluation import figures as plots
from sobolev.operators import SpecBoost, operator_from
from sobolev.surrogates.surrogate import Surrogate
from sobolev.training.boosting.stages import BoostingModule, error_spectra, frozen_on_purpose
from sobolev.training.callbacks.callbacks import Clock
from sobolev.training.module import OperatorModule
from sobolev.training.runs.fitting import _accelerator, _quiet, _TrainCLI, command_line, fit

_log = logging.getLogger("sobolev")


def boost_command(arguments: Sequence[str]) -> Path:
    """Boost as the command line says and return the run folder.

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
    with _quiet(), frozen_on_purpose():
        return _Boost(_BoostCLI.of(arguments)).finished()


_DESCRIPTION = """\
Train the stages of a SpecBoost one after another, each on what the earlier ones leave of the fields, rescaled: a
network that is trained on the fields themselves spends itself on the few modes that carry their energy. The
configuration is that of `sobolev train`, with a SpecBoost of two stages or more as model.operator; trainer.max_epochs,
or --epochs, is for each stage. The run folder receives config.yaml, a train run for each stage (stage-0, stage-1, ...),
surrogate (the stages that are finished), boosting.json, and spectra.png: the spectrum of what each stage leaves, beside
the truth's, on validation data. Examples: `sobolev boost --config burgers-specboost`, the same with `--epochs 60 120
--held-out 0.2`, or with `--resume --compare`.
"""


class _BoostCLI(_TrainCLI):
    """The command line of a whole boost, and of each of its stages."""

    @classmethod
    def of(cls, arguments: Sequence[str]) -> _BoostCLI:
        cli = command_line(cls, BoostingModule, arguments, "boost", _DESCRIPTION)
        assert isinstance(cli, cls)
        return cli

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


class _Boost:
    """A boost in its run folder: what of it is finished, and the rest."""

    def __init__(self, cli: _BoostCLI) -> None:
        booster = cli.model.booster
        if len(booster.stages) < 2:
            raise ValueError(
                "boosting needs a SpecBoost of two stages or more, this one has 1; add stages, or use `sobolev train`"
            )
        if cli.trainer.world_size > 1:
            raise ValueError(
                f"sobolev boost trains on one device, got {cli.trainer.world_size}; give --trainer.devices 1, or call "
                "sobolev.training.boosting.stages.boost with trainers of your own"
            )
        self.cli, self.run, self.resume = cli, cli.run, cli.config.resume
        self.settings = {
            "epochs": _per_stage(cli.plain["epochs"], len(booster.stages), cli.plain["trainer"]),
            "held_out": cli.plain["held_out"],
        }
        self.folders = [self.run / f"stage-{k}" for k in range(len(booster.stages))]
        self.data: OperatorDataModule = cli.datamodule  # of the first stage: validation is common
        self.identity = _identity(self.data.manifest)

    def finished(self) -> Path:
        """Train what is missing; the run folder."""
        comparison = _Comparison(self) if self.cli.config.compare else None
        self._begin()
        done = sum((folder / "surrogate").is_dir() for folder in self.folders)
        if done and not self._published(done):
            self._publish(done)
        for k in range(done, len(self.folders)):
            self._train(k)
            self._publish(k + 1)
        if done == len(self.folders):
            _log.info(f"{self.run}: all stages are complete; nothing is left to train")
        if comparison is not None:
            comparison.finished()
        return self.run

    def _begin(self) -> None:
        """Begin the run folder, or make sure that what it holds can be continued."""
        record = self.run / "boosting.json"
        if not self.resume:
            self.cli.model.check_ready(self.cli.trainer)
            self.cli.prepare_folder()
            _write_json(record, {"data": self.identity, **self.settings})
            return
        if not record.is_file():
            raise FileNotFoundError(f"there is no boost to resume in {self.run}: no {record.name}")
        before = json.loads(record.read_text())
        if other := _differing(before["data"], self.identity):
            raise ValueError(
                f"{self.run} was begun on another data set: {self.data.path} has other {', '.join(other)} now. Stages "
                "learn residuals of the fields that the earlier ones saw; boost anew in another --run"
            )
        if other := _differing({name: before[name] for name in self.settings}, self.settings):
            raise ValueError(
                f"{self.run} was begun with other settings of {', '.join(other)}; resume with the same ones or boost "
                "anew in another --run"
            )

    def _train(self, k: int) -> None:
        """Train stage ``k``, or the rest of it."""
        own = ["--stage", str(k), "--trainer.max_epochs", str(self.settings["epochs"][k])]
        config = ["--config", str(self.run / "config.yaml")]
        stage = _BoostCLI.of([*config, *own, *_where(self.folders[k])])
        if k and not stage.config.resume:
            stage.model.follow(Surrogate.load(self.folders[k - 1] / "surrogate"))
        fit(stage)

    def _published(self, count: int) -> bool:
        stages = json.loads((self.run / "boosting.json").read_text()).get("stages", [])
        return len(stages) == count and (self.run / "surrogate").is_dir()

    def _publish(self, count: int) -> None:
        """Save what the first ``count`` stages make together, and show what each of them leaves."""
        stages = [self._account(k) for k in range(count)]
        errors = [stage["valid"]["relative_l2"] for stage in stages]
        best = 1 + min(range(count), key=errors.__getitem__)
        surrogate = _loaded(self.folders[count - 1])
        wavenumbers, spectra = error_spectra(surrogate, self.data)
        for k in range(count):
            self._draw(self.folders[k] / "spectrum.png", wavenumbers, spectra, max(k - 1, 0), k)
        self._draw(self.run / "spectra.png", wavenumbers, spectra, 0, count - 1)
        cast(SpecBoost, surrogate.operator).active = best
        surrogate.provenance["boosting"] = {"data": self.identity, "stages": stages, "active": best}
        seconds = sum(stage["seconds"] for stage in stages)
        surrogate.provenance["training"] |= {
            "valid_relative_l2": errors[best - 1], "seconds": seconds,
        }  # fmt: skip
        surrogate.save(self.run / "surrogate")
        content = {"data": self.identity, **self.settings, "stages": stages, "active": best}
        spectrum = {"wavenumbers": wavenumbers.tolist(), "spectra": spectra.tolist()}
        _write_json(self.run / "boosting.json", {**content, **spectrum})
        path = " → ".join(f"{error:.5f}" for error in errors)
        _log.info(f"{count} of {len(self.folders)} stages: valid relative L² {path}")
        if best < count:
            _log.warning(f"no later stage improves on stage {best - 1}; the surrogate ends with it")

    def _account(self, k: int) -> dict[str, Any]:
        return {
            **_cost(self.folders[k]),
            "samples": _loaded(self.folders[k]).provenance["boosting"]["samples"],
            "valid": _scores(_loaded(self.folders[k]), self.data, "valid"),
        }

    @staticmethod
    def _draw(
        file: Path, wavenumbers: torch.Tensor, spectra: torch.Tensor, first: int, last: int
    ) -> None:
        errors = {f"after stage {k}": spectra[k + 1] for k in range(first, last + 1)}
        plots.save(plots.stage_spectra(wavenumbers, spectra[0], errors), file)


class _Comparison:
    """A finished boost beside a single operator and an ensemble that are trained for as long.

    The single operator is the last stage's, of such a width that it has as many parameters as all
    stages. The ensemble averages the stages' operators, each trained on the fields themselves for as
    long as the stage was, from seeds of its own. Neither is given a prediction so far as further
    input. Epochs are chosen by the measured time of one epoch.
    """

    def __init__(self, boost: _Boost) -> None:
        self.boost, self.run = boost, boost.run
        booster: SpecBoost = boost.cli.model.booster
        given = boost.cli.plain["model"]["operator"]["init_args"]["stages"]
        self.stages = [_stage_alone(stage, booster.in_channels) for stage in given]
        self.parameters = sum(p.numel() for p in booster.parameters())
        self.single = _of_size(self.stages[-1], self.parameters)

    def finished(self) -> None:
        """Train what is missing, save the table and print it."""
        times = [_cost(folder)["seconds"] for folder in self.boost.folders]
        single, ensemble = self.run / "single", self.run / "ensemble"
        self._train(single, self.single, sum(times), seed=0)
        members = [ensemble / f"member-{k}" for k in range(len(times))]
        for k, (stage, seconds) in enumerate(zip(self.stages, times, strict=True)):
            self._train(members[k], stage, seconds, seed=k + 1)
        average([_loaded(member) for member in members]).save(ensemble / "surrogate")
        table = {
            "boosting": self._entry(self.run, self.boost.folders),
            "single": self._entry(single, [single]),
            "ensemble": self._entry(ensemble, members),
        }
        reference = table["boosting"]
        for entry in table.values():
            for name in ("parameters", "seconds"):
                entry[f"{name}_ratio"] = entry[name] / reference[name]
        table["single"]["operator"] = self.single
        _write_json(self.run / "comparison.json", table)
        _print(table)

    def _train(self, run: Path, operator: dict[str, Any], seconds: float, seed: int) -> None:
        """Train ``operator`` on the fields themselves for about so many seconds, or the rest."""
        if (run / "surrogate").is_dir():
            return
        settings = self._settings(operator, seed)
        if (run / "checkpoints" / "last.ckpt").is_file():
            epochs = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"]
        else:
            _log.info(f"{run}: two epochs to time them")
            epochs = max(1, round(seconds / _seconds_per_epoch(settings)))
        _log.info(f"{run}: {epochs} epochs, about {seconds:.0f} s")
        _fit_plainly(settings, epochs, run)

    def _settings(self, operator: dict[str, Any], seed: int) -> dict[str, Any]:
        """The boost's configuration, as one of `sobolev train` for one operator."""
        plain = copy.deepcopy(self.boost.cli.plain)
        for name in ("epochs", "held_out", "compare"):
            del plain[name]
        plain["model"]["operator"] = operator
        plain["data"]["seed"] += seed
        plain["seed_everything"] = int(plain["seed_everything"]) + seed
        return plain

    def _entry(self, folder: Path, runs: Sequence[Path]) -> dict[str, Any]:
        """Cost and errors of the surrogate in ``folder``, which the ``runs`` have trained."""
        surrogate, costs = _loaded(folder), [_cost(run) for run in runs]
        data = self.boost.data
        return {
            "parameters": sum(p.numel() for p in surrogate.operator.parameters()),
            "epochs": [cost["epochs"] for cost in costs],
            "seconds": sum(cost["seconds"] for cost in costs),
            "valid": _scores(surrogate, data, "valid"),
            "test": _scores(surrogate, data, "test") if "test" in data.manifest.splits else None,
        }


def average(members: Sequence[Surrogate]) -> Surrogate:
    """The mean of the members' predictions as one surrogate: a SpecBoost of scales 1/n."""
    booster = SpecBoost([copy.deepcopy(member.operator) for member in members])
    booster.scale[:] = 1 / len(members)
    surrogate = copy.deepcopy(members[0])
    surrogate.operator = booster
    return surrogate.eval()


def _fit_plainly(settings: Mapping[str, Any], epochs: int, run: Path) -> None:
    """Train as ``sobolev train`` would with these settings, or continue."""
    content = {**settings, "trainer": {**settings["trainer"], "max_epochs": epochs}}
    arguments = ["--config", json.dumps(content), *_where(run)]
    fit(command_line(_TrainCLI, OperatorModule, arguments, "boost", _DESCRIPTION))


def _seconds_per_epoch(settings: Mapping[str, Any]) -> float:
    """Time of the second epoch of a run that is thrown away, and neither logged nor drawn."""
    bare = {**settings, "trainer": {**settings["trainer"], "logger": False, "callbacks": None}}
    with tempfile.TemporaryDirectory() as folder:
        _fit_plainly(bare, 2, Path(folder))
        return _epoch_seconds(Path(folder))[-1]


def _epoch_seconds(run: Path) -> list[float]:
    """Seconds of each epoch behind a run's last checkpoint."""
    last = torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    return last["callbacks"][Clock().state_key]["seconds"]


def _cost(run: Path) -> dict[str, Any]:
    seconds = _epoch_seconds(run)
    return {"epochs": len(seconds), "seconds": sum(seconds)}


def _loaded(run: Path) -> Surrogate:
    return Surrogate.load(run / "surrogate")


def _scores(surrogate: Surrogate, data: OperatorDataModule, split: str) -> dict[str, float]:
    """The scores of training, on the validation or the test split."""
    judge = lightning.Trainer(
        accelerator=_accelerator(), devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    module = OperatorModule(copy.deepcopy(surrogate.operator), data)
    module.surrogate = copy.deepcopy(surrogate)  # with all that belongs to its predictions
    run = {"valid": judge.validate, "test": judge.test}[split]
    return {
        name.removeprefix(f"{split}/"): value
        for name, value in run(module, data, verbose=False)[0].items()
    }


def _where(run: Path) -> list[str]:
    """Options that continue a run at its last checkpoint, or begin it anew where there is none."""
    begun = (run / "checkpoints" / "last.ckpt").is_file()
    return ["--run", str(run), "--resume" if begun else "--overwrite"]


def _per_stage(epochs: list[int] | None, stages: int, trainer: Mapping[str, Any]) -> list[int]:
    """Epochs of each stage.

    Raises:
        ValueError: if nobody said how many, or another number of them than there are stages.
    """
    given = epochs or ([trainer["max_epochs"]] if trainer["max_epochs"] else [])
    if len(given) not in (1, stages) or any(count < 1 for count in given):
        raise ValueError(
            f"give --epochs (or trainer.max_epochs) one number of at least 1 for all {stages} stages, or one for each; "
            f"got {given or 'none'}"
        )
    return given * stages if len(given) == 1 else given


def _identity(manifest: Manifest) -> dict[str, Any]:
    """What makes a data set this one to those who train on it."""
    samples = {
        f"{split} samples": hashlib.sha256(
            "".join(shard.sha256 for shard in manifest.splits[split]).encode()
        ).hexdigest()
        for split in ("train", "valid")
        if split in manifest.splits
    }
    return {
        "recipe": manifest.recipe,
        "seed": manifest.seed,
        "resolution": manifest.resolution,
        **samples,
    }


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


def _stage_alone(stage: Mapping[str, Any], in_channels: int) -> dict[str, Any]:
    """A stage of a configuration as an operator of its own, on ``in_channels``."""
    name = stage.get("class_path") or f"sobolev.operators.{stage['class']}"
    arguments = dict(stage.get("init_args") or stage.get("arguments") or {})
    if "in_channels" in arguments:
        arguments["in_channels"] = in_channels
    return {"class_path": name, "init_args": arguments}


def _of_size(operator: Mapping[str, Any], parameters: int) -> dict[str, Any]:
    """``operator`` with the width that brings it closest to so many parameters.

    Raises:
        ValueError: if it has no width.
    """
    name = operator["class_path"].rpartition(".")[2]
    if not isinstance(operator["init_args"].get("width"), int):
        raise ValueError(
            f"--compare varies the width of the last stage to match parameters; {name} has none: leave --compare out"
        )

    def of(width: int) -> dict[str, Any]:
        return {**operator, "init_args": {**operator["init_args"], "width": width}}

    def size(width: int) -> int:
        with torch.device("meta"):
            built = operator_from({"class": name, "arguments": of(width)["init_args"]})
        return sum(p.numel() for p in built.parameters())

    high = 1
    while size(high) < parameters:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < parameters else (low, middle)
    return of(min((w for w in (low, high) if w), key=lambda w: abs(size(w) - parameters)))


def _print(table: Mapping[str, Mapping[str, Any]]) -> None:
    """The comparison on the terminal."""
    splits = [split for split in ("valid", "test") if table["boosting"][split]]
    single = table["single"]["operator"]
    width, name = single["init_args"]["width"], single["class_path"].rpartition(".")[2]
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


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    with replacing(file) as part:
        part.write_text(json.dumps(content, indent=1) + "\n")
