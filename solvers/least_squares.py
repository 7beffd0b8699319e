"""Nonlinear least squares for batches: Gauss–Newton with conjugate gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float, Inexact, Int
from torch import Tensor

from sobolev.solvers.inner_products import dot, norm

_STALLED = 0.9  # a Gauss–Newton step that leaves more than this share of the residual is the last
_HALVINGS = 8  # of a step that makes the residual larger


class LeastSquares(ABC):
    """Least squares for the coefficients c of a series that is added to a prediction: ‖r(c)‖ with r at
    most quadratic. It stands at some c, at first 0.

    Residuals and coefficients are tensors ``(batch, ...)``, real or complex; residuals are weighted so
    that their Euclidean norm is the wanted one.
    """

    scale: Float[Tensor, " batch"]
    """The norm that residuals are relative to."""
    gradient: float | Float[Tensor, " batch"]
    """A linear problem counts as solved when the norm of its preconditioned gradient is this share of
    the residual's."""

    inexact: float
    """The share of the residual at which the solution of a linear problem stops, to linearise anew; 0 if
    r is linear."""

    @abstractmethod
    def residual(self) -> Inexact[Tensor, " batch *residual"]:
        """Return r(c)."""

    @abstractmethod
    def tangent(
        self, d: Inexact[Tensor, " batch *coefficient"]
    ) -> Inexact[Tensor, " batch *residual"]:
        """Return r'(c) d."""

    @abstractmethod
    def transposed(
        self,
    ) -> Callable[[Inexact[Tensor, " batch *residual"]], Inexact[Tensor, " batch *coefficient"]]:
        """Return the adjoint of ``tangent``."""

    @abstractmethod
    def precondition(
        self, s: Inexact[Tensor, " batch *coefficient"]
    ) -> Inexact[Tensor, " batch *coefficient"]:
        """Return roughly (r'(c)ᵀ r'(c))⁻¹ s."""

    @abstractmethod
    def curvature(
        self, d: Inexact[Tensor, " batch *coefficient"]
    ) -> Inexact[Tensor, " batch *residual"]:
        """Return ½ r''(d, d)."""

    @abstractmethod
    def move(self, d: Inexact[Tensor, " batch *coefficient"]) -> None:
        """Go from c to c + d."""

    @abstractmethod
    def prediction(self) -> Float[Tensor, "batch outputs *space"]:
        """Return the fields at c."""


def minimised(
    problem: LeastSquares, tolerance: float, most: int
) -> tuple[Float[Tensor, " batch"], Int[Tensor, " batch"]]:
    """Go by Gauss–Newton from where ``problem`` stands, and return the relative residual that it ends
    with, and the iterations.

    Along a step r is quadratic: r + s r'd + s² r''(d, d)/2 is known for every length s, and the best
    of 1, ½, ¼, … is taken.
    """
    r = problem.residual()
    target = tolerance * problem.scale
    eta = norm(r)
    iterations = torch.zeros(len(r), dtype=torch.int64, device=r.device)
    going = torch.ones_like(iterations, dtype=torch.bool)
    while True:
        going &= (eta > target) & (iterations < most)
        if not bool(going.any()):
            return eta / problem.scale, iterations
        d, image, used = least_squares(
            problem.tangent, problem.transposed(), problem.precondition, -r,
            target=torch.maximum(target / 2, problem.inexact * eta), gradient=problem.gradient,
            allowed=torch.where(going, most - iterations, 0),
        )  # fmt: skip
        problem.move(_best_length(r, image, problem.curvature(d)) * d)
        last = eta
        r = problem.residual()
        eta = norm(r)
        iterations = iterations + used
        going &= (used > 0) & (eta < _STALLED * last)


def _best_length(
    r: Inexact[Tensor, " batch *residual"],
    first: Inexact[Tensor, " batch *residual"],
    second: Inexact[Tensor, " batch *residual"],
) -> Inexact[Tensor, "batch ..."]:
    """Return the s among 1, ½, … and 0 with the least ‖r + s first + s² second‖, to multiply steps by."""
    rr, ra, rb, aa, ab, bb = (
        dot(u, v)[:, None]
        for u, v in (
            (r, r), (r, first), (r, second), (first, first), (first, second), (second, second)
        )
    )  # fmt: skip
    s = torch.cat([0.5 ** torch.arange(_HALVINGS + 1, device=rr.device), rr.new_zeros(1)]).to(rr)
    squares = rr + 2 * s * ra + s**2 * (aa + 2 * rb) + 2 * s**3 * ab + s**4 * bb
    return _per_sample(s[squares.argmin(1)], r)


def least_squares(
    matrix: Callable[[Inexact[Tensor, " batch *coefficient"]], Inexact[Tensor, " batch *residual"]],
    transposed: Callable[
        [Inexact[Tensor, " batch *residual"]], Inexact[Tensor, " batch *coefficient"]
    ],
    precondition: Callable[
        [Inexact[Tensor, " batch *coefficient"]], Inexact[Tensor, " batch *coefficient"]
    ],
    b: Inexact[Tensor, " batch *residual"],
    *,
    target: Float[Tensor, " batch"],
    gradient: float | Float[Tensor, " batch"],
    allowed: Int[Tensor, " batch"],
) -> tuple[
    Inexact[Tensor, " batch *coefficient"],
    Inexact[Tensor, " batch *residual"],
    Int[Tensor, " batch"],
]:
    """Minimise ‖A x − b‖ for a batch, by conjugate gradients on the normal equations, preconditioned (CGLS;
    Björck, Numerical Methods for Least Squares Problems, 1996, algorithm 7.4.1).

    A sample stops when r = b − A x has come down to ‖r‖ ≤ ``target``, when Aᵀr has come down to
    (rᵀA M⁻¹ Aᵀr)^½ ≤ ``gradient`` ‖r‖ with the preconditioner M, or after ``allowed`` iterations.

    Returns:
        x, A x and the iterations of each sample.
    """
    r = b.clone()
    s = transposed(r)
    x = torch.zeros_like(s)
    z = precondition(s)
    p = z
    gamma = dot(s, z)
    iterations = torch.zeros_like(allowed)
    while True:
        size = norm(r)
        active = (size > target) & (gamma.sqrt() > gradient * size) & (iterations < allowed)
        if not bool(active.any()):
            return x, b - r, iterations
        q = matrix(p)
        step = _per_sample(torch.where(active, gamma / dot(q, q), 0.0), p)
        x = x + step * p
        r = r - step * q
        s = transposed(r)
        z = precondition(s)
        last = gamma
        gamma = dot(s, z)
        p = z + _per_sample(torch.where(active, gamma / last, 0.0), p) * p
        iterations = iterations + active


def _per_sample(
    factor: Float[Tensor, " batch"], like: Inexact[Tensor, "batch ..."]
) -> Float[Tensor, "batch ..."]:
    """Return one factor per sample, to multiply ``like`` by."""
    return factor.reshape(-1, *[1] * (like.ndim - 1))
