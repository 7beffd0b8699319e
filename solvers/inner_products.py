"""Inner products and norms of each sample of a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def dot(u: Tensor, v: Tensor) -> Tensor:
    """Real inner product of each sample, ``(batch,)``."""
    if u.is_complex():
        u, v = torch.view_as_real(u), torch.view_as_real(v)
    return (u * v).flatten(1).sum(dim=1)


def norm(u: Tensor) -> Tensor:
    """The Euclidean norm of each sample, ``(batch,)``."""
    if u.is_complex():
        u = torch.view_as_real(u)
    return u.flatten(1).norm(dim=1)
