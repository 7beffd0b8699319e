"""Inner products and norms of each sample of a batch."""

from __future__ import annotations

import torch
from jaxtyping import Float, Inexact
from torch import Tensor


def dot(
    u: Inexact[Tensor, "batch ..."], v: Inexact[Tensor, "#batch ..."]
) -> Float[Tensor, " batch"]:
    """Return the real inner product of each sample."""
    if u.is_complex():
        u = torch.view_as_real(u)
        v = torch.view_as_real(v)
    return (u * v).flatten(1).sum(dim=1)


def norm(u: Inexact[Tensor, "batch ..."]) -> Float[Tensor, " batch"]:
    """Return the Euclidean norm of each sample."""
    if u.is_complex():
        u = torch.view_as_real(u)
    return u.flatten(1).norm(dim=1)


def without_mean(u: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """Return each sample less its mean."""
    return u - u.flatten(1).mean(dim=1).view(-1, *[1] * (u.ndim - 1))
