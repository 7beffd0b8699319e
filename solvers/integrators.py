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


class SolutionError(ArithmeticError):
    """Some samples of a batch could not be solved; the others could, and are kept.

    Attributes:
        solution: what ``solve`` would have returned, NaN in the frames that failed.
        status: int8 ``(batch,)``: 0 solved, 1 blown up, 2 not resolved by the grid.
    """

    STATUS = ("solved", "blown_up", "unresolved")

    def __init__(self, message: str, solution: Tensor, status: Tensor) -> None:
        super().__init__(message)
        self.solution, self.status = solution, status


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
            return average if symbol.is_complex() else _twice(average.real)

        def exponential(fraction: float) -> Tensor:
            values = (fraction * step * symbol).exp()
            return values if symbol.is_complex() else _twice(values)

        self.is_real = not symbol.is_complex()
        self.E, self.E2 = exponential(1.0), exponential(0.5)
        self.Q = mean(((z / 2).exp() - 1) / z)
        self.f1 = mean((-4 - z + ez * (4 - 3 * z + z**2)) / z**3)
        self.f2 = mean(2 * (2 + z + ez * (z - 2)) / z**3)
        self.f3 = mean((-4 - 3 * z - z**2 + ez * (4 - z)) / z**3)

    def restricted(self, count: int, nonlinear: Callable[[Tensor], Tensor]) -> ETDRK4:
        """The same step on the first ``count`` modes of the only axis."""
        shorter = copy.copy(self)
        shorter.N = nonlinear
        for name in ("E", "E2", "Q", "f1", "f2", "f3"):
            setattr(shorter, name, getattr(self, name)[:count])
        return shorter

    def step(self, v: Tensor) -> Tensor:
        """One step of the complex modes ``v``."""
        if self.is_real:  # real coefficients on (real, imaginary) pairs: a third of the arithmetic
            pairs = self._step(
                torch.view_as_real(v),
                lambda w: torch.view_as_real(self.N(torch.view_as_complex(w))),
            )
            return torch.view_as_complex(pairs)
        return self._step(v, self.N)

    def _step(self, v: Tensor, N: Callable[[Tensor], Tensor]) -> Tensor:
        E2v = self.E2 * v
        Nv = N(v)
        a = E2v.addcmul(self.Q, Nv)
        Na = N(a)
        Nb = N(E2v.addcmul(self.Q, Na))
        Nc = N((self.E2 * a).addcmul_(self.Q, (2 * Nb).sub_(Nv)))
        result = (self.E * v).addcmul_(self.f1, Nv)
        return result.addcmul_(self.f2, Na + Nb).addcmul_(self.f3, Nc)


def _twice(real: Tensor) -> Tensor:
    """A real factor for each of the two parts of a complex number."""
    return real[..., None].expand(*real.shape, 2).contiguous()


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
