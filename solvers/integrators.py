"""Exponential time differencing for semilinear equations u_t = L u + N(u)."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Complex, Float, Inexact, Int8, Shaped
from torch import Tensor

LARGEST_COURANT = 2.8
"""|λ| Δt up to which the classical fourth-order Runge–Kutta method damps advection, λ = i U k."""

Nonlinear = Callable[[Inexact[Tensor, " ..."]], Inexact[Tensor, " ..."]]
"""A map from modes to modes of the same shape."""
Number = float | Float[Tensor, ""]
"""A parameter of an equation, which may want gradients."""
Times = float | Sequence[float] | Shaped[Tensor, " ..."] | np.ndarray
"""A time, or a rising sequence of times."""


class SolutionError(ArithmeticError):
    """Some samples of a batch could not be solved; the others could, and are kept.

    Attributes:
        solution: the tensor that ``solve`` would have returned, NaN in the frames that failed.
        status: int8 ``(batch,)``: 0 solved, 1 blown up, 2 not resolved by the grid.
    """

    STATUS = ("solved", "blown_up", "unresolved")

    def __init__(
        self, message: str, solution: Float[Tensor, "batch ..."], status: Int8[Tensor, " batch"]
    ) -> None:
        super().__init__(message)
        self.solution = solution
        self.status = status


class ETDRK4:
    """Fourth-order exponential Runge–Kutta step (Cox & Matthews 2002; coefficients as Kassam &
    Trefethen 2005).

    Args:
        symbol: L on the kept modes, float64 or complex128. The coefficients stay complex where L
            is: taking the real part of the contour means is right for real L only.
        nonlinear: N, from modes to modes.
        step: time step Δt.
        contour_points: points on the unit circle around each ΔtL.
        real_modes: whether ``step`` takes real modes; L is then real, too.
    """

    def __init__(
        self,
        symbol: Inexact[Tensor, "*modes"],
        nonlinear: Nonlinear,
        step: float,
        *,
        contour_points: int = 32,
        real_modes: bool = False,
    ) -> None:
        self.N = nonlinear
        both = (lambda values: values) if real_modes else _for_both_parts
        # the coefficients are means over a circle around Δt L: the formulas lose all digits near Δt L = 0;
        # of real L the lower half of the circle says the same
        number = contour_points if symbol.is_complex() else contour_points // 2
        half_way = torch.arange(number, dtype=torch.float64, device=symbol.device) + 0.5
        angle = 2 * math.pi / contour_points * half_way
        z = step * symbol[..., None] + torch.polar(torch.ones_like(angle), angle)
        ez = z.exp()

        def mean(values: Complex[Tensor, "*modes point"]) -> Inexact[Tensor, " ..."]:
            average = step * values.mean(-1)
            return average if symbol.is_complex() else both(average.real)

        def exponential(fraction: float) -> Inexact[Tensor, " ..."]:
            values = (fraction * step * symbol).exp()
            return values if symbol.is_complex() else both(values)

        self.is_real = not symbol.is_complex() and not real_modes
        self.E = exponential(1.0)
        self.E2 = exponential(0.5)
        self.Q = mean(((z / 2).exp() - 1) / z)
        self.f1 = mean((-4 - z + ez * (4 - 3 * z + z**2)) / z**3)
        self.f2 = mean(2 * (2 + z + ez * (z - 2)) / z**3)
        self.f3 = mean((-4 - 3 * z - z**2 + ez * (4 - z)) / z**3)

    def restricted(self, count: int, nonlinear: Nonlinear) -> ETDRK4:
        """Return the same step on the first ``count`` modes of the only axis."""
        shorter = copy.copy(self)
        shorter.N = nonlinear
        for name in ("E", "E2", "Q", "f1", "f2", "f3"):
            setattr(shorter, name, getattr(self, name)[:count])
        return shorter

    def step(self, v: Inexact[Tensor, "*shape"]) -> Inexact[Tensor, "*shape"]:
        """Return the modes ``v`` after one step."""
        if self.is_real:  # real coefficients on (real, imaginary) pairs: a third of the arithmetic
            pairs = self._step(
                torch.view_as_real(v),
                lambda w: torch.view_as_real(self.N(torch.view_as_complex(w))),
            )
            return torch.view_as_complex(pairs)
        return self._step(v, self.N)

    def _step(
        self,
        v: Inexact[Tensor, "*shape"],
        N: Callable[[Inexact[Tensor, "*shape"]], Inexact[Tensor, "*shape"]],
    ) -> Inexact[Tensor, "*shape"]:
        E2v = self.E2 * v
        Nv = N(v)
        a = E2v.addcmul(self.Q, Nv)
        Na = N(a)
        Nb = N(E2v.addcmul(self.Q, Na))
        c = (self.E2 * a).addcmul_(self.Q, Nv, value=-1).addcmul_(self.Q, Nb, value=2)
        Nc = N(c)
        result = (self.E * v).addcmul_(self.f1, Nv)
        return result.addcmul_(self.f2, Na + Nb).addcmul_(self.f3, Nc)


class CoupledETDRK4:
    """The same step for several channels whose linear part couples them, a small matrix per mode.

    Its coefficients are φ functions of Δt L. They are blocks of the exponential of a matrix four times as
    wide, which needs no eigenvectors: a wave equation has none at k = 0.

    Args:
        symbol: L, ``(channels, channels, *modes)``, float64 or complex128.
        nonlinear: N, from modes ``(batch, channels, *modes)`` to modes.
        step: time step Δt.
    """

    def __init__(
        self, symbol: Inexact[Tensor, "channels channels *modes"], nonlinear: Nonlinear, step: float
    ) -> None:
        self.N = nonlinear
        self.E, p1, p2, p3 = _phi_functions(step * symbol)
        self.E2, half, *_ = _phi_functions(step / 2 * symbol)
        self.Q = step / 2 * half
        self.f1 = step * (p1 - 3 * p2 + 4 * p3)
        self.f2 = step * (2 * p2 - 4 * p3)
        self.f3 = step * (4 * p3 - p2)

    def step(self, v: Inexact[Tensor, " batch *shape"]) -> Inexact[Tensor, " batch *shape"]:
        """Return the modes ``v`` after one step."""
        E2v = _coupled(self.E2, v)
        Nv = self.N(v)
        a = E2v + _coupled(self.Q, Nv)
        Na = self.N(a)
        Nb = self.N(E2v + _coupled(self.Q, Na))
        Nc = self.N(_coupled(self.E2, a) + _coupled(self.Q, 2 * Nb - Nv))
        result = _coupled(self.E, v) + _coupled(self.f1, Nv)
        return result + _coupled(self.f2, Na + Nb) + _coupled(self.f3, Nc)


class ETDRK2:
    """Second-order exponential Runge–Kutta step (Cox & Matthews 2002), of two nonlinear terms rather than four.

    v' = a + Δt φ₂ (N(a) − N(v)) with a = E v + Δt φ₁ N(v); its factors are sums of the fourth-order step's.

    Args:
        fourth: the fourth-order step of the same length.
    """

    def __init__(self, fourth: ETDRK4 | CoupledETDRK4) -> None:
        self.N = fourth.N
        self.E = fourth.E
        self.early = fourth.f1 + 2 * fourth.f2 + fourth.f3
        self.late = fourth.f2 + fourth.f3
        self.times: Callable[
            [Inexact[Tensor, " ..."], Inexact[Tensor, " ..."]], Inexact[Tensor, " ..."]
        ]
        if isinstance(fourth, CoupledETDRK4):
            self.times = _coupled
        else:
            self.times = _times_both_parts if fourth.is_real else torch.mul

    def step(self, v: Inexact[Tensor, " batch *shape"]) -> Inexact[Tensor, " batch *shape"]:
        """Return the modes ``v`` after one step."""
        Nv = self.N(v)
        a = self.times(self.E, v) + self.times(self.early, Nv)
        return a + self.times(self.late, self.N(a) - Nv)


def exponential(symbol: Inexact[Tensor, " ..."], *, coupled: bool) -> Inexact[Tensor, " ..."]:
    """Return e^L, of a matrix between channels for each mode if ``coupled``."""
    return _phi_functions(symbol)[0] if coupled else symbol.exp()


def applied(
    factor: Inexact[Tensor, " ..."], v: Inexact[Tensor, " batch *shape"], *, coupled: bool
) -> Inexact[Tensor, " batch *shape"]:
    """Return a function of L, applied to modes."""
    return _coupled(factor, v) if coupled else factor * v


def _phi_functions(A: Inexact[Tensor, "c c *modes"]) -> tuple[Inexact[Tensor, "c c *modes"], ...]:
    """Return φ₀(A) = e^A, φ₁(A), φ₂(A) and φ₃(A), φ_j(A) = Σ_n A^n / (n + j)!, of each mode's matrix."""
    count = A.shape[0]
    matrices = A.flatten(2).movedim(-1, 0)
    whole = matrices.new_zeros(len(matrices), 4 * count, 4 * count)
    one = torch.eye(count, dtype=A.dtype, device=A.device)
    whole = torch.cat(
        [torch.cat([matrices, one.expand_as(matrices)], dim=2), whole[:, :count, : 2 * count]],
        dim=2,
    )
    rest = torch.zeros(3 * count, 4 * count, dtype=A.dtype, device=A.device)
    for i in range(2):
        rest[i * count : (i + 1) * count, (i + 2) * count : (i + 3) * count] = one
    found = torch.linalg.matrix_exp(torch.cat([whole, rest.expand(len(matrices), -1, -1)], dim=1))
    blocks = found[:, :count].split(count, dim=2)
    return tuple(block.movedim(0, -1).reshape(A.shape) for block in blocks)


def _coupled(
    matrix: Inexact[Tensor, "c c *modes"], v: Inexact[Tensor, "batch c *modes"]
) -> Inexact[Tensor, "batch c *modes"]:
    """Return each mode's matrix times its channels."""
    return (matrix * v[:, None]).sum(2)


def _for_both_parts(real: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes 2"]:
    """Return a real factor for each of the two parts of a complex number."""
    return real[..., None].expand(*real.shape, 2).contiguous()


def _times_both_parts(
    factor: Float[Tensor, "*modes 2"], v: Complex[Tensor, "*shape"]
) -> Complex[Tensor, "*shape"]:
    """Return complex numbers times factors made by ``_for_both_parts``."""
    return torch.view_as_complex(factor * torch.view_as_real(v))


def check_times(times: Times) -> tuple[list[float], bool]:
    """Return output times as a rising list of floats, and true if a single one was given.

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


def as_number(value: Number) -> float:
    """Return a parameter that may be a tensor which wants gradients, as a number."""
    return float(value.detach()) if isinstance(value, Tensor) else float(value)
