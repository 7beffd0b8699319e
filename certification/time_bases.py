"""Functions of time, in which predicted trajectories are expanded."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Inexact, Int, Shaped
from torch import Tensor

Times = Float[Tensor, " time"]
"""Times, or one weight for each."""
Functions = Float[Tensor, "time function"]
"""Each function at each time."""


class TimeBasis(ABC):
    """Functions of time on [0, ``duration``]."""

    duration: float

    @abstractmethod
    def values(self, times: Times) -> Functions:
        """Return the functions at ``times``, float64."""

    @abstractmethod
    def rates(self, times: Times) -> Functions:
        """Return their exact time derivatives."""

    @abstractmethod
    def quadrature(self, device: torch.device) -> tuple[Times, Times]:
        """Return times and weights, float64, for ∫_0^T of squares of products of the functions."""


@dataclass(frozen=True)
class FourierBasis(TimeBasis):
    """1, cos ω_1 t … cos ω_{M−1} t, sin ω_1 t … sin ω_{M−1} t with ω_m = 2πm / P and M ``modes``.

    The period P may exceed the duration T: the functions then need not be periodic on [0, T].
    """

    modes: int
    period: float
    duration: float

    def values(self, times: Times) -> Functions:
        phase = times[:, None] * self._frequencies(times)
        return torch.cat([phase.cos(), phase[:, 1:].sin()], dim=1)

    def rates(self, times: Times) -> Functions:
        omega = self._frequencies(times)
        phase = times[:, None] * omega
        return torch.cat([-omega * phase.sin(), (omega * phase.cos())[:, 1:]], dim=1)

    def quadrature(self, device: torch.device) -> tuple[Times, Times]:
        """Return Gauss' times and weights, ω_{M−1} T + 8 or more of them.

        They integrate frequencies up to 4 ω_{M−1} to rounding: those of the square of a product.
        """
        highest = 2 * math.pi / self.period * (self.modes - 1)
        return gauss(math.ceil(highest * self.duration) + 8, self.duration, device)

    def coefficients(
        self, samples: Float[Tensor, "batch time y x"]
    ) -> Float[Tensor, "batch function y x"]:
        """Return the coefficients of the series with these values at P/n, 2P/n, … P, for n of at least
        2M."""
        n = samples.shape[1]
        times = self.period / n * torch.arange(1, n + 1, dtype=torch.float64, device=samples.device)
        functions = self.values(times)  # orthogonal on these times
        return combined((functions / functions.square().sum(0)).T, samples)

    def _frequencies(self, like: Shaped[Tensor, " ..."]) -> Float[Tensor, " frequency"]:
        m = torch.arange(self.modes, dtype=torch.float64, device=like.device)
        return 2 * math.pi / self.period * m


@dataclass(frozen=True)
class HermiteBasis(TimeBasis):
    """The cubic Hermite interpolation of ``count`` frames h = ``interval`` apart, the first at 0: a
    function for each frame, then one for each frame's time derivative.

    A smooth trajectory is met up to O(h⁴), its time derivative up to O(h³).
    """

    count: int
    interval: float

    @property
    def duration(self) -> float:  # type: ignore[override]
        return (self.count - 1) * self.interval

    def values(self, times: Times) -> Functions:
        s, left = self._place(times)
        here = (1 + 2 * s) * (1 - s) ** 2
        there = s**2 * (3 - 2 * s)
        return self._spread(left, here, there, s * (1 - s) ** 2, s**2 * (s - 1))

    def rates(self, times: Times) -> Functions:
        s, left = self._place(times)
        rise = 6 * s * (1 - s)
        basis = self._spread(left, -rise, rise, (1 - s) * (1 - 3 * s), s * (3 * s - 2))
        return basis / self.interval

    def quadrature(self, device: torch.device) -> tuple[Times, Times]:
        """Return Gauss' times and weights, four between two frames.

        They are exact for the square of what the interpolant of a smooth trajectory misses, s (1 − s)
        (1 − 2s) h³ to leading order.
        """
        times, weights = gauss(4, self.interval, device)
        first = torch.arange(self.count - 1, dtype=torch.float64, device=device) * self.interval
        return (first[:, None] + times).flatten(), weights.repeat(self.count - 1)

    def _place(self, times: Times) -> tuple[Times, Int[Tensor, " time"]]:
        """Return the place between two frames, from 0 to 1, and the number of the first of the two."""
        left = (times / self.interval).floor().long().clamp(0, self.count - 2)
        return times / self.interval - left, left

    def _spread(self, left: Int[Tensor, " time"], *weights: Times) -> Functions:
        """Return the functions at times after the frames ``left``.

        Four of them are not 0 there: those of this frame and of the next, and those of their time
        derivatives. ``weights`` are their values, of the last two per interval.
        """
        here, there, slope_here, slope_there = weights
        basis = here.new_zeros((len(left), 2 * self.count))
        row = torch.arange(len(left), device=left.device)
        basis[row, left] = here
        basis[row, left + 1] = there
        basis[row, self.count + left] = self.interval * slope_here
        basis[row, self.count + left + 1] = self.interval * slope_there
        return basis


def combined(
    matrix: Float[Tensor, "row column"], fields: Inexact[Tensor, "batch column *space"]
) -> Inexact[Tensor, "batch row *space"]:
    """Return linear combinations of fields on nodes or modes, one for each row of ``matrix``."""
    values = torch.view_as_real(fields) if fields.is_complex() else fields
    result = (matrix @ values.flatten(2)).unflatten(2, values.shape[2:])
    return torch.view_as_complex(result) if fields.is_complex() else result


def gauss(points: int, duration: float, device: torch.device) -> tuple[Times, Times]:
    """Return the Gauss–Legendre nodes and weights on [0, ``duration``], float64."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    times = (nodes + 1) * duration / 2
    return torch.from_numpy(times).to(device), torch.from_numpy(weights * duration / 2).to(device)
