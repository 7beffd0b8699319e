"""Stencils on batches of arrays with a ring of zeros around them."""

from __future__ import annotations

from collections.abc import Collection

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import pad

Offset = tuple[int, int]
Stencil = dict[Offset, Float[Tensor, "batch y x"]]
"""Offset → weight of the neighbour there, arrays with a ring of zeros around them."""


def ringed(t: Shaped[Tensor, "batch y x"]) -> Shaped[Tensor, "batch y+2 x+2"]:
    """Return ``t`` with a ring of zeros around it."""
    return pad(t, (1, 1, 1, 1))


def neighbours(t: Shaped[Tensor, "batch y x"], offset: Offset) -> Shaped[Tensor, "batch y-2 x-2"]:
    """Return a view of a ringed array: the neighbour at ``offset`` of every node."""
    batch, rows, columns = t.shape
    _, down, right = t.stride()
    start = t.storage_offset() + (1 + offset[0]) * down + (1 + offset[1]) * right
    return t.as_strided((batch, rows - 2, columns - 2), t.stride(), start)


def summed(
    first: Float[Tensor, "batch y x"], *others: Float[Tensor, "batch y x"]
) -> Float[Tensor, "batch y x"]:
    """Return the sum of arrays, one or more."""
    total = first.clone()
    for t in others:
        total += t
    return total


def unringed(t: Shaped[Tensor, "batch y x"]) -> Shaped[Tensor, "batch y-2 x-2"]:
    """Return a view of a ringed array without its ring."""
    return neighbours(t, (0, 0))


def add_product(
    out: Stencil, S: Stencil, T: Stencil, *, sign: int = 1, only: Collection[Offset] = ()
) -> None:
    """Add ± S T to ``out``, for stencils between colours; only the offsets in ``only``, if any."""
    for (y, x), s in S.items():
        for (v, u), t in T.items():
            to = (y + v, x + u)
            if only and to not in only:
                continue
            if to not in out:
                out[to] = torch.zeros_like(s)
            unringed(out[to]).addcmul_(unringed(s), neighbours(t, (y, x)), value=sign)


def transposed_stencil(S: Stencil) -> Stencil:
    """Return the stencil of the transposed matrix."""
    return {(-y, -x): ringed(neighbours(s, (-y, -x))) for (y, x), s in S.items()}
