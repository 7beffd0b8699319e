"""The Fourier layer: a linear map, mode by mode, of the lowest Fourier modes of a field."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sobolev.grids.checks import check_whole, whole_numbers
from sobolev.operators.layers.film import Film
from sobolev.operators.layers.fourier import FourierModes, Transforms
from sobolev.operators.layers.resampling import boundaries


class FourierLayer(nn.Module, ABC):
    """v ↦ Σ_k R_k v̂_k e^{2πik·x}; how the matrices R_k are stored is a subclass's business.

    Raises:
        ValueError: for counts below 1, an unknown boundary kind, or a negative padding.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: Sequence[int],
        boundary: str | Sequence[str],
        padding: float,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        check_whole(owner, in_channels=in_channels, out_channels=out_channels)
        counts = whole_numbers(owner, "modes", modes)
        kinds = boundaries(boundary, len(counts))
        check_padding(padding)
        self.modes = FourierModes(tuple(counts), tuple(kinds), padding)

    def forward(
        self,
        v: Float[Tensor, "batch *space i"],
        transforms: Transforms | None = None,
        *,
        size: Sequence[int] | None = None,
        film: Film | None = None,
    ) -> Float[Tensor, "batch *size o"]:
        """Apply to channels-last fields; ``size``, of the output, defaults to the input's.

        Layers of one network share ``transforms``, made once per call by ``modes.between``. They
        may keep fewer modes than are stored. ``film`` modulates the output, by way of its
        coefficients, which are far fewer than its values.
        """
        with full_precision(v):
            v = v if v.dtype == torch.float64 else v.float()
            if transforms is None:
                space = tuple(v.shape[1:-1])
                transforms = self.modes.between(space, space if size is None else size, v)
            c = self.mixed(transforms.analysis(v), transforms)
            if film is not None:
                c = film.scale[:, None, None].to(c.dtype) * c
                c[:, 0, transforms.zero] += film.shift
            return transforms.synthesis(c)

    @abstractmethod
    def mixed(
        self, c: Float[Tensor, "batch 2 modes i"], transforms: Transforms
    ) -> Float[Tensor, "batch 2 modes o"]:
        """Return R_k c_k for the kept modes."""

    @abstractmethod
    def silence(self, kept: FourierModes) -> None:
        """Set the weights of all stored modes but the ``kept`` ones to zero, in place."""


class SpectralConv(FourierLayer):
    """v ↦ Σ_k R_k v̂_k e^{2πik·x}, the kernel integral of the Fourier neural operator (Li et al.
    2021, eq. 4–5).

    Which modes are kept, and how axes that are not periodic are extended, is ``FourierModes``'s. The
    real part of the sum is returned, which is what the inverse real FFT of the released code
    computes.

    The truncated transform is a product with a small real matrix per axis. No complex tensor
    appears, and fields stay channels-last, ``(batch, *space, channels)``. For many modes on
    periodic axes an FFT is cheaper and is used instead; both agree to rounding.

    Args:
        in_channels, out_channels: channels of the last axis.
        modes: m per space axis.
        boundary: ``"periodic"``, ``"dirichlet"`` or ``"neumann"``, one for all space axes or one
            each (where the nodes lie: grids.py).
        padding: fraction of its length by which an axis that is not periodic is extended.
    """

    CHANNEL_AXES: ClassVar = {"weight": (-3, -2)}

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: Sequence[int],
        *,
        boundary: str | Sequence[str],
        padding: float = 0.25,
    ) -> None:
        super().__init__(in_channels, out_channels, modes, boundary, padding)
        self.weight = nn.Parameter(torch.empty(*self.modes.block, in_channels, out_channels, 2))
        nn.init.uniform_(self.weight, 0.0, 1 / (in_channels * out_channels))

    def mixed(
        self, c: Float[Tensor, "batch 2 modes i"], transforms: Transforms
    ) -> Float[Tensor, "batch 2 modes o"]:
        return transforms.mixed(c, self.weight)

    @torch.no_grad()
    def silence(self, kept: FourierModes) -> None:
        for axis, rows in enumerate(silent_rows(self.modes, kept)):
            self.weight.index_fill_(axis, rows.to(self.weight.device), 0.0)


def check_padding(padding: float) -> None:
    """Refuse what is no extension of an axis.

    Raises:
        ValueError: saying what was expected.
    """
    if not 0 <= padding < math.inf:
        raise ValueError(f"padding is a fraction of the domain, at least 0; got {padding}")


def silent_rows(stored: FourierModes, kept: FourierModes) -> list[Int[Tensor, " rows"]]:
    """Return, per axis, the rows of a stored block whose frequencies are not among the ``kept`` ones."""
    result = []
    for axis, (n, few) in enumerate(zip(stored.block, kept.block, strict=True)):
        first = 0 if axis == len(stored.block) - 1 else n // 2 - few // 2
        rows = [*range(first), *range(first + few, n)]
        result.append(torch.tensor(rows, dtype=torch.long, device="cpu"))
    return result


def full_precision(v: Float[Tensor, " ..."]) -> AbstractContextManager[Any]:
    """Return a context without autocast on the device of ``v``, for transforms."""
    if not torch.amp.is_autocast_available(v.device.type):  # the meta device has none
        return nullcontext()
    return torch.autocast(v.device.type, enabled=False)
