"""Exponential time differencing for semilinear equations u_t = L u + N(u)."""

from __future__ import annotations

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float, Inexact, Int8, Shaped
from torch import Tensor

LARGEST_COURANT = 2.8
"""|λ| Δt up to which the classical fourth-order Runge–Kutta method damps advection, λ = i U k."""

Nonlinear = Callable[[Inexact[Tensor, " ..."]], Inexact[Tensor, " ..."]]
"""A map from modes to modes of the same shape."""
Parts = Inexact[Tensor, "*parts"]
"""Modes as coefficients multiply them: complex ones as pairs of numbers where the coefficients are real."""
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


class ExponentialStep(ABC):
    """One step of ETDRK4 (Cox & Matthews 2002), whichever way its coefficients multiply modes.

    Attributes:
        N: the nonlinear term, from modes to modes.
        coefficients: E, E2, Q, f1, f2 and f3, functions of Δt L.
    """

    N: Nonlinear
    coefficients: tuple[Inexact[Tensor, " ..."], ...]

    def step(self, v: Inexact[Tensor, "*shape"]) -> Inexact[Tensor, "*shape"]:
        """Return the modes ``v`` after one step."""
        states, values = self.stages(self.parts(v))
        return self.whole(self.end(states[0], (*values, self.right_side(states[-1]))))

    def stages(self, v: Parts) -> tuple[tuple[Parts, ...], tuple[Parts, ...]]:
        """Return the four states at which a step from ``v`` evaluates N, and its values at the first three."""
        _, E2, Q, *_ = self.coefficients
        E2v = self.times(E2, v)
        Nv = self.right_side(v)
        a = self.plus(E2v, Q, Nv)
        Na = self.right_side(a)
        b = self.plus(E2v, Q, Na)
        Nb = self.right_side(b)
        c = self.plus_(self.times(E2, a), Q, (2 * Nb).sub_(Nv))
        return (v, a, b, c), (Nv, Na, Nb)

    def end(self, v: Parts, values: tuple[Parts, ...]) -> Parts:
        """Return where a step from ``v`` leads, with N at its four stages."""
        Nv, Na, Nb, Nc = values
        E, _, _, f1, f2, f3 = self.coefficients
        result = self.plus_(self.times(E, v), f1, Nv)
        return self.plus_(self.plus_(result, f2, Na + Nb), f3, Nc)

    def right_side(self, v: Parts) -> Parts:
        """Return N(v)."""
        return self.parts(self.N(self.whole(v)))

    def parts(self, v: Inexact[Tensor, "*shape"]) -> Parts:
        """Return modes as the coefficients multiply them."""
        return v

    def whole(self, v: Parts) -> Inexact[Tensor, "*shape"]:
        """Return the modes of ``parts``."""
        return v

    @abstractmethod
    def times(self, c: Inexact[Tensor, " ..."], v: Parts) -> Parts:
        """Return a coefficient times ``v``."""

    @abstractmethod
    def plus(self, u: Parts, c: Inexact[Tensor, " ..."], v: Parts) -> Parts:
        """Return u + c v."""

    @abstractmethod
    def plus_(self, u: Parts, c: Inexact[Tensor, " ..."], v: Parts) -> Parts:
        """Return u + c v, in the place of ``u`` where that is quicker."""

    @abstractmethod
    def adjoint(self, c: Inexact[Tensor, " ..."]) -> Inexact[Tensor, " ..."]:
        """Return the coefficient by which the transpose of ``times`` multiplies."""

    @abstractmethod
    def plus_outer_(
        self, total: Inexact[Tensor, " ..."] | None, v: Parts, w: Parts
    ) -> Inexact[Tensor, " ..."]:
        """Return ``total`` and the gradient of ⟨w, c v⟩ in c, maybe of each sample, in the place of ``total``."""


class ETDRK4(ExponentialStep):
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
        # real coefficients on (real, imaginary) pairs: a third of the arithmetic
        self.in_pairs = not symbol.is_complex() and not real_modes
        found = (
            (step * symbol).exp(),
            (0.5 * step * symbol).exp(),
            *_CircleMeans.apply(symbol, step, contour_points, 0),
        )
        self.coefficients = tuple(map(_for_both_parts, found)) if self.in_pairs else found

    def restricted(self, count: int, nonlinear: Nonlinear) -> ETDRK4:
        """Return the same step on the first ``count`` modes of the only axis."""
        shorter = copy.copy(self)
        shorter.N = nonlinear
        shorter.coefficients = tuple(c[:count] for c in self.coefficients)
        return shorter

    def parts(self, v: Inexact[Tensor, "*shape"]) -> Parts:
        return torch.view_as_real(v) if self.in_pairs else v

    def whole(self, v: Parts) -> Inexact[Tensor, "*shape"]:
        return torch.view_as_complex(v) if self.in_pairs else v

    def times(self, c: Inexact[Tensor, " ..."], v: Parts) -> Parts:
        return c * v

    def plus(self, u: Parts, c: Inexact[Tensor, " ..."], v: Parts) -> Parts:
        return u.addcmul(c, v)

    def plus_(self, u: Parts, c: Inexact[Tensor, " ..."], v: Parts) -> Parts:
        return u.addcmul_(c, v)

    def adjoint(self, c: Inexact[Tensor, " ..."]) -> Inexact[Tensor, " ..."]:
        return c.conj().resolve_conj()

    def plus_outer_(
        self, total: Inexact[Tensor, " ..."] | None, v: Parts, w: Parts
    ) -> Inexact[Tensor, " ..."]:
        return v.conj() * w if total is None else total.addcmul_(v.conj(), w)


class CoupledETDRK4(ExponentialStep):
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
        E, p1, p2, p3 = _phi_functions(step * symbol)
        E2, half, *_ = _phi_functions(step / 2 * symbol)
        f1 = step * (p1 - 3 * p2 + 4 * p3)
        f2 = step * (2 * p2 - 4 * p3)
        f3 = step * (4 * p3 - p2)
        self.coefficients = (E, E2, step / 2 * half, f1, f2, f3)

    def times(self, c: Inexact[Tensor, " ..."], v: Parts) -> Parts:
        return _coupled(c, v)

    def plus(self, u: Parts, c: Inexact[Tensor, " ..."], v: Parts) -> Parts:
        return u + _coupled(c, v)

    plus_ = plus

    def adjoint(self, c: Inexact[Tensor, " ..."]) -> Inexact[Tensor, " ..."]:
        return c.transpose(0, 1).conj().resolve_conj()

    def plus_outer_(
        self, total: Inexact[Tensor, " ..."] | None, v: Parts, w: Parts
    ) -> Inexact[Tensor, " ..."]:
        outer = (w[:, :, None] * v.conj()[:, None]).sum(0)
        return outer if total is None else total.add_(outer)


class _CircleMeans(torch.autograd.Function):
    """The n-th derivatives in L of Q, f1, f2 and f3, which are Δt f(Δt L).

    Means over a circle around Δt L, since the formulas lose all digits near 0. By Cauchy's formula
    f⁽ⁿ⁾(x) = n! mean of f(x + w) w⁻ⁿ over |w| = 1: gradients keep L alone, and have gradients again.
    """

    @staticmethod
    def forward(
        symbol: Inexact[Tensor, "*modes"], step: float, points: int, order: int
    ) -> tuple[Inexact[Tensor, "*modes"], ...]:
        number = (
            points if symbol.is_complex() else points // 2
        )  # half the circle says all of real L
        half_way = torch.arange(number, dtype=torch.float64, device=symbol.device) + 0.5
        angle = 2 * math.pi / points * half_way
        w = torch.polar(torch.ones_like(angle), angle)
        z = step * symbol[..., None] + w
        ez = z.exp()
        size = step ** (order + 1) * math.factorial(order)

        def mean(values: Complex[Tensor, "*modes point"]) -> Inexact[Tensor, "*modes"]:
            average = size * (values / w**order if order else values).mean(-1)
            return average if symbol.is_complex() else average.real

        return (
            mean(((z / 2).exp() - 1) / z),
            mean((-4 - z + ez * (4 - 3 * z + z**2)) / z**3),
            mean(2 * (2 + z + ez * (z - 2)) / z**3),
            mean((-4 - 3 * z - z**2 + ez * (4 - z)) / z**3),
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
        symbol, *ctx.rest, ctx.order = inputs
        ctx.save_for_backward(symbol)

    @staticmethod
    def backward(
        ctx: Any, *cotangents: Inexact[Tensor, "*modes"]
    ) -> tuple[Inexact[Tensor, "*modes"] | None, ...]:
        (symbol,) = ctx.saved_tensors
        slopes = _CircleMeans.apply(symbol, *ctx.rest, ctx.order + 1)
        parts = [g * slope.conj() for g, slope in zip(cotangents, slopes, strict=True)]
        return sum(parts[1:], parts[0]), None, None, None


class ETDRK2:
    """Second-order exponential Runge–Kutta step (Cox & Matthews 2002), of two nonlinear terms rather than four.

    v' = a + Δt φ₂ (N(a) − N(v)) with a = E v + Δt φ₁ N(v); its factors are sums of the fourth-order step's.

    Args:
        fourth: the fourth-order step of the same length.
    """

    def __init__(self, fourth: ExponentialStep) -> None:
        self.N = fourth.N
        self._fourth = fourth
        E, _, _, f1, f2, f3 = fourth.coefficients
        self.coefficients = (E, f1 + 2 * f2 + f3, f2 + f3)

    def step(self, v: Inexact[Tensor, " batch *shape"]) -> Inexact[Tensor, " batch *shape"]:
        """Return the modes ``v`` after one step."""
        E, early, late = self.coefficients
        fourth = self._fourth
        u = fourth.parts(v)
        Nu = fourth.right_side(u)
        a = fourth.times(E, u) + fourth.times(early, Nu)
        return fourth.whole(a + fourth.times(late, fourth.right_side(a) - Nu))


Stepper = ExponentialStep | ETDRK2


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


def check_times(times: Times) -> tuple[list[float], bool]:
    """Return output times as a rising list of floats, and true if a single one was given.

    Raises:
        ValueError: if they are not finite, at least 0 and rising, or want gradients.
    """
    refuse_gradients(times=times)
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


def refuse_gradients(**numbers: object) -> None:
    """Refuse tensors that want gradients as numbers in which no solve is differentiable.

    Raises:
        ValueError: naming the first.
    """
    for name, value in numbers.items():
        several = value if isinstance(value, (list, tuple)) else (value,)
        if any(isinstance(v, Tensor) and v.requires_grad for v in several):
            raise ValueError(
                f"{name} wants gradients, and a solve has none in it: it would be cut without a word; detach it"
            )
