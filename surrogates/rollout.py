"""Autoregression: an operator applied again and again, to frames that it has given itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sobolev.datasets.loading.windows import Window
from sobolev.grids import AbstractGrid
from sobolev.grids.checks import check_whole

AMPLITUDE = 10.0
"""The amplitude up to which a frame counts as stable, in amplitudes of the given frames."""

Step = Callable[[Float[Tensor, "batch channels *space"]], Float[Tensor, "batch outputs *space"]]
"""One application, whose outputs are frames · quantities."""


@dataclass(frozen=True)
class State:
    """The state that an application starts from: static inputs and the latest frames, oldest first."""

    static: Float[Tensor, "batch static *space"]
    frames: Float[Tensor, "batch history quantities *space"]

    @classmethod
    def of(
        cls, inputs: Float[Tensor, "batch channels ..."], history: int, quantities: int
    ) -> State:
        """Return the state that input channels hold: static inputs, then ``history`` frames."""
        shape = (history, quantities)
        static, frames = inputs.tensor_split([inputs.shape[1] - math.prod(shape)], dim=1)
        return cls(static, frames.unflatten(1, shape))

    @property
    def inputs(self) -> Float[Tensor, "batch channels ..."]:
        """The state as input channels."""
        return torch.cat([self.static, self.frames.flatten(1, 2)], dim=1)

    def advanced(self, frames: Float[Tensor, "batch time quantities ..."]) -> State:
        """Return the state with ``frames`` at the end and as many of the oldest left out."""
        history = self.frames.shape[1]
        return replace(self, frames=torch.cat([self.frames, frames], dim=1)[:, -history:])

    def detached(self) -> State:
        """Return the state without the gradients of its frames."""
        return replace(self, frames=self.frames.detach())


def rollout(
    step: Step,
    inputs: Float[Tensor, "batch channels ..."],
    frames: int,
    *,
    window: Window,
    quantities: int,
    gradient_frames: int | None = None,
) -> Float[Tensor, "batch frames quantities ..."]:
    """Predict the ``frames`` that follow ``inputs``, differentiably.

    One application gives ``window.horizon`` of them. The latest frames, given and predicted, are the
    input of the next, with the same static inputs.

    Args:
        step: one application, such as a ``Surrogate``.
        inputs: ``(batch, channels, *space)``, as ``step`` takes them.
        frames: how many to predict.
        window: the frames of one application.
        quantities: channels of a frame.
        gradient_frames: detach the state after every so many applications, so that the gradient of a
            frame passes through at most as many, its own included; 1 is the pushforward (Brandstetter,
            Worrall & Welling 2022, arXiv:2202.03376). Through all by default.

    Raises:
        ValueError: for counts below 1.
    """
    check_whole("rollout", frames=frames)
    if gradient_frames is not None:
        check_whole("rollout", gradient_frames=gradient_frames)
    state = State.of(inputs, window.history, quantities)
    needed = math.ceil(frames / window.horizon)
    steps = islice(applications(step, state, window.horizon, gradient_frames), needed)
    return torch.cat(list(steps), dim=1)[:, :frames]


def applications(
    step: Step, state: State, horizon: int, gradient_frames: int | None = None
) -> Iterator[Float[Tensor, "batch horizon quantities ..."]]:
    """Yield the frames of one application after the other, without end."""
    number = 0
    while True:
        frames = step(state.inputs).unflatten(1, (horizon, -1))
        yield frames
        state = state.advanced(frames)
        number += 1
        if gradient_frames is not None and number % gradient_frames == 0:
            state = state.detached()


@dataclass(frozen=True)
class Observed:
    """A rollout on the CPU, and what became of its size: NaN from its first frame on that is not finite.

    ``stable_frames`` counts those before the first in which the root mean square of a quantity about
    its training mean exceeds ``AMPLITUDE`` times the largest of the given frames, or the training
    standard deviation if that is larger. ``drift`` is (∫u(t) − ∫u₀) / ∫|u₀|, u₀ the last given frame,
    and NaN where that is zero.
    """

    frames: Float[Tensor, "batch frames quantities ..."]
    stable_frames: Int[Tensor, " batch"]
    drift: Float[Tensor, "batch frames quantities"]


def observed(
    step: Step,
    inputs: Float[Tensor, "batch channels ..."],
    frames: int,
    *,
    window: Window,
    grid: AbstractGrid,
    mean: Float[Tensor, "quantities ..."],
    scale: Float[Tensor, "quantities ..."],
) -> Observed:
    """Roll out, and watch every frame on the device it is made on.

    Args:
        step, inputs, frames, window: as for ``rollout``.
        grid: where the nodes lie.
        mean, scale: of each quantity in the training data, ``(quantities, 1, …)``.
    """
    state = State.of(inputs, window.history, len(mean))
    size = _Size(grid, mean.double(), scale.double())
    needed = math.ceil(frames / window.horizon)
    seen = [
        (new.cpu(), size.amplitude(new).cpu(), size.integral(new).cpu())
        for new in islice(applications(step, state, window.horizon), needed)
    ]
    values, amplitudes, integrals = (
        torch.cat(parts, dim=1)[:, :frames] for parts in zip(*seen, strict=True)
    )
    finite = amplitudes.isfinite().all(-1).cumprod(1).bool()
    stable = (amplitudes <= size.limit(state.frames)[:, None]).all(-1).cumprod(1).sum(1)
    last, whole = (
        size.integral(u).cpu()[:, None] for u in (state.frames[:, -1], state.frames[:, -1].abs())
    )
    some = torch.where(whole == 0, torch.nan, whole)
    drift = (integrals.where(finite[..., None], torch.nan) - last) / some
    return Observed(_until(finite, values), stable, drift)


def _until(
    finite: Bool[Tensor, "batch frames"], values: Float[Tensor, "batch frames ..."]
) -> Float[Tensor, "batch frames ..."]:
    """Return the values, with NaN from the first frame on that is not finite."""
    return values.where(finite.reshape(*finite.shape, *[1] * (values.ndim - 2)), torch.nan)


@dataclass(frozen=True)
class _Size:
    """The size of the quantities in frames, in float64."""

    grid: AbstractGrid
    mean: Float[Tensor, " quantities *ones"]
    scale: Float[Tensor, " quantities *ones"]

    def integral(self, u: Float[Tensor, "*batch_and_space"]) -> Float[Tensor, "*batch"]:
        """Return the integral over the domain, for each quantity."""
        weights = self.grid.quadrature(u.device)
        return (u.double() * weights).sum(tuple(range(-self.grid.ndim, 0)))

    def amplitude(
        self, u: Float[Tensor, "batch time quantities *space"]
    ) -> Float[Tensor, "batch time quantities"]:
        """Return the root mean square about the training mean."""
        volume = self.grid.quadrature(u.device).sum()
        return (self.integral((u.double() - self.mean).square()) / volume).sqrt()

    def limit(
        self, given: Float[Tensor, "batch history quantities *space"]
    ) -> Float[Tensor, "batch quantities"]:
        """Return the amplitude up to which frames count as stable, on the CPU."""
        largest = self.amplitude(given).amax(1)
        return AMPLITUDE * torch.maximum(largest, self.scale.flatten()).cpu()
