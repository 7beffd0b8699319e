"""Fourier layers whose weights are a low-rank tensor: fewer parameters, the same map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sobolev.operators.layers.fourier import FourierModes, Transforms
from sobolev.operators.layers.spectral_conv import FourierLayer, silent_rows

if TYPE_CHECKING:
    from types import ModuleType


class TuckerConv(FourierLayer):
    """A Fourier layer with the weights R[k₁…k_d, i, o] = Σ G[a₁…a_d, b, c] Π_j U_j[k_j, a_j] A[i, b]
    B[o, c] (Kossaifi et al. 2024, TMLR, "Multi-grid tensorized Fourier neural operator").

    The factors are real and only the core G is complex (an axis of two, last); in neuralop all are
    complex. Channels are reduced before the modes are mixed and enlarged afterwards, so that R is
    never formed: the mixing costs (rank share)² of a dense layer's.

    Args:
        in_channels, out_channels: channels of the last axis.
        modes, boundary, padding: as in ``SpectralConv``.
        rank: share of the dense layer's parameters that is kept, the same share of every axis; how
            many that is per axis, tensorly says.

    Raises:
        ModuleNotFoundError: without tensorly.
    """

    CHANNEL_AXES: ClassVar = {"core": (-3, -2)}

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: Sequence[int],
        *,
        boundary: str | Sequence[str],
        padding: float = 0.25,
        rank: float = 0.1,
    ) -> None:
        super().__init__(in_channels, out_channels, modes, boundary, padding)
        shape = (*self.modes.block, in_channels, out_channels)
        tucker = _tensorly().tucker_tensor
        ranks = tucker.validate_tucker_rank((*shape, 2), float(rank), fixed_modes=[len(shape)])
        self.core = nn.Parameter(torch.empty(*ranks))
        self.factors = nn.ParameterList(
            torch.empty(n, r) for n, r in zip(shape, ranks, strict=False)
        )
        _draw_factors(
            [self.core, *self.factors], self.core[..., 0].numel(), in_channels * out_channels
        )

    @property
    def weight(self) -> Float[Tensor, "*block i o 2"]:
        """The dense weight that the factors stand for, ``(*block, in, out, 2)``."""
        return _enlarged(self.core, list(self.factors))

    def mixed(
        self, c: Float[Tensor, "batch 2 modes i"], transforms: Transforms
    ) -> Float[Tensor, "batch 2 modes o"]:
        *factors, enter, leave = self.factors
        mixed = transforms.mixed(c @ enter.to(c.dtype), _enlarged(self.core, factors))
        return mixed @ leave.to(c.dtype).T

    @torch.no_grad()
    def approximate(self, weight: Float[Tensor, "*block i o 2"]) -> None:
        """Set the factors to the best approximation of a dense ``weight``, e.g. of a trained
        ``SpectralConv``, by higher-order orthogonal iteration."""
        tensorly = _tensorly()
        dense = weight.detach().cpu().double().numpy()
        with tensorly.backend_context("numpy", local_threadsafe=True):
            core, factors = tensorly.decomposition.tucker(dense, rank=list(self.core.shape))
        parts = torch.from_numpy(factors.pop())  # full rank: absorbed into the core
        self.core.copy_(torch.from_numpy(core) @ parts.T)
        for mine, factor in zip(self.factors, factors, strict=True):
            mine.copy_(torch.from_numpy(factor.copy()))

    @torch.no_grad()
    def silence(self, kept: FourierModes) -> None:
        _silence(self.factors, self.modes, kept)


class CPConv(FourierLayer):
    """A Fourier layer with the weights R[k₁…k_d, i, o] = Σ_r p_r Π_j U_j[k_j, r] A[i, r] B[o, r], the
    p_r complex and all else real: R is never formed, and modes are mixed by one product per r.

    The arguments are ``TuckerConv``'s.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: Sequence[int],
        *,
        boundary: str | Sequence[str],
        padding: float = 0.25,
        rank: float = 0.1,
    ) -> None:
        super().__init__(in_channels, out_channels, modes, boundary, padding)
        shape = (*self.modes.block, in_channels, out_channels, 2)
        terms = max(1, _tensorly().cp_tensor.validate_cp_rank(shape, float(rank)))
        self.factors = nn.ParameterList(torch.empty(n, terms) for n in shape)
        _draw_factors(list(self.factors), terms, in_channels * out_channels)

    @property
    def weight(self) -> Float[Tensor, "*block i o 2"]:
        """The dense weight that the factors stand for, ``(*block, in, out, 2)``."""
        product = self.factors[0]
        for factor in list(self.factors)[1:]:
            product = product[..., None, :] * factor
        return product.sum(-1)

    def mixed(
        self, c: Float[Tensor, "batch 2 modes i"], transforms: Transforms
    ) -> Float[Tensor, "batch 2 modes o"]:
        *factors, enter, leave, parts = (factor.to(c.dtype) for factor in self.factors)
        amplitude = factors[0]
        for factor in factors[1:]:
            amplitude = amplitude[..., None, :] * factor  # (*block, r)
        terms = (c @ enter) * transforms.kept(amplitude)
        along = terms @ (leave * parts[0]).T
        across = terms @ (leave * parts[1]).T
        return torch.stack([along[:, 0] - across[:, 1], across[:, 0] + along[:, 1]], dim=1)

    @torch.no_grad()
    def silence(self, kept: FourierModes) -> None:
        _silence(self.factors, self.modes, kept)


def _enlarged(
    core: Float[Tensor, "*ranks"], factors: Sequence[Float[Tensor, "_ _"]]
) -> Float[Tensor, "*shape"]:
    """Return Σ core[a, b, …] U[k, a] V[l, b] …, one factor per leading axis of the core."""
    for axis, factor in enumerate(factors):
        core = torch.tensordot(factor, core, dims=([1], [axis])).movedim(0, axis)
    return core


def _silence(factors: nn.ParameterList, stored: FourierModes, kept: FourierModes) -> None:
    for factor, rows in zip(factors, silent_rows(stored, kept), strict=False):
        factor.index_fill_(0, rows.to(factor.device), 0.0)


def _draw_factors(parts: Sequence[Float[Tensor, " ..."]], terms: int, channels: int) -> None:
    """Draw normal factors such that the dense weight has the mean square of ``SpectralConv``'s, 1/(3 channels²);
    each of its entries is a sum over ``terms`` products of all parts."""
    mean_square = 1 / (3 * channels**2)
    deviation = (mean_square / terms) ** (1 / (2 * len(parts)))
    for part in parts:
        nn.init.normal_(part, 0.0, deviation)


def _tensorly() -> ModuleType:
    """Import tensorly itself: tensorly-torch sets tensorly's global backend on import, which is not ours
    to change."""
    try:
        import tensorly
        import tensorly.decomposition
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "factorised weights need tensorly: pip install 'sobolev[factorized]'"
        ) from error
    return tensorly
