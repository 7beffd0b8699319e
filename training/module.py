"""The training step, as Lightning wants it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import lightning
import torch
from jaxtyping import Float
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer

from sobolev.datasets import OperatorDataModule
from sobolev.datasets.loading.windows import AllToAll
from sobolev.grids import AbstractGrid
from sobolev.grids.checks import check_whole, plain
from sobolev.grids.streams import Key, stream
from sobolev.operators import Operator, SpecBoost, channel_axes
from sobolev.operators.layers.spectral_conv import full_precision
from sobolev.training.losses import FieldLoss, SobolevLoss, made_for
from sobolev.training.metrics import RelativeError
from sobolev.training.noise import with_noise
from sobolev.training.optimizers.soap import SOAP
from sobolev.training.protocol import protocol_of
from sobolev.training.untrained import go_on_from, untrained

SHARDED = (FSDPStrategy, ModelParallelStrategy)
"""Strategies under which no process holds the whole weights."""
START = "start"
"""Key of the record of the surrogate that training started from, in provenance and checkpoints."""
Batch = tuple[Float[Tensor, "batch inputs *space"], Float[Tensor, "batch targets *space"]]
"""Given and wanted fields of some samples; the frames of trajectories are channels."""
_NEVER = torch.iinfo(torch.int64).max


class OperatorModule(lightning.LightningModule):
    """Fit an operator to the fields of a data module: AdamW, one cycle of learning rates, a
    relative Sobolev loss.

    What is trained is a ``Surrogate``: normalisation is inside, so that the trained thing is the
    saved thing.

    **Loss and scores** are those of ``surrogate.comparable`` fields, taken over all predicted frames
    and variables of a sample; given frames are never among them. For a single quantity the score
    ``relative_l2`` is the published ‖p − y‖ / ‖y‖, the mean over samples; frames of a quantity
    are one quantity. Several quantities are measured about their training means μ in their training
    standard deviations σ, (Σ_v ‖p_v − y_v‖²/σ_v²)^½ / (Σ_v ‖y_v − μ_v‖²/σ_v²)^½, and each is scored
    by itself too: ``relative_l2/NAME`` is ‖p_v − y_v‖ / ‖y_v − μ_v‖.

    **Trajectories.** The operator's channels say how many frames one application gives. If the data's
    window has more, the operator is applied to its own predictions until it has them all, in training
    and in validation. A window of one application is teacher forcing. Which of these was done is
    said in ``surrogate.provenance.protocol``; scores of different protocols are not comparable.

    Args:
        operator: maps normalised inputs to normalised outputs.
        data: where the fields come from; gives grid, variables and normalisation.
        loss: class of the loss, or a function that makes it for a grid. It gets ``(batch, time,
            variables, *space)``, with one time where there is none.
        optimizer: class of the optimizer, or a function that makes it of parameters, ``lr`` and
            ``weight_decay``; AdamW by default, but ``SOAP`` learns more per step.
        learning_rate: peak of the cycle (Smith & Topin 2019).
        weight_decay: the optimizer's.
        warmup: share of the steps in which the learning rate rises.
        gradient_frames: let the gradient of a frame pass through at most so many applications of the
            operator (``rollout``); 1 is the pushforward, all by default.
        noise: standard deviation, in those of each variable, of noise that is added to the given frames
            of training batches.
        noise_spectrum: ``"white"``, independent from node to node, or ``"pink"``, of equal variance in
            every octave of wavenumbers. White noise hardly reaches the large scales, where rollouts
            of waves go astray.
        conserve: make the integral over the domain of each conserved quantity in the predictions that
            of the (last) input: those that the data's recipe declares, or a mapping from names of
            outputs to names of inputs. Of trajectories, each quantity by its name twice.
        compile: compile the surrogate with ``torch.compile``.
        checkpointing: recompute the layers' activations in the backward pass: about a third more
            time for a fraction of the memory.
        start: folder of a run or a surrogate to go on from, for fine-tuning, or for a curriculum from
            one step to unrolled windows: its weights, and its normalisation instead of the data's, so
            that training begins with the very function that was saved. ``surrogate.provenance.start``
            is that surrogate's, with the SHA-256 of its weights. The learning rates are a new cycle.

    >>> data = OperatorDataModule("data/burgers")                                   # doctest: +SKIP
    >>> operator = FNO(1, 1, modes=(16,), width=64)                                 # doctest: +SKIP
    >>> h1 = functools.partial(SobolevLoss, order=1.0)                              # doctest: +SKIP
    >>> module = OperatorModule(operator, data, loss=h1)                            # doctest: +SKIP
    >>> lightning.Trainer(max_epochs=100).fit(module, data)                         # doctest: +SKIP
    >>> module.surrogate.save("runs/burgers/surrogate")                             # doctest: +SKIP

    Raises:
        ValueError: for an operator whose channels are not those of the data, or whose applications do
            not reach the window's horizon, options that have no meaning for the data, and a surrogate to
            start from that has another operator, other variables, kept integrals or averaged symmetries, or
            another grid but for its resolution.
        FileNotFoundError: if there is no surrogate to start from.
    """

    def __init__(
        self,
        operator: Operator,
        data: OperatorDataModule,
        *,
        loss: Callable[[AbstractGrid], FieldLoss] = SobolevLoss,
        optimizer: Callable[..., Optimizer] | None = None,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        warmup: float = 0.1,
        gradient_frames: int | None = None,
        noise: float = 0.0,
        noise_spectrum: Literal["white", "pink"] = "white",
        conserve: bool | dict[str, str] = False,
        compile: bool = False,
        checkpointing: bool = False,
        start: str | Path | None = None,
    ) -> None:
        super().__init__()
        operator.checkpointing = checkpointing
        self.loss = made_for(data.grid, loss)
        self.optimizer = optimizer
        self.learning_rate = plain(learning_rate)
        self.weight_decay = plain(weight_decay)
        self.warmup = plain(warmup)
        self.gradient_frames = plain(gradient_frames)
        self.seed = data.seed
        self.noise = plain(noise)
        self.noise_spectrum = noise_spectrum
        self.frames = data.window.horizon if data.manifest.times else 1
        self.surrogate = untrained(operator, data, conserve)
        if start is not None:
            go_on_from(self.surrogate, start)
        self._check_options()
        taken = data.window if isinstance(data.window, AllToAll) else self.surrogate.window
        protocol = protocol_of(
            taken, self.frames, gradient_frames=self.gradient_frames, noise=self.noise,
            noise_spectrum=noise_spectrum,
        )  # fmt: skip
        self.surrogate.record(protocol=protocol)
        self.may_diverge = False  # as a trial of learning rates may
        self._first_bad = torch.full((), _NEVER, device="cpu")
        names = [v.name for v in self.surrogate.quantities]
        each = {f"relative_l2/{name}": RelativeError(data.grid) for name in names}
        self.metrics = torch.nn.ModuleDict(
            {
                "relative_l2": RelativeError(data.grid),
                "relative_h1": RelativeError(data.grid, order=1.0),
                **(each if len(names) > 1 else {}),
            }
        )
        if compile:
            self.surrogate.compile()

    def forward(
        self, u: Float[Tensor, "batch inputs *space"]
    ) -> Float[Tensor, "batch outputs *space"]:
        return self.surrogate(u)

    def check_ready(self, trainer: lightning.Trainer) -> None:
        """Refuse what cannot be trained, before the first step and before anything is written.

        Raises:
            ValueError: for stages of a ``SpecBoost`` that would add nothing, as ``boost`` trains
                them; an optimizer that cannot be made, or not for sharded weights; and a run of
                unknown length.
        """
        self._check_stages()
        self._check_run(trainer)

    def _check_run(self, trainer: lightning.Trainer) -> None:
        optimizer = self._optimizer()
        if isinstance(optimizer, SOAP) and isinstance(trainer.strategy, SHARDED):
            raise ValueError(
                "SOAP needs whole weights, not sharded ones; train with ddp, or give model.optimizer torch.optim.AdamW"
            )
        if trainer.max_epochs == -1 and trainer.max_steps == -1:
            raise ValueError(
                "the learning rates of a run follow from the number of its steps, which is not known; give "
                "trainer.max_epochs or trainer.max_steps (trainer.max_time may end it before)"
            )

    def _check_stages(self) -> None:
        operator = self.surrogate.operator
        if isinstance(operator, SpecBoost) and not bool((operator.scale > 0).all()):
            raise ValueError(
                "the later stages of a SpecBoost are trained one after another, on what the earlier ones leave: "
                "`sobolev boost` and sobolev.training.boosting.stages.boost do that"
            )

    def on_fit_start(self) -> None:
        self._check_stages()

    def on_train_start(self) -> None:
        self._first_bad = torch.full((), _NEVER, device=self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        inputs, targets = batch
        compared = self._compared(self._noisy(inputs, batch_idx), targets)
        with full_precision(targets):
            loss = self.loss(*compared)
        bad = ~loss.detach().isfinite() & (self._first_bad == _NEVER)
        self._first_bad = self._first_bad.masked_fill(bad, self.global_step)
        self.log(
            "train/loss", loss, on_step=False, on_epoch=True, batch_size=len(inputs), sync_dist=True
        )
        return loss

    def on_validation_start(self) -> None:
        self._stop_if_diverged()

    def on_train_epoch_end(self) -> None:
        self._stop_if_diverged()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the record of where training started from, which a resumed run does not read again."""
        self._stop_if_diverged()
        before = self.surrogate.provenance.start
        checkpoint[START] = None if before is None else before.to_json()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._judge(batch, "valid")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._judge(batch, "test")

    def configure_optimizers(self) -> Any:
        self._check_run(self.trainer)
        optimizer = self._optimizer()
        steps = self.trainer.estimated_stepping_batches
        # OneCycleLR divides by the number of warming steps less one
        one_step = math.isclose(self.warmup * steps, 1.0)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=int(steps),
            pct_start=0.0 if one_step else self.warmup, cycle_momentum=False,
        )  # fmt: skip
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}

    def _optimizer(self) -> Optimizer:
        """Return the optimizer, with the parameters grouped by their axes of channels, for which SOAP
        asks."""
        axes = channel_axes(self)
        groups: dict[tuple[int, ...], list[torch.nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            groups.setdefault(axes[name], []).append(parameter)
        make = self.optimizer or torch.optim.AdamW
        try:
            return make(
                [{"params": group, "axes": axes} for axes, group in groups.items()],
                lr=self.learning_rate,
                weight_decay=self.weight_decay,
            )
        except TypeError as error:
            raise ValueError(
                f"the optimizer is made of parameters, lr and weight_decay, as torch.optim.AdamW is; this one: {error}"
            ) from error

    def _compared(
        self,
        inputs: Float[Tensor, "batch inputs *space"],
        targets: Float[Tensor, "batch targets *space"],
    ) -> tuple[
        Float[Tensor, "batch time variables *space"], Float[Tensor, "batch time variables *space"]
    ]:
        """Return prediction and target in comparable units."""
        if self.surrogate.window is None:
            prediction = self.surrogate(inputs)[:, None]
        else:
            prediction = self.surrogate.unrolled(
                inputs, self.frames, gradient_frames=self.gradient_frames
            )
        targets = targets.unflatten(1, (self.frames, -1))
        prediction = self.surrogate.comparable(prediction, inputs)
        return prediction, self.surrogate.comparable(targets, inputs)

    def _noisy(
        self, inputs: Float[Tensor, "batch inputs *space"], batch_idx: int
    ) -> Float[Tensor, "batch inputs *space"]:
        """Return inputs with noise on the given frames.

        It is drawn on their device from seed, step and process alone, so that runs resume exactly.
        """
        if not self.noise:
            return inputs
        seed = stream(self.seed, Key.NOISE, self.global_step, batch_idx, self.global_rank)
        dice = torch.Generator(inputs.device).manual_seed(int(seed.integers(2**63)))
        quantities = len(self.surrogate.quantities)
        return with_noise(
            self.surrogate.state_of(inputs),
            self.noise * self.surrogate.output_scale[:quantities],
            self.surrogate.grid,
            pink=self.noise_spectrum == "pink",
            dice=dice,
        ).inputs

    def _stop_if_diverged(self) -> None:
        """Stop a run whose loss or weights have become infinite or NaN, before these are validated or
        overwrite a checkpoint.

        The first such step is kept as a tensor and read here alone, so that no step waits for the
        device.
        """
        if self.trainer.state.fn != TrainerFn.FITTING or self.may_diverge:
            return
        first = self._first_bad.to(self.device)  # it waits on the CPU, where NCCL reduces nothing
        if not all(bool(p.isfinite().all()) for p in self.parameters()):
            first = first.clamp(max=self.global_step - 1)
        step = int(self.trainer.strategy.reduce(first, reduce_op="min"))
        if step < _NEVER:
            raise ArithmeticError(
                f"training diverged: loss or weights are infinite or NaN from step {step} on (epoch "
                f"{self.current_epoch}, both counted from 0); checkpoints from before are kept; lower "
                "model.learning_rate and start again"
            )

    def _judge(self, batch: Batch, stage: str) -> None:
        prediction, targets = self._compared(*batch)
        names = [v.name for v in self.surrogate.quantities]
        for name, module in self.metrics.items():
            metric = cast(RelativeError, module)
            quantity = name.partition("/")[2]
            chosen = [names.index(quantity)] if quantity else slice(None)
            metric.update(*(u[:, :, chosen].flatten(1, 2) for u in (prediction, targets)))
            self.log(f"{stage}/{name}", metric, on_step=False, on_epoch=True, prog_bar=not quantity)

    def _check_options(self) -> None:
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise ValueError(f"noise is a standard deviation of at least 0, got {self.noise}")
        if self.noise_spectrum not in ("white", "pink"):
            raise ValueError(f"noise_spectrum is white or pink, got {self.noise_spectrum!r}")
        if self.noise_spectrum == "pink" and not self.noise:
            raise ValueError(
                "pink noise needs a noise above 0, its standard deviation; without noise leave noise_spectrum white"
            )
        given = "gradient_frames" if self.gradient_frames is not None else "noise"
        if self.gradient_frames is None and not self.noise:
            return
        window = self.surrogate.window
        if window is None:
            raise ValueError(
                f"{given} has no meaning here: the data are not in time, or not taken step by step"
            )
        if self.gradient_frames is None:
            return
        check_whole("OperatorModule", gradient_frames=self.gradient_frames)
        if window.horizon == self.frames:
            raise ValueError(
                "gradient_frames is for operators that are applied repeatedly; here one application gives all of the "
                f"window, {self.frames}; lengthen data.window's horizon or leave it out"
            )
