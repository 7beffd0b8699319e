"""Autoregression: an operator applied again and again, to frames that it has given itself."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

import sobolev
from sobolev.grids import AbstractGrid
from sobolev.grids.checks import check_whole
from sobolev.grids.description import axis_coords
from sobolev.surrogates.tensors import fields_of

if TYPE_CHECKING:
    from sobolev.surrogates.surrogate import Surrogate

AMPLITUDE = 10.0
"""By how much a frame may exceed those given and still count as stable."""
_STABLE = (
    "frames before the first that is not finite, or in which the root mean square of a quantity about its training "
    f"mean exceeds {AMPLITUDE:g} times the largest of the given frames or the training standard deviation, whichever "
    "is larger"
)
_DRIFT = "change of the integral of {} since the last given frame, over the integral of its absolute value there"


@dataclass(frozen=True)
class State:
    """What an application starts from: static inputs ``(batch, static, *space)`` and the latest
    frames ``(batch, history, quantities, *space)``, oldest first."""

    static: Tensor
    frames: Tensor

    @classmethod
    def of(cls, surrogate: Surrogate, inputs: Float[Tensor, "batch channels ..."]) -> State:
        """The state that the input channels of a surrogate in time hold.

        Raises:
            ValueError: for a surrogate that is not in time.
        """
        shape = (surrogate.in_time.history, len(surrogate.quantities))
        static, frames = inputs.tensor_split([inputs.shape[1] - math.prod(shape)], dim=1)
        return cls(static, frames.unflatten(1, shape))

    @property
    def inputs(self) -> Tensor:
        """``(batch, channels, *space)``."""
        return torch.cat([self.static, self.frames.flatten(1, 2)], dim=1)

    def advanced(self, frames: Tensor) -> State:
        """With ``frames`` at the end and as many of the oldest left out."""
        history = self.frames.shape[1]
        return replace(self, frames=torch.cat([self.frames, frames], dim=1)[:, -history:])

    def detached(self) -> State:
        """Without the gradients of its frames."""
        return replace(self, frames=self.frames.detach())


def rollout(
    surrogate: Surrogate,
    inputs: Float[Tensor, "batch channels ..."],
    frames: int,
    *,
    gradient_frames: int | None = None,
) -> Float[Tensor, "batch frames quantities ..."]:
    """The ``frames`` that follow ``inputs``, in physical units, differentiable.

    One application gives ``surrogate.window.horizon`` of them. The latest frames, given and
    predicted, are the input of the next, with the same static inputs.

    Args:
        inputs: ``(batch, in_channels, *space)``, as ``surrogate`` takes them.
        frames: how many to predict.
        gradient_frames: detach the state after every so many applications, so that the gradient of a
            frame passes through at most as many, its own included; 1 is the pushforward (Brandstetter,
            Worrall & Welling 2022, arXiv:2202.03376). Through all by default.

    Raises:
        ValueError: for a surrogate that is not in time, or counts below 1.
    """
    check_whole("rollout", frames=frames)
    if gradient_frames is not None:
        check_whole("rollout", gradient_frames=gradient_frames)
    needed = math.ceil(frames / surrogate.in_time.horizon)
    steps = islice(_applications(surrogate, inputs, gradient_frames), needed)
    return torch.cat(list(steps), dim=1)[:, :frames]


def _applications(
    surrogate: Surrogate, inputs: Tensor, gradient_frames: int | None = None
) -> Iterator[Tensor]:
    """The frames of one application after the other, ``(batch, horizon, quantities, *space)`` each,
    without end."""
    horizon, number = surrogate.in_time.horizon, 0
    state = State.of(surrogate, inputs.to(surrogate.input_mean.dtype))
    while True:
        frames = surrogate(state.inputs).unflatten(1, (horizon, -1))
        yield frames
        state, number = state.advanced(frames), number + 1
        if gradient_frames is not None and number % gradient_frames == 0:
            state = state.detached()


def trajectories(
    surrogate: Surrogate, dataset: xr.Dataset, frames: int, batch_size: int
) -> xr.Dataset:
    """What ``Surrogate.rollout`` documents, with the surrogate in the mode it is in."""
    check_whole("rollout", frames=frames, batch_size=batch_size)
    times = continued(dataset, surrogate, frames)
    given = frames_as_inputs(dataset, surrogate)
    fields, grid, samples = fields_of(given, surrogate.inputs, surrogate.grid)
    name = "sample" if samples is None else str(samples.name)
    if name in (v.name for v in surrogate.quantities):
        raise ValueError(
            f"the samples lie along {name!r}, which is a quantity's name; rename the dimension"
        )
    parts = [_observed(surrogate, batch, grid, frames) for batch in fields.split(batch_size)]
    values, stable, drift = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    found = {"stable_frames": xr.Variable(name, stable, {"long_name": _STABLE, "units": "1"})}
    for i, v in enumerate(surrogate.quantities):
        about = {"long_name": _DRIFT.format(v.name), "units": "1"}
        found[v.name] = xr.Variable((name, "time", *grid.dims), values[:, :, i], v.attributes)
        found[f"{v.name}_drift"] = xr.Variable((name, "time"), drift[..., i], about)
    result = xr.Dataset(
        found,
        {"time": times, **axis_coords(grid)},
        {
            "Conventions": "CF-1.11",
            "source": f"sobolev {sobolev.__version__} rollout of {type(surrogate.operator).__name__}",
            "provenance": json.dumps(surrogate.provenance, sort_keys=True),
        },
    )
    return result.isel(sample=0) if samples is None else result.assign_coords({name: samples})


def _observed(
    surrogate: Surrogate, inputs: Tensor, grid: AbstractGrid, frames: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A rollout on the CPU, ``(batch, frames, quantities, *space)``, NaN from its first frame on that
    is not finite; stable frames, ``(batch,)``; drift, ``(batch, frames, quantities)``."""
    like, count = surrogate.output_mean, len(surrogate.quantities)
    mean, scale = (b[:count].double() for b in (like, surrogate.output_scale))
    weights, space = grid.quadrature(like.device), tuple(range(-grid.ndim, 0))

    def integral(u: Tensor) -> Tensor:
        return (u.double() * weights).sum(space)

    def amplitude(u: Tensor) -> Tensor:
        return (integral((u.double() - mean).square()) / weights.sum()).sqrt()

    inputs = inputs.to(like)
    given = State.of(surrogate, inputs).frames
    observed = []
    needed = math.ceil(frames / surrogate.in_time.horizon)
    for new in islice(_applications(surrogate, inputs), needed):
        observed.append((new.cpu(), amplitude(new).cpu(), integral(new).cpu()))
    values, amplitudes, integrals = (
        torch.cat(parts, dim=1)[:, :frames] for parts in zip(*observed, strict=True)
    )
    limit = AMPLITUDE * torch.maximum(amplitude(given).amax(1), scale.flatten()).cpu()
    stable = (amplitudes <= limit[:, None]).all(-1).cumprod(1).sum(1)
    finite = amplitudes.isfinite().all(-1).cumprod(1).bool()
    values = values.where(finite.reshape(*finite.shape, *[1] * (grid.ndim + 1)), torch.nan)
    last, size = (integral(u).cpu()[:, None] for u in (given[:, -1], given[:, -1].abs()))
    return values, stable, (integrals.where(finite[..., None], torch.nan) - last) / size


def frames_as_inputs(dataset: xr.Dataset, surrogate: Surrogate) -> xr.Dataset:
    """``dataset`` with each given frame as the variable that the surrogate takes it as."""
    names = [v.name for v in surrogate.quantities]
    for name in names:
        if name not in dataset or "time" not in dataset[name].dims:
            raise ValueError(
                f"a rollout starts from frames of {', '.join(names)} along time; the dataset has "
                + (f"{name} along {dataset[name].dims}" if name in dataset else f"no {name}")
            )
    frames = {}
    for i, channel in enumerate(surrogate.in_time.inputs(surrogate.quantities)):
        time, number = divmod(i, len(names))
        frames[channel.name] = dataset[names[number]].isel(time=time, drop=True)
    return dataset.drop_vars(names).assign(frames)


def continued(dataset: xr.Dataset, surrogate: Surrogate, frames: int) -> xr.Variable:
    """The times of the frames that follow those given."""
    window, interval = surrogate.in_time, surrogate.interval
    if interval is None:
        raise ValueError(
            "the surrogate does not know when its frames are: the training data had no evenly spaced times, or it was "
            "saved by an older version of sobolev; sobolev.surrogates.rollout.rollout goes from tensors to tensors"
        )
    if "time" not in dataset.coords or dataset["time"].dtype.kind not in "iuf":
        raise ValueError(
            "the dataset has no coordinate 'time' of numbers to say when its frames are"
        )
    time = dataset["time"]
    units, trained = time.attrs.get("units"), surrogate.provenance["data"].get("time_units")
    if units is not None and trained is not None and units != trained:
        raise ValueError(f"time is in units {units!r}; the surrogate was trained on {trained!r}")
    times = np.atleast_1d(np.asarray(time.values, dtype=np.float64))
    evenly = np.allclose(np.diff(times), interval, rtol=1e-4, atol=0.0)
    if len(times) != window.history or not evenly:
        end = window.history * window.stride
        step = f", {window.stride}" if window.stride > 1 else ""
        raise ValueError(
            f"the surrogate takes {window.history} frames, {interval:g} apart; the dataset's times are "
            f"{np.array2string(times, threshold=6, precision=6)}. From data stored like those of training, "
            f"isel(time=slice(0, {end}{step})) takes the first"
        )
    return xr.Variable("time", times[-1] + interval * np.arange(1, frames + 1), time.attrs)
