"""SpecBoost's training: one stage after another, each on what the earlier ones leave."""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import lightning
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.datasets import OperatorDataModule
from sobolev.grids import energy_spectrum
from sobolev.grids.streams import Key, stream
from sobolev.operators import Operator, SpecBoost
from sobolev.surrogates import Surrogate
from sobolev.surrogates.applying import comfortable_batch
from sobolev.training.module import Batch, OperatorModule


class BoostingModule(OperatorModule):
    """Fit one stage of a ``SpecBoost``; the stages before it are frozen, those after it left out.

    The stage's scale is measured on the residuals of its training samples when the fit begins. The
    loss is that of the whole prediction: the stage puts out rescaled residuals, to whose gradient
    Adam adapts, and loss and metrics stay comparable from stage to stage.

    Residuals of samples that the earlier stages were fitted to are smaller than those of new ones,
    the more so the more an earlier stage overfits. With ``held_out`` h > 0 no two stages share a
    sample: each later stage learns from h of the training samples (whole trajectories, drawn by the
    data's seed), the first one from the rest. ``data`` is then the data module of this stage's part;
    normalisation is by all training samples.

    Args:
        operator: the stages; those before ``stage`` are trained.
        data: where the fields come from.
        stage: the stage to train, counted from 0.
        held_out: share of the training samples that each later stage has to itself; 0 gives all
            samples to all stages.
        options: as for ``OperatorModule``.

    Raises:
        ValueError: for an operator that is no ``SpecBoost``, a stage that it does not have, data
            with more frames than one application gives, a ``start``, or shares that leave a stage
            without samples.
    """

    def __init__(
        self,
        operator: Operator,
        data: OperatorDataModule,
        stage: int = 0,
        *,
        held_out: float = 0.0,
        **options: Any,
    ) -> None:
        if not isinstance(operator, SpecBoost):
            raise ValueError(
                f"boosting trains the stages of a SpecBoost, got {type(operator).__name__}; "
                "SpecBoost([operator, ...]) makes one"
            )
        if options.get("start") is not None:
            raise ValueError(
                "stages of a boost begin with fresh weights; start is for sobolev train, which can go on from the "
                "surrogate of a finished boost"
            )
        count = len(operator.stages)
        if not 0 <= stage < count:
            raise ValueError(f"there are stages 0 to {count - 1}, got {stage}")
        if data.manifest.times and operator.out_channels < data.out_channels:
            raise ValueError(
                f"stages learn what is left of one application of the operator, which has {operator.out_channels} "
                f"output channels; the data have {data.out_channels}: give data.window the horizon of one application"
            )
        super().__init__(operator, data, **options)
        self.booster = operator
        self.stage = stage
        self.data = _part(data, stage, count, held_out) if held_out else data
        samples = len(self.data.pairs("train").samples)
        self.surrogate.record(boosting={"stage": stage, "samples": samples})

    def follow(self, trained: Surrogate) -> None:
        """Take over the weights and scales of ``trained``, in which the stages before this one are
        trained; later scales are measured anew.

        Raises:
            ValueError: for a surrogate of another operator, or of fields normalised otherwise.
        """
        for name in ("input_mean", "input_scale", "output_mean", "output_scale"):
            if not torch.equal(trained.get_buffer(name), self.surrogate.get_buffer(name)):
                raise ValueError(
                    f"the earlier stages were trained on other fields: their {name} is "
                    f"{trained.get_buffer(name).flatten().tolist()}, that of these data "
                    f"{self.surrogate.get_buffer(name).flatten().tolist()}"
                )
        try:
            self.surrogate.load_state_dict(trained.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"the earlier stages are those of another operator: {error}"
            ) from error
        self._forget_scales(self.stage)

    def setup(self, stage: str) -> None:
        """Freeze the other stages before a distributed strategy asks which parameters want
        gradients."""
        if stage == "fit":
            self.booster.freeze_except(self.stage)

    def _check_stages(self) -> None:
        """Accept stages that are not trained yet: they are trained here."""

    def on_fit_start(self) -> None:
        """Measure the residuals' scale, unless a checkpoint has brought it, and leave out the later
        stages."""
        if self.stage and not bool((self.booster.scale[self.stage] > 0).all()):
            self.booster.eval()
            self.booster.fit_scale(self.stage, self._residuals())
        self.booster.train_stage(self.stage)

    def on_fit_end(self) -> None:
        """Let all stages be trained again."""
        self.booster.train_stage(None)
        self.booster.active = self.stage + 1

    def _forget_scales(self, first: int) -> None:
        first = max(first, 1)  # the first stage's is not measured
        self.booster.scale[first:] = self.booster.mean[first:] = 0.0

    def _residuals(self) -> Iterator[Float[Tensor, "batch outputs *space"]]:
        """Yield the residuals that the earlier stages leave of the training samples, normalised, batch by
        batch."""
        surrogate = self.surrogate
        for inputs, targets in _batches(self.data, "train"):
            u = (inputs.to(self.device) - surrogate.input_mean) / surrogate.input_scale
            y = (targets.to(self.device) - surrogate.output_mean) / surrogate.output_scale
            yield self.booster.residual(u, y, self.stage)


def boost(
    operator: SpecBoost,
    data: OperatorDataModule,
    trainer: Callable[[int], lightning.Trainer],
    *,
    held_out: float = 0.0,
    **options: Any,
) -> Surrogate:
    """Train all stages of ``operator``, one after another; scales of an earlier boost are measured
    anew. ``sobolev boost`` does it with a run folder that can be resumed.

    Args:
        operator: stages with fresh weights.
        data: where the fields come from.
        trainer: called with the number of a stage, gives the trainer for it.
        held_out: as for ``BoostingModule``.
        options: as for ``OperatorModule``.

    >>> boost(SpecBoost([FNO(1, 1, (8,)), FNO(1, 1, (32,))]), data,           # doctest: +SKIP
    ...       lambda k: lightning.Trainer(max_epochs=50))                     # doctest: +SKIP
    """
    for stage in range(len(operator.stages)):
        module = BoostingModule(operator, data, stage, held_out=held_out, **options)
        module._forget_scales(stage)
        with frozen_on_purpose():
            try:
                trainer(stage).fit(module, module.data)
            finally:  # an interrupted fit does not come to its end, and would leave stages frozen
                module.on_fit_end()
    return module.surrogate.eval()


@contextlib.contextmanager
def frozen_on_purpose() -> Iterator[None]:
    """Silence Lightning's warning that some modules, the frozen stages, are in evaluation mode."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        yield


def parts(samples: int, stages: int, held_out: float, seed: int) -> list[np.ndarray]:
    """Return the training samples of each stage: ascending numbers below ``samples``, disjoint.

    Each later stage has a share ``held_out`` of all, drawn by ``seed``; the first one has the rest.

    >>> [len(part) for part in parts(100, 3, held_out=0.2, seed=0)]
    [60, 20, 20]

    Raises:
        ValueError: for a share that is not between 0 and 1, or leaves a stage without samples.
    """
    later = stages - 1
    share = round(held_out * samples) if 0 < held_out < 1 else 0
    if share < 1 or later * share >= samples:
        raise ValueError(
            f"held_out is the share of the {samples} training samples that each later stage has to "
            f"itself, above 0 and below {1 / max(later, 1):.3g}, so that every stage has samples; got {held_out}"
        )
    order = stream(seed, Key.STAGES).permutation(samples)
    first = samples - later * share
    return [np.sort(part) for part in np.split(order, range(first, samples, share))]


@torch.no_grad()
def error_spectra(
    surrogate: Surrogate, data: OperatorDataModule, split: str = "valid"
) -> tuple[Float[Tensor, " shell"], Float[Tensor, "spectrum shell"]]:
    """Return mean energy spectra over a split: of the fields about their training mean, and of the
    errors of the first 1, 2, … active stages.

    Fields are measured in the standard deviations of each variable, and summed over variables.

    Returns:
        Wavenumbers and 1 + active spectra, the fields' first.

    Raises:
        ValueError: for an operator without stages.
    """
    operator = surrogate.operator
    device = surrogate.input_mean.device
    if not isinstance(operator, SpecBoost):
        raise ValueError(f"only a SpecBoost has stages, got {type(operator).__name__}")
    active = operator.active
    total = torch.zeros((), device=device)
    count = 0
    try:
        for inputs, targets in _batches(data, split):
            targets = targets.to(device)
            rows = []
            for k in range(active + 1):
                operator.active = max(k, 1)
                prediction = surrogate(inputs.to(device)) if k else surrogate.output_mean
                error = (targets - prediction) / surrogate.output_scale
                wavenumbers, energy = energy_spectrum(error.double(), data.grid)
                rows.append(energy.sum((0, 1)))
            total = total + torch.stack(rows)
            count += len(targets)
    finally:
        operator.active = active
    return wavenumbers.cpu(), (total / count).cpu()


def _part(data: OperatorDataModule, stage: int, stages: int, held_out: float) -> OperatorDataModule:
    """Return ``data`` with the training samples of one stage, normalised by all of them."""
    items = copy.copy(data.pairs("train"))
    items.samples = items.samples[parts(len(items.samples), stages, held_out, data.seed)[stage]]
    data.statistics  # noqa: B018  computed once, from all samples, and kept by the copy
    part = copy.copy(data)
    part._items = {**data._items, "train": items}
    return part


def _batches(data: OperatorDataModule, split: str) -> Iterator[Batch]:
    """Yield the samples of a split in batches of a comfortable size."""
    items = data.pairs(split)
    size = comfortable_batch(data.grid)
    for i in range(math.ceil(len(items) / size)):
        yield items[i * size : (i + 1) * size]
