"""Stencils on batches of arrays with a ring of zeros around them."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn.functional import pad

Offset = tuple[int, int]
Stencil = dict[Offset, Tensor]
"""Offset → weight of the neighbour there, arrays with a ring of zeros around them."""


def ringed(t: Tensor) -> Tensor:
    return pad(t, (1, 1, 1, 1))


def neighbours(t: Tensor, offset: Offset) -> Tensor:
    """A view of a ringed array: the neighbour at ``offset`` of every node."""
    (batch, rows, columns), (down, right) = t.shape, t.stride()[1:]
    start = t.storage_offset() + (1 + offset[0]) * down + (1 + offset[1]) * right
    return t.as_strided((batch, rows - 2, columns - 2), t.stride(), start)


def summed(first: Tensor, *others: Tensor) -> Tensor:
    total = first.clone()
    for t in others:
        total += t
    return total


def unringed(t: Tensor) -> Tensor:
    return neighbours(t, (0, 0))


def add_product(
    out: Stencil, S: Stencil, T: Stencil, *, sign: int = 1, only: Collection[Offset] = ()
) -> None:
    """out ± S T, for stencils between colours; only the offsets in ``only``, if any."""
    for (y, x), s in S.items():
        for (v, u), t in T.items():
            to = (y + v, x + u)
            if only and to not in only:
                continue
            if to not in out:
                out[to] = torch.zeros_like(s)
            unringed(out[to]).addcmul_(unringed(s), neighbours(t, (y, x)), value=sign)


def transposed_stencil(S: Stencil) -> Stencil:
    return {(-y, -x): ringed(neighbours(s, (-y, -x))) for (y, x), s in S.items()}
