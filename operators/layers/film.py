"""Feature-wise linear modulation (FiLM; Perez et al., AAAI 2018, arXiv:1709.07871)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Film(NamedTuple):
    """v ↦ scale ⊙ v + shift: for each sample a scale and a shift per channel, the same at all nodes.

    Being a tensor's function of nothing but its arguments, it may be handed to layers that are
    recomputed in the backward pass.

    >>> film = Film(torch.tensor([[2.0, 1.0]]), torch.tensor([[0.0, 5.0]]))
    >>> film(torch.ones(1, 3, 2))[0, 0]
    tensor([2., 6.])
    """

    scale: Float[Tensor, "batch channels"]
    shift: Float[Tensor, "batch channels"]

    def __call__(
        self, v: Float[Tensor, " ..."], *, batch: int = 0, channels: int = -1
    ) -> Float[Tensor, " ..."]:
        """Modulate a field in its own precision; ``batch`` and ``channels`` are the places of these
        axes, in this order."""
        shape = [1] * v.ndim
        shape[batch] = self.scale.shape[0]
        shape[channels] = self.scale.shape[1]
        scale = self.scale.to(v.dtype).reshape(shape)
        return torch.addcmul(self.shift.to(v.dtype).reshape(shape), v, scale)

    def repeated(self, copies: int) -> Film:
        """Return it for fields that hold each channel so many times, one copy beside the other."""
        return Film(*(values.repeat_interleave(copies, dim=1) for values in self))


def per_layer(films: Sequence[Film] | None, depth: int) -> Sequence[Film | None]:
    """Return one for each layer, None where there are none."""
    return [None] * depth if films is None else films
