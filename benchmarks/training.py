"""Our operators beside other codes' after equal time of training, on the same data.

    .venv/bin/python benchmarks/training.py burgers --minutes 10 --data data/burgers
    .venv/bin/python benchmarks/training.py darcy --minutes 60 --data data/darcy --theirs neuralop neuralop@5e-3
    .venv/bin/python benchmarks/training.py swe --minutes 60 --data data/swe --ours swe-sfno swe-fno

--ours names configurations that come with sobolev (or YAML files), --theirs other codes' networks (THEIRS, below),
each with @RATE for another peak of the learning rate than its configuration's (for others' 2e-3). Ours are trained by
their configuration's optimizer, other codes' by AdamW (neuralop's by neuralop's, which is made for complex weights);
with `--model.optimizer torch.optim.AdamW --ours CONFIG@RATE --theirs` ours are too. They are trained one after the
other. For all of them the same are:

- data, augmentation, loss, weight decay and warm-up of the first configuration of --ours (of the problem's, if that
  is empty), for all of --theirs; batches come in the same order. Fields are normalised inside, in the same way.
  Further configurations have their own.
- training by Lightning with our OperatorModule, on the CPU in float32, gradients clipped at norm 1, from one seed.
  Eager, unless --compile, which is for ours alone.
- the time. Only steps count: forward, backward and optimizer, from when a batch is there until it is done, tables
  and graphs made on the way included. Loading of batches, validation, checkpoints and judging count for nobody. The
  cycle of learning rates (warm-up, then a cosine to zero) runs over that time instead of a number of steps, so that
  each network ends its cycle, whatever its speed; a disturbed machine takes steps away but bends no schedule. "ms a
  step" is the median: if it times the steps falls short of the minutes, the machine was disturbed.
- the judge. The last weights are judged, without a choice by validation error. Errors are OperatorModule's scores,
  means over all test items. For trajectories these are of one step from true frames, and beside them stands the
  rollout: from the first frames of each test trajectory to its end, error over all its predicted frames and of the
  last one.

OUT (runs/comparison/PROBLEM) receives for each network `result.json`, `curve.csv` (validation error against time)
and for ours `surrogate/`; and `curves.png`. A run that was cut short goes on with --resume, from checkpoints at
most two minutes old; the pass over the data that it was in then begins anew. Any further options, such as
--data.train_samples 100 or --model.weight_decay 0, override the configurations.

neuralop has no place among the project's own dependencies:

    .venv/bin/pip install --no-deps neuraloperator==2.0.0 tensorly tensorly-torch opt-einsum requests

Its FNO is taken with its defaults (two-layer lifting, grid embedding, channel MLPs in the blocks), at the modes and
the width of our FNO; "-plain" is the FNO paper's network, as ours is, and faster; "-padded" extends the domain by a
quarter, as one does where it is not periodic. What is known to be wrong in the library is not in the way: all grids
are those of the training data, kept modes are even in number, norms in the loss are ours.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from matplotlib.figure import Figure
from torch import Tensor, nn

from sobolev.datasets import OperatorDataModule
from sobolev.grids.norms import relative_error
from sobolev.operators import Operator
from sobolev.solvers import AbstractGrid, SphereGrid
from sobolev.training import OperatorModule
from sobolev.training.callbacks.checkpoints import WholeCheckpoints
from sobolev.training.runs.configurations import CONFIGS

POINTS = 40
"""Validations along a run."""
JUDGED = 200
"""Validation items of a point, spread over the split."""
BATCH = 20
"""Fields at a time outside of training."""
ADAM_RATE = 2e-3
"""Peak of other codes' learning rate, unless another is asked for."""
INTERVAL = timedelta(minutes=2)
"""Between checkpoints."""


@dataclass(frozen=True)
class Problem:
    """What is compared by default: our configuration and other codes' networks, and the size of these."""

    ours: str
    theirs: tuple[str, ...]
    modes: tuple[int, ...]
    width: int


PROBLEMS = {
    "burgers": Problem("burgers-fno", ("neuralop",), (24,), 64),
    "darcy": Problem("darcy-fno", ("neuralop", "neuralop-padded"), (12, 12), 32),
    "ns-1e-3": Problem("ns-1e-3-fno", ("neuralop",), (12, 12), 32),
    "ns-1e-5": Problem("ns-1e-5-fno", ("neuralop",), (12, 12), 32),
    "ns-sym": Problem("ns-sym-gfno", ("neuralop",), (12, 12), 20),
    "swe": Problem("swe-sfno", ("torch-harmonics", "torch-harmonics-residual"), (20, 32), 32),
}


def neuralop_fno(problem: Problem, data: OperatorDataModule, **options: Any) -> nn.Module:
    from neuralop.models import FNO

    return FNO(
        n_modes=tuple(2 * m for m in problem.modes), hidden_channels=problem.width, n_layers=4,
        in_channels=data.in_channels, out_channels=data.out_channels, **options,
    )  # fmt: skip


def plain_fno(problem: Problem, data: OperatorDataModule) -> nn.Module:
    return neuralop_fno(
        problem, data, lifting_channel_ratio=0, positional_embedding=None, use_channel_mlp=False
    )


def padded_fno(problem: Problem, data: OperatorDataModule) -> nn.Module:
    return neuralop_fno(problem, data, domain_padding=0.125)  # on either side


def spherical_fno(problem: Problem, data: OperatorDataModule, **options: Any) -> nn.Module:
    from torch_harmonics.examples.models import SphericalFourierNeuralOperator

    if not isinstance(data.grid, SphereGrid):
        raise ValueError(
            "torch-harmonics' network works on a sphere; neuralop's FNO is for the rest"
        )
    return SphericalFourierNeuralOperator(
        img_size=data.grid.shape, grid=data.grid.kind, grid_internal="legendre-gauss", scale_factor=2,
        in_chans=data.in_channels, out_chans=data.out_channels, embed_dim=problem.width, num_layers=4, **options,
    )  # fmt: skip


def residual_spherical_fno(problem: Problem, data: OperatorDataModule) -> nn.Module:
    return spherical_fno(problem, data, residual_prediction=True, pos_embed="learnable lat")


THEIRS: dict[str, Callable[[Problem, OperatorDataModule], nn.Module]] = {
    "neuralop": neuralop_fno,
    "neuralop-plain": plain_fno,
    "neuralop-padded": padded_fno,
    "torch-harmonics": spherical_fno,
    "torch-harmonics-residual": residual_spherical_fno,
}


class Foreign(Operator):
    """Another code's network with the face of our operators, to be normalised and judged as they are."""

    def __init__(self, network: nn.Module, data: OperatorDataModule) -> None:
        super().__init__()
        self.network, self._ndim = network, data.grid.ndim
        self.in_channels, self.out_channels = data.in_channels, data.out_channels
        self.register_state_dict_post_hook(_without_metadata)

    @property
    def ndim(self) -> int:
        return self._ndim

    def check_grid(self, grid: AbstractGrid) -> None:
        """It was built for the grid of its data."""

    def forward(self, u: Tensor, size: Sequence[int] | None = None) -> Tensor:
        self.check(u)
        return self.network(u)


def _without_metadata(module: nn.Module, state: dict[str, Any], *_: Any) -> None:
    """neuralop's networks put their constructor's arguments there, which no module takes back."""
    state.pop("_metadata", None)


class Timed(OperatorModule):
    """An ``OperatorModule`` whose learning rate ``Clock`` sets."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._optimizer()


class Clock(Callback):
    """Counts the time of the steps, sets the learning rate by it, validates along it and stops when
    it is over."""

    def __init__(self, seconds: float, out: Path) -> None:
        self.seconds, self.out = seconds, out
        self.spent = 0.0
        self.times: list[float] = []
        self.curve: list[tuple[float, int, float]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"spent": self.spent, "times": self.times, "curve": self.curve}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.spent, self.times = state_dict["spent"], state_dict["times"]
        self.curve = [tuple(point) for point in state_dict["curve"]]

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: OperatorModule, batch: Any, batch_idx: int
    ) -> None:
        share = min(self.spent / self.seconds, 1.0)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = pl_module.learning_rate * one_cycle(share, pl_module.warmup)
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: OperatorModule, *_: Any
    ) -> None:
        marks = self._marks()
        self.times.append(time.perf_counter() - self._start)
        self.spent += self.times[-1]
        if self._marks() > marks:
            error = validation_error(pl_module, trainer.datamodule)
            self.curve.append((self.spent, len(self.times), error))
            print(
                f"  {self.spent / 60:6.1f} min  {len(self.times):7d} steps  {error:.5f}", flush=True
            )
            self._write()
        if self.spent >= self.seconds:
            trainer.should_stop = True

    def _marks(self) -> int:
        """How many times of validation lie behind."""
        return math.floor(POINTS * self.spent / self.seconds)

    def _write(self) -> None:
        with (self.out / "curve.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["seconds", "steps", "valid_relative_l2"])
            writer.writerows(self.curve)


def one_cycle(share: float, warmup: float) -> float:
    """Of the peak, after this share of the cycle: ``torch.optim.lr_scheduler.OneCycleLR``'s defaults."""
    first, last = 1 / 25, 1 / 25e4
    if share < warmup:
        begin, end, x = first, 1.0, share / warmup
    else:
        begin, end, x = 1.0, last, (share - warmup) / (1 - warmup)
    return end + (begin - end) * (1 + math.cos(math.pi * x)) / 2


@torch.no_grad()
def validation_error(module: OperatorModule, data: OperatorDataModule) -> float:
    """Mean relative L² error of one application over some validation items."""
    items, surrogate = data.pairs("valid"), module.surrogate
    some = items[:: math.ceil(len(items) / JUDGED)]
    module.eval()
    errors = []
    for inputs, targets in zip(*(u.split(BATCH) for u in some), strict=True):
        p = surrogate(inputs)
        p, y = surrogate.comparable(p), surrogate.comparable(targets[:, : p.shape[1]])
        errors.append(relative_error(p.double(), y.double(), data.grid))
    module.train()
    return float(torch.cat(errors).mean())


@torch.no_grad()
def rollout_errors(module: OperatorModule, data: OperatorDataModule) -> dict[str, float]:
    """From the first frames of every test trajectory to its end, over all frames and at the last."""
    surrogate = module.surrogate.eval()
    window, frames = surrogate.in_time, len(data.manifest.times[:: surrogate.in_time.stride])
    horizon = frames - window.history
    whole = OperatorDataModule(
        data.path, resolution=data.grid.shape[0], restriction=data.restriction,
        window=[window.history, horizon, window.stride],
    ).pairs("test")  # fmt: skip
    over, last = [], []
    for i in range(0, len(whole), BATCH):
        inputs, targets = whole[i : i + BATCH]
        p = surrogate.comparable(surrogate.unrolled(inputs, horizon)).double()
        y = surrogate.comparable(targets.unflatten(1, (horizon, -1))).double()
        over.append(relative_error(p.flatten(1, 2), y.flatten(1, 2), data.grid))
        last.append(relative_error(p[:, -1], y[:, -1], data.grid))
    mean = {name: float(torch.cat(e).mean()) for name, e in (("rollout", over), ("last", last))}
    return {
        "rollout_frames": horizon,
        "rollout_relative_l2": mean["rollout"],
        "last_frame_relative_l2": mean["last"],
    }


@dataclass(frozen=True)
class Result:
    """A row of the table."""

    name: str
    optimizer: str
    learning_rate: float
    parameters: int
    minutes: float
    steps: int
    milliseconds: float
    protocol: str
    loss: str
    scores: dict[str, float]


def compare(
    problem: Problem, options: argparse.Namespace, overrides: Sequence[str]
) -> list[Result]:
    """Train and judge all networks, but for those that are finished already."""
    ours, theirs = (
        [rated(name) for name in (usual if asked is None else asked)]
        for asked, usual in ((options.ours, [problem.ours]), (options.theirs, problem.theirs))
    )
    if not ours and not theirs:
        raise ValueError("--ours and --theirs are both empty: there is nothing to train")
    first = ours[0][0] if ours else problem.ours
    for name, _ in theirs:
        if name not in THEIRS:
            raise ValueError(f"--theirs knows {', '.join(THEIRS)}; got {name!r}")
    results = []
    for name, rate in ours + theirs:
        plain = Path(name).stem if name.endswith((".yaml", ".yml")) else name
        label = plain if rate is None else f"{plain}@{rate:g}"
        out = options.out / label
        file = out / "result.json"
        if options.resume and file.exists():
            results.append(Result(**json.loads(file.read_text())))
            continue
        if out.exists() and any(out.iterdir()) and not options.resume:
            raise FileExistsError(f"{out} holds a run already; give --resume or another --out")
        print(label, flush=True)
        own = (name, rate) in ours
        lightning.seed_everything(options.seed, verbose=False)
        settings = configured(name if own else first, options, overrides)
        module = built(
            settings, None if own else THEIRS[name], problem, rate, options.compile and own
        )
        results.append(trained(label, module, settings, options, out))
        if own:
            module.surrogate.save(out / "surrogate")
        part = file.with_suffix(".part")
        part.write_text(json.dumps(asdict(results[-1]), indent=1) + "\n")
        part.replace(file)
    return results


def rated(name: str) -> tuple[str, float | None]:
    """``NAME[@RATE]`` in parts."""
    name, _, rate = name.partition("@")
    return name, float(rate) if rate else None


def configured(config: str, options: argparse.Namespace, overrides: Sequence[str]) -> Namespace:
    """The settings of a configuration; data module and operator are built, the module's arguments stay
    settings."""
    path = CONFIGS / f"{config}.yaml" if (CONFIGS / f"{config}.yaml").is_file() else Path(config)
    parser = ArgumentParser(prog="benchmarks/training.py")
    parser.add_argument("--config", action="config")
    parser.add_argument("--trainer", type=dict, default={})
    parser.add_class_arguments(OperatorDataModule, "data")
    parser.add_class_arguments(OperatorModule, "model", skip={"data"}, instantiate=False)
    given = [
        "--config",
        str(path),
        "--data.path",
        str(options.data),
        "--data.seed",
        str(options.seed),
    ]
    settings = parser.parse_args([*given, *overrides])
    settings.words = json.loads(parser.dump(settings, format="json"))["model"].get("loss")
    return parser.instantiate(settings)


def built(
    settings: Namespace,
    network: Callable[[Problem, OperatorDataModule], nn.Module] | None,
    problem: Problem,
    rate: float | None,
    compile: bool,
) -> Timed:
    """The module to train, of the configuration's own operator or of another code's network."""
    model = dict(settings.model)
    if network is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model["operator"] = Foreign(network(problem, settings.data), settings.data)
        model["optimizer"] = adam_for(model["operator"].network)
        model["learning_rate"] = ADAM_RATE
    if rate is not None:
        model["learning_rate"] = rate
    return Timed(data=settings.data, **{**model, "compile": compile})


def adam_for(network: nn.Module) -> Callable[..., torch.optim.Optimizer]:
    """AdamW, neuralop's for its own networks, which is made for complex weights."""
    if type(network).__module__.startswith("neuralop"):
        from neuralop.training import AdamW

        return AdamW
    return torch.optim.AdamW


def trained(
    label: str, module: Timed, settings: Namespace, options: argparse.Namespace, out: Path
) -> Result:
    """Train for the time there is, and judge."""
    out.mkdir(parents=True, exist_ok=True)
    clock = Clock(60 * options.minutes, out)
    kept = ModelCheckpoint(out, "last", train_time_interval=INTERVAL, enable_version_counter=False)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, max_epochs=10**9, limit_val_batches=0, num_sanity_val_steps=0,
        gradient_clip_val=1.0, callbacks=[clock, kept], plugins=[WholeCheckpoints()], logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    latest = out / "last.ckpt"
    trainer.fit(
        module, settings.data, ckpt_path=latest if options.resume and latest.exists() else None,
        weights_only=True,
    )  # fmt: skip
    module.eval()
    (found,) = trainer.test(module, settings.data, verbose=False)
    scores = {name.removeprefix("test/"): value for name, value in found.items()}
    if settings.data.manifest.times:
        scores |= rollout_errors(module, settings.data)
    return Result(
        label, type(trainer.optimizers[0]).__name__, module.learning_rate, count(module),
        clock.spent / 60, len(clock.times), 1e3 * statistics.median(clock.times),
        module.surrogate.provenance.protocol, loss_in_words(settings.words), scores,
    )  # fmt: skip


def loss_in_words(loss: Any) -> str:
    if not isinstance(loss, Mapping):
        return "relative L²"
    return json.dumps({loss["class_path"].rpartition(".")[2]: loss.get("init_args", {})})


def count(module: nn.Module) -> int:
    """Real parameters, a complex one counted as two."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in module.parameters())


def table(results: Sequence[Result]) -> str:
    """Markdown; in the last column the first row's relative L² error over this row's."""
    names = list(results[0].scores)
    heads = [
        "model",
        "optimizer",
        "peak rate",
        "parameters",
        "minutes",
        "steps",
        "ms a step",
        *names,
        "first / this",
    ]
    rows = [heads, ["---"] * len(heads)]
    for r in results:
        ratio = results[0].scores["relative_l2"] / r.scores["relative_l2"]
        rows.append([
            r.name, r.optimizer, f"{r.learning_rate:g}", str(r.parameters), f"{r.minutes:.1f}", str(r.steps),
            f"{r.milliseconds:.0f}", *(f"{r.scores[n]:.4g}" for n in names), f"{ratio:.2f}",
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def draw(results: Sequence[Result], out: Path) -> None:
    """The validation errors against time."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for r in results:
        with (out / r.name / "curve.csv").open() as file:
            points = [
                (float(p["seconds"]) / 60, float(p["valid_relative_l2"]))
                for p in csv.DictReader(file)
            ]
        axes.semilogy(
            *zip(*points, strict=True), marker=".", label=f"{r.name} ({r.parameters:,} parameters)"
        )
    axes.set(xlabel="minutes of training", ylabel="relative L² error, validation")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    figure.savefig(out / "curves.png", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("problem", choices=PROBLEMS)
    parser.add_argument(
        "--minutes", type=float, required=True, help="of training, for each network"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument(
        "--ours", nargs="*", metavar="CONFIG[@RATE]", help="configurations; none if empty"
    )
    parser.add_argument(
        "--theirs", nargs="*", metavar="NAME[@RATE]", help=f"of {', '.join(THEIRS)}; none if empty"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder (default: runs/comparison/PROBLEM)")
    parser.add_argument(
        "--compile", action="store_true", help="compile our networks; the time that takes counts"
    )
    parser.add_argument("--resume", action="store_true", help="continue what is in OUT")
    options, overrides = parser.parse_known_args()
    options.out = options.out or Path("runs/comparison") / options.problem
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings(
        "ignore", message=".*(many workers|treespec|LeafSpec|val_dataloader|validation_step).*"
    )
    results = compare(PROBLEMS[options.problem], options, overrides)
    print(
        f"\n{options.problem}, {options.minutes:g} minutes of training each, seed {options.seed}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, overrides: {' '.join(overrides) or 'none'}"
    )
    for words in dict.fromkeys(f"Protocol: {r.protocol}. Loss: {r.loss}." for r in results):
        print(words)
    print(f"\n{table(results)}")
    draw(results, options.out)
    print(f"\ncurves: {options.out / 'curves.png'}")


if __name__ == "__main__":
    main()
