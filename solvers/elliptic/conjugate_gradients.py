"""Conjugate gradients for batches of systems that do not know each other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sobolev.solvers.inner_products import dot, norm

_PATIENCE = 200  # iterations without a new least residual

BatchOfFields = Float[Tensor, " batch *space"]
BatchOfNumbers = Float[Tensor, " batch"]
ErrorMeasure = Callable[[BatchOfFields, BatchOfFields, BatchOfNumbers], BatchOfNumbers]
"""The size of an error from x, r and r·z."""


def conjugate_gradients(
    A: Callable[[BatchOfFields], BatchOfFields],
    b: Float[Tensor, " batch *space"],
    precondition: Callable[[BatchOfFields], BatchOfFields],
    target: Float[Tensor, " batch"],
    iterations: Int[Tensor, " batch"],
    *,
    most: int,
    measure: ErrorMeasure = lambda x, r, rz: norm(r),
) -> Float[Tensor, " batch *space"]:
    """Return x with A x ≈ b, by preconditioned conjugate gradients (Saad 2003, algorithm 9.1).

    From zero until ``measure`` of x, r and r·z falls to the target, until there is no progress, or
    until ``iterations``, counted up in place, are ``most``.
    """
    each = (-1, *[1] * (b.ndim - 1))
    x = torch.zeros_like(b)
    r = b.clone()
    idle = torch.zeros_like(iterations)
    z = precondition(r)
    p = z.clone()
    rz = dot(r, z)
    size = least = measure(x, r, rz)
    while True:
        active = (size > target) & (iterations < most) & (idle < _PATIENCE)
        if not bool(active.any()):
            return x
        Ap = A(p)
        step = torch.where(active, rz / dot(p, Ap), 0.0).view(each)
        x.addcmul_(step, p)
        r.addcmul_(step, Ap, value=-1)
        z = precondition(r)
        previous = rz
        rz = dot(r, z)
        p.mul_(torch.where(active, rz / previous, 0.0).view(each)).add_(z)
        size = measure(x, r, rz)
        iterations += active
        idle = torch.where(size < least, 0, idle + 1)
        least = torch.minimum(least, size)
