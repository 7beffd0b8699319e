"""Exponential time differencing for semilinear equations u_t = L u + N(u)."""

from __future__ import annotations

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


class Semilinear(ABC):
    """u_t = L u + N(u) on a periodic axis: an equation is the symbol of L and the nonlinear term.

    Both act on the half spectrum ``v = rfft(u)`` that the 2/3 rule keeps; ``k`` are its angular
    wavenumbers.
    """

    @abstractmethod
    def symbol(self, k: Tensor) -> Tensor:
        """The eigenvalues of L, shape ``k.shape``; real where L is self-adjoint, complex
        otherwise."""

    @abstractmethod
    def nonlinear(self, u: Tensor, transform: Callable[[Tensor], Tensor], k: Tensor) -> Tensor:
        """The half spectrum of N(u), from ``u`` on the grid; ``transform`` leads to the kept
        modes."""


class ETDRK4:
    """Fourth-order exponential Runge–Kutta step (Cox & Matthews 2002; coefficients as Kassam &
    Trefethen 2005).

    Args:
        symbol: L on the kept modes, float64 or complex128. The coefficients stay complex where L
            is: taking the real part of the contour means is right for real L only.
        nonlinear: N, from modes to modes.
        step: time step Δt.
        contour_points: points on the unit circle around each ΔtL.
    """

    def __init__(
        self,
        symbol: Tensor,
        nonlinear: Callable[[Tensor], Tensor],
        step: float,
        *,
        contour_points: int = 32,
    ) -> None:
        self.N = nonlinear
        angle = (
            2
            * math.pi
            * (torch.arange(contour_points, dtype=torch.float64, device=symbol.device) + 0.5)
        )
        z = step * symbol[..., None] + torch.polar(torch.ones_like(angle), angle / contour_points)
        ez = z.exp()

        def mean(values: Tensor) -> Tensor:
            average = step * values.mean(-1)
            return average if symbol.is_complex() else average.real

        self.E, self.E2 = (step * symbol).exp(), (step / 2 * symbol).exp()
        self.Q = mean(((z / 2).exp() - 1) / z)
        self.f1 = mean((-4 - z + ez * (4 - 3 * z + z**2)) / z**3)
        self.f2 = mean(2 * (2 + z + ez * (z - 2)) / z**3)
        self.f3 = mean((-4 - 3 * z - z**2 + ez * (4 - z)) / z**3)

    def restricted(self, count: int, nonlinear: Callable[[Tensor], Tensor]) -> ETDRK4:
        """The same step on the first ``count`` modes alone."""
        shorter = copy.copy(self)
        shorter.N = nonlinear
        for name in ("E", "E2", "Q", "f1", "f2", "f3"):
            setattr(shorter, name, getattr(self, name)[..., :count])
        return shorter

    def step(self, v: Tensor) -> Tensor:
        """One step of the modes ``v``."""
        E2v = self.E2 * v
        Nv = self.N(v)
        a = E2v + self.Q * Nv
        Na = self.N(a)
        Nb = self.N(E2v + self.Q * Na)
        Nc = self.N(self.E2 * a + self.Q * (2 * Nb - Nv))
        return self.E * v + self.f1 * Nv + self.f2 * (Na + Nb) + self.f3 * Nc


Times = float | Sequence[float] | Tensor | np.ndarray
"""A time, or a rising sequence of times."""


def check_times(times: Times) -> tuple[list[float], bool]:
    """Output times as a rising list of floats, and whether a single one was given.

    Raises:
        ValueError: if they are not finite, at least 0 and rising.
    """
    given = torch.as_tensor(times, dtype=torch.float64, device="cpu")
    values = given.reshape(-1).tolist()
    rising = all(a < b for a, b in itertools.pairwise(values))
    if (
        given.ndim > 1
        or not values
        or not rising
        or values[0] < 0
        or not all(map(math.isfinite, values))
    ):
        raise ValueError(f"times must be at least 0, finite and rising, got {times!r}")
    return values, given.ndim == 0
