"""Integrals that predictions keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sobolev.grids import AbstractGrid
from sobolev.grids.variables import Variable


class KeptIntegrals(nn.Module):
    """Add a constant to each conserved output, so that its integral over the domain is that of an input.

    Its buffers follow from the names of the variables, so that none is saved.

    Args:
        grid: of the training data.
        inputs, outputs: the variables, in the order of the channels.
        conserved: the output's name, the input's.
    """

    source: Int[Tensor, " outputs"]
    kept: Float[Tensor, " outputs *ones"]

    def __init__(
        self,
        grid: AbstractGrid,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        conserved: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.grid = grid
        names = [v.name for v in inputs]
        sources = [names.index(conserved.get(v.name, names[0])) for v in outputs]
        kept = torch.tensor(
            [float(v.name in conserved) for v in outputs], dtype=torch.float32, device="cpu"
        )
        self.register_buffer("source", torch.tensor(sources, device="cpu"), persistent=False)
        self.register_buffer("kept", kept.reshape(-1, *[1] * grid.ndim), persistent=False)

    def forward(
        self,
        u: Float[Tensor, "batch inputs *space"],
        v: Float[Tensor, "batch outputs *size"],
        mean: tuple[Float[Tensor, " inputs *ones"], Float[Tensor, " outputs *ones"]],
        scale: tuple[Float[Tensor, " inputs *ones"], Float[Tensor, " outputs *ones"]],
    ) -> Float[Tensor, "batch outputs *size"]:
        """Return normalised outputs ``v`` with the integrals of normalised inputs ``u``.

        Integrals are compared in deviations from the means, where they do not drown in the rounding of
        a large mean.

        Args:
            u, v: fields in standard deviations about their means, perhaps on two grids.
            mean, scale: those of the inputs and of the outputs, ``(channels, 1, …)``.
        """
        ratio = scale[0][self.source] / scale[1]
        offset = (mean[0][self.source] - mean[1]) / scale[1]
        return v + self.kept * (
            self._average(u)[:, self.source] * ratio + offset - self._average(v)
        )

    def _average(
        self, u: Float[Tensor, "batch channels *space"]
    ) -> Float[Tensor, "batch channels *ones"]:
        """Return the mean over the domain, by the grid's quadrature."""
        weights = self.grid.resized(*u.shape[2:]).quadrature(u.device)
        share = (weights / weights.sum()).to(self.kept.dtype)
        return (u * share).sum(tuple(range(2, u.ndim)), keepdim=True)
