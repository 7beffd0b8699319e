"""The Fourier layer: a linear map, mode by mode, of the lowest Fourier modes of a field."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sobolev.solvers.grids import Axis


class Transforms(NamedTuple):
    """Truncated Fourier transforms from one grid to the modes and from the modes to another
    grid."""

    frequencies: tuple[range, ...]  # the kept ones, per axis
    size: tuple[int, ...]  # of the output
    analysis: list[Tensor]  # a matrix per axis; none where the FFT is used
    synthesis: list[Tensor]


class SpectralConv(nn.Module):
    """v ↦ Σ_k R_k v̂_k e^{2πik·x}, the kernel integral of the Fourier neural operator (Li et al.
    2021, eq. 4–5).

    ``modes`` count per sign as in the paper: frequencies −m … m−1 on every axis but the last, 0 …
    m−1 on the last, whose negative half follows from v being real. The real part of the sum is
    returned, which is what the inverse real FFT of the released code computes. Modes that the input
    or the output grid cannot tell from others (|k| ≥ half its nodes) are left out, so that a
    band-limited field gives one answer on all grids that resolve it.

    An axis that is not periodic is treated as a zero extension to ``1 + padding`` times its length.
    The coefficients are quadratures over the nodes proper (trapezoids on a nodal axis), so the
    extended length is the same at every resolution and padding costs nothing.

    The truncated transform is a product with a small real matrix per axis. No complex tensor
    appears, and fields stay channels-last, ``(batch, *space, channels)``. For many modes on
    periodic axes an FFT is cheaper and is used instead; both agree to rounding.

    Args:
        in_channels, out_channels: channels of the last axis.
        modes: m per space axis.
        boundary: ``"periodic"``, ``"dirichlet"`` or ``"neumann"`` per space axis (where the nodes
            lie: grids.py).
        padding: fraction of its length by which an axis that is not periodic is extended.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: Sequence[int],
        *,
        boundary: Sequence[str],
        padding: float = 0.25,
    ) -> None:
        super().__init__()
        self.modes, self.boundary, self.padding = tuple(modes), tuple(boundary), padding
        block = [2 * m for m in self.modes[:-1]] + [self.modes[-1]]
        self.weight = nn.Parameter(torch.empty(*block, in_channels, out_channels, 2))
        nn.init.uniform_(self.weight, 0.0, 1 / (in_channels * out_channels))

    def forward(
        self, v: Tensor, transforms: Transforms | None = None, *, size: Sequence[int] | None = None
    ) -> Tensor:
        """``(batch, *space, in_channels) -> (batch, *size, out_channels)``; ``size`` defaults to
        the input's.

        Layers of one network share ``transforms``, made once per call by ``self.transforms``.
        """
        with torch.autocast(v.device.type, enabled=False):  # transforms need full precision
            v = v if v.dtype == torch.float64 else v.float()
            space = tuple(v.shape[1:-1])
            if transforms is None:
                transforms = self.transforms(space, size or space, v)
            if not transforms.analysis:
                return _synthesis_fft(
                    self._mixed(_analysis_fft(v, transforms), transforms), transforms
                )
            return _synthesis(self._mixed(_analysis(v, transforms), transforms), transforms)

    def transforms(
        self, size_in: Sequence[int], size_out: Sequence[int], like: Tensor
    ) -> Transforms:
        """Transforms between two grids, in the dtype (at least float32) and on the device of
        ``like``."""
        frequencies = tuple(
            self._frequencies(i, min(n_in, n_out))
            for i, (n_in, n_out) in enumerate(zip(size_in, size_out, strict=True))
        )
        transforms = Transforms(frequencies, tuple(size_out), [], [])
        if self._prefers_fft(size_in):
            return transforms
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        for i, (boundary, kept) in enumerate(zip(self.boundary, frequencies, strict=True)):
            last = i == len(frequencies) - 1
            k = torch.arange(kept.start, kept.stop, dtype=torch.float64, device=like.device)
            wavenumber = 2 * math.pi / self._period(i) * k
            source, target = (Axis("", n, boundary=boundary) for n in (size_in[i], size_out[i]))
            weight = source.weights(like.device)[:, None] / self._period(i)
            phase = source.points(like.device)[:, None] * wavenumber
            transforms.analysis.append(_analysis_matrix(phase, weight, real_input=last).to(dtype))
            phase = target.points(like.device)[:, None] * wavenumber
            transforms.synthesis.append(_synthesis_matrix(phase, real_output=last).to(dtype))
        return transforms

    def _mixed(
        self, c: Float[Tensor, "batch 2 modes i"], transforms: Transforms
    ) -> Float[Tensor, "batch 2 modes o"]:
        """Channel mixing per mode: ``(batch, 2, modes, in) -> (batch, 2, modes, out)``."""
        kept = [
            slice(f.start + m, f.stop + m)
            for f, m in zip(transforms.frequencies[:-1], self.modes, strict=False)
        ]
        weight = self.weight[(*kept, slice(0, len(transforms.frequencies[-1])))]
        weight = weight.flatten(0, -4).to(c.dtype)  # (modes, in, out, 2)
        batch, _, count, channels = c.shape
        rows = c.permute(2, 0, 1, 3).reshape(count, 2 * batch, channels)
        product = torch.bmm(rows, weight.flatten(2)).reshape(count, batch, 2, -1, 2)
        real = product[:, :, 0, :, 0] - product[:, :, 1, :, 1]
        imaginary = product[:, :, 0, :, 1] + product[:, :, 1, :, 0]
        return torch.stack([real, imaginary], dim=1).permute(2, 1, 0, 3)

    def _period(self, i: int) -> float:
        return 1.0 if self.boundary[i] == "periodic" else 1.0 + self.padding

    def _frequencies(self, i: int, size: int) -> range:
        """The frequencies of axis ``i`` that a grid of ``size`` nodes tells apart."""
        cells = (size - 1 if self.boundary[i] == "dirichlet" else size) * self._period(i)
        largest = min(self.modes[i] - 1, math.ceil(cells / 2) - 1)
        last = i == len(self.modes) - 1
        return range(0 if last else max(-self.modes[i], -math.ceil(cells / 2) + 1), largest + 1)

    def _prefers_fft(self, size: Sequence[int]) -> bool:
        """Whether the FFT is cheaper: its cost per value grows with log n, the matrix product's
        with the modes.

        The constant is where the two cross on CPU (``benchmarks/spectral_conv.py``).
        """
        if any(boundary != "periodic" for boundary in self.boundary):
            return False
        return sum(2 * m for m in self.modes) > 18 * math.log2(math.prod(size))


def _analysis_matrix(phase: Tensor, weight: Tensor, *, real_input: bool) -> Tensor:
    """e^{−iθ} as a real matrix from ``(node[, part])`` to ``(part, mode)``, parts being real and
    imaginary."""
    cos, sin = (phase.cos() * weight).T, (phase.sin() * weight).T
    if real_input:
        return torch.cat([cos, -sin])
    return torch.cat([torch.stack([cos, sin], dim=-1), torch.stack([-sin, cos], dim=-1)]).flatten(1)


def _synthesis_matrix(phase: Tensor, *, real_output: bool) -> Tensor:
    """e^{iθ} as a real matrix from ``(part, mode)`` to ``(node[, part])``."""
    cos, sin = phase.cos(), phase.sin()
    if real_output:  # the modes k and −k are conjugate: twice the real part, but for k = 0
        twice = torch.full_like(cos[:1], 2.0)
        twice[:, 0] = 1.0
        return torch.cat([cos * twice, -sin * twice], dim=1)
    real, imaginary = torch.cat([cos, -sin], dim=1), torch.cat([sin, cos], dim=1)
    return torch.stack([real, imaginary], dim=1).flatten(0, 1)


def _analysis(
    v: Float[Tensor, "batch *space channels"], transforms: Transforms
) -> Float[Tensor, "batch 2 modes channels"]:
    """``(batch, *space, channels) -> (batch, 2, modes, channels)``, last axis first; every reshape
    is a view."""
    batch, *space, channels = v.shape
    for i, matrix in reversed(list(enumerate(transforms.analysis))):
        v = matrix @ v.reshape(batch * math.prod(space[:i]), matrix.shape[1], -1)
    return v.reshape(batch, 2, -1, channels)


def _synthesis(
    c: Float[Tensor, "batch 2 modes channels"], transforms: Transforms
) -> Float[Tensor, "batch *size channels"]:
    """``(batch, 2, modes, channels) -> (batch, *size, channels)``, first axis first."""
    batch, channels = c.shape[0], c.shape[-1]
    for i, matrix in enumerate(transforms.synthesis):
        c = matrix @ c.reshape(batch * math.prod(transforms.size[:i]), matrix.shape[1], -1)
    return c.reshape(batch, *transforms.size, channels)


def _analysis_fft(
    v: Float[Tensor, "batch *space channels"], transforms: Transforms
) -> Float[Tensor, "batch 2 modes channels"]:
    """What ``_analysis`` computes, by FFT."""
    space = tuple(range(1, v.ndim - 1))
    spectrum = torch.fft.rfftn(v, dim=space, norm="forward")
    for i, kept in zip(space, transforms.frequencies, strict=True):
        index = torch.arange(kept.start, kept.stop, device=v.device) % v.shape[i]
        spectrum = spectrum.index_select(i, index)
    return torch.view_as_real(spectrum).movedim(-1, 1).flatten(2, -2)


def _synthesis_fft(
    c: Float[Tensor, "batch 2 modes channels"], transforms: Transforms
) -> Float[Tensor, "batch *size channels"]:
    """What ``_synthesis`` computes, by FFT: complex on all axes but the last, then real."""
    block = [len(kept) for kept in transforms.frequencies]
    spectrum = torch.view_as_complex(c.movedim(1, -1).unflatten(1, block).contiguous())
    for i, (kept, n) in enumerate(
        zip(transforms.frequencies[:-1], transforms.size, strict=False), 1
    ):
        shape = (*spectrum.shape[:i], n, *spectrum.shape[i + 1 :])
        index = torch.arange(kept.start, kept.stop, device=c.device) % n
        spectrum = spectrum.new_zeros(shape).index_copy(i, index, spectrum)
        spectrum = torch.fft.ifft(spectrum, dim=i, norm="forward")
    # Imaginary parts of the constant mode must not count; not every FFT library ignores them by itself.
    constant, rest = spectrum.tensor_split([1], dim=-2)
    spectrum = torch.cat(
        [torch.complex(constant.real, torch.zeros_like(constant.real)), rest], dim=-2
    )
    return torch.fft.irfft(spectrum, n=transforms.size[-1], dim=-2, norm="forward")
