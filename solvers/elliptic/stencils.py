"""Stencils on batches of arrays with a ring of zeros around them."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Collection

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import pad

Offset = tuple[int, ...]
"""A whole number for each axis."""
Stencil = dict[Offset, Float[Tensor, " batch *space"]]
"""Offset → weight of the neighbour there, arrays with a ring of zeros around them."""


def ringed(t: Shaped[Tensor, " batch *space"]) -> Shaped[Tensor, " batch *ringed"]:
    """Return ``t`` with a ring of zeros around it."""
    return pad(t, (1, 1) * (t.ndim - 1))


def neighbours(
    t: Shaped[Tensor, " batch *ringed"], offset: Offset
) -> Shaped[Tensor, " batch *space"]:
    """Return a view of a ringed array: the neighbour at ``offset`` of every node."""
    strides = t.stride()
    sizes, shift = _window(t.shape, strides, offset)
    return t.as_strided(sizes, strides, t.storage_offset() + shift)


@functools.lru_cache(maxsize=4096)  # a multigrid asks some thousand times for the same ones
def _window(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: Offset
) -> tuple[tuple[int, ...], int]:
    """Return the shape of what a ring surrounds, and how far from the first entry it starts."""
    shift = sum((1 + o) * stride for o, stride in zip(offset, strides[1:], strict=True))
    return (shape[0], *(n - 2 for n in shape[1:])), shift


def added(first: Offset, second: Offset) -> Offset:
    """Return the sum of two offsets."""
    return tuple(map(operator.add, first, second))


def negated(offset: Offset) -> Offset:
    """Return the offset of the way back."""
    return tuple(map(operator.neg, offset))


def half_of_neighbours(ndim: int) -> list[Offset]:
    """Return one of each pair of opposite offsets to the 3ᵈ − 1 neighbours.

    >>> half_of_neighbours(2)
    [(0, 1), (1, -1), (1, 0), (1, 1)]
    """
    return [d for d in itertools.product((-1, 0, 1), repeat=ndim) if d > (0,) * ndim]


def summed(
    first: Float[Tensor, " batch *space"], *others: Float[Tensor, " batch *space"]
) -> Float[Tensor, " batch *space"]:
    """Return the sum of arrays, one or more."""
    total = first.clone()
    for t in others:
        total += t
    return total


def unringed(t: Shaped[Tensor, " batch *ringed"]) -> Shaped[Tensor, " batch *space"]:
    """Return a view of a ringed array without its ring."""
    return neighbours(t, (0,) * (t.ndim - 1))


def add_product(
    out: Stencil, S: Stencil, T: Stencil, *, sign: int = 1, only: Collection[Offset] = ()
) -> None:
    """Add ± S T to ``out``, for stencils between colours; only the offsets in ``only``, if any."""
    for first, s in S.items():
        here = unringed(s)
        for second, t in T.items():
            to = added(first, second)
            if only and to not in only:
                continue
            if to not in out:
                out[to] = torch.zeros_like(s)
            unringed(out[to]).addcmul_(here, neighbours(t, first), value=sign)


def transposed_stencil(S: Stencil) -> Stencil:
    """Return the stencil of the transposed matrix."""
    return {negated(d): ringed(neighbours(s, negated(d))) for d, s in S.items()}
