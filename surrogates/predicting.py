"""Predictions and rollouts of many fields."""

from __future__ import annotations

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from sobolev.grids import AbstractGrid
from sobolev.grids.checks import check_whole, is_whole
from sobolev.surrogates.applying import apply, comfortable_batch
from sobolev.surrogates.datasets import dataset_of
from sobolev.surrogates.normalised import NormalisedOperator
from sobolev.surrogates.rollout import AMPLITUDE, Observed, observed
from sobolev.surrogates.tensors import given_frames
from sobolev.surrogates.times import times_after

_STABLE = (
    "frames before the first that is not finite, or in which the root mean square of a quantity about its training "
    f"mean exceeds {AMPLITUDE:g} times the largest of the given frames or the training standard deviation, whichever "
    "is larger"
)
_DRIFT = "change of the integral of {} since the last given frame, over the integral of its absolute value there"


def predicted(
    surrogate: NormalisedOperator,
    fields: Float[Tensor, "sample inputs ..."],
    grid: AbstractGrid,
    batch_size: int | None = None,
) -> Float[Tensor, "sample outputs ..."]:
    """Return predictions on ``grid``, on the CPU.

    Raises:
        ValueError: if they are not finite, or for a batch size that is no whole number.
    """
    size = comfortable_batch(grid) if batch_size is None else batch_size
    if not is_whole(size) or size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1, got {size!r}")
    batches = apply(
        surrogate, lambda u: surrogate(u, size=grid.shape).cpu(), fields, batch_size=int(size)
    )
    values = torch.cat(batches)
    if not bool(values.isfinite().all()):
        raise ValueError(
            "the prediction is not finite: the input lies far outside the training data"
        )
    return values


def trajectories(
    surrogate: NormalisedOperator, dataset: xr.Dataset, frames: int, batch_size: int | None
) -> xr.Dataset:
    """Return the rollout that ``Surrogate.rollout`` documents."""
    check_whole("rollout", frames=frames, batch_size=1 if batch_size is None else batch_size)
    times = times_after(dataset, surrogate.meaning, frames)
    given = given_frames(dataset, surrogate.meaning)
    size = comfortable_batch(given.grid) if batch_size is None else batch_size
    quantities = surrogate.quantities
    drifts = [f"{v.name}_drift" for v in quantities]
    names = ["stable_frames", *drifts, *(v.name for v in quantities)]
    given.refuse_names(names, "a variable of the rollout")

    def watched(inputs: Float[Tensor, "batch channels ..."]) -> Observed:
        return observed(
            surrogate, inputs.to(surrogate.input_mean), frames,
            window=surrogate.meaning.in_time, grid=given.grid,
            mean=surrogate.output_mean[: len(quantities)],
            scale=surrogate.output_scale[: len(quantities)],
        )  # fmt: skip

    parts = apply(surrogate, watched, given.fields, batch_size=size)
    values = torch.cat([part.frames for part in parts])
    stable = torch.cat([part.stable_frames for part in parts])
    drift = torch.cat([part.drift for part in parts])
    name = given.sample_dim
    about = {"long_name": _STABLE, "units": "1"}
    extra = {"stable_frames": xr.Variable(name, stable.numpy(), about)}
    for v, key, change in zip(quantities, drifts, drift.unbind(2), strict=True):
        about = {"long_name": _DRIFT.format(v.name), "units": "1"}
        extra[key] = xr.Variable((name, "time"), change.numpy(), about)
    return dataset_of(
        dict(zip(quantities, values.unbind(2), strict=True)), given,
        source=f"rollout of {type(surrogate.operator).__name__}",
        provenance=surrogate.provenance, times=times, extra=extra,
    )  # fmt: skip
