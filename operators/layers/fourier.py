"""Truncated Fourier transforms of real fields, as products with small real matrices.

Spectral fields are real tensors ``(batch, 2, modes, channels)``: real and imaginary parts of the
coefficients of e^{2πik·x}, modes flat over the kept block of frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.grids.axis import Axis


class Transforms(NamedTuple):
    """Transforms from fields on one grid to the kept modes, and from the modes to fields on another
    grid."""

    frequencies: tuple[range, ...]  # the kept ones, per axis
    size: tuple[int, ...]  # of the output
    forward: list[
        Float[Tensor, "part_mode part_node"]
    ]  # a matrix per axis; none where the FFT is used
    backward: list[Float[Tensor, "part_node part_mode"]]

    def analysis(
        self, v: Float[Tensor, "batch *space channels"]
    ) -> Float[Tensor, "batch 2 modes channels"]:
        """Return the coefficients of channels-last fields."""
        if not self.forward:
            return self._analysis_fft(v)
        batch, *space, channels = v.shape  # last axis first; every reshape is a view
        for i, matrix in reversed(list(enumerate(self.forward))):
            v = matrix @ v.reshape(batch * math.prod(space[:i]), matrix.shape[1], -1)
        return v.reshape(batch, 2, -1, channels)

    def synthesis(
        self, c: Float[Tensor, "batch 2 modes channels"]
    ) -> Float[Tensor, "batch *size channels"]:
        """Return the real part of the field with these coefficients, channels last."""
        if not self.forward:
            return self._synthesis_fft(c)
        batch = c.shape[0]
        channels = c.shape[-1]
        for i, matrix in enumerate(self.backward):
            c = matrix @ c.reshape(batch * math.prod(self.size[:i]), matrix.shape[1], -1)
        return c.reshape(batch, *self.size, channels)

    @property
    def zero(self) -> int:
        """The place of the zero frequency among the flat modes."""
        place = 0
        for kept in self.frequencies:
            place = place * len(kept) - kept.start
        return place

    def kept(self, weight: Float[Tensor, "*block_rest"]) -> Float[Tensor, " modes *rest"]:
        """Return the part of ``weight`` ``(*block, ...)`` that belongs to the kept modes.

        The zero frequency of a block of n rows stands at n // 2, but on the last axis at 0.
        """
        rows = [
            slice(f.start + n // 2, f.stop + n // 2)
            for f, n in zip(self.frequencies[:-1], weight.shape, strict=False)
        ]
        last = len(self.frequencies) - 1
        return weight[(*rows, slice(0, len(self.frequencies[last])))].flatten(0, last)

    def mixed(
        self, c: Float[Tensor, "batch 2 modes i"], weight: Float[Tensor, "*block i o 2"]
    ) -> Float[Tensor, "batch 2 modes o"]:
        """Mix channels mode by mode, by the part of ``weight`` that belongs to the kept modes."""
        weight = self.kept(weight).to(c.dtype)  # (modes, in, out, 2)
        batch, _, count, channels = c.shape
        rows = c.permute(2, 0, 1, 3).reshape(count, 2 * batch, channels)
        product = torch.bmm(rows, weight.flatten(2)).reshape(count, batch, 2, -1, 2)
        real = product[:, :, 0, :, 0] - product[:, :, 1, :, 1]
        imaginary = product[:, :, 0, :, 1] + product[:, :, 1, :, 0]
        return torch.stack([real, imaginary], dim=1).permute(2, 1, 0, 3)

    def _analysis_fft(
        self, v: Float[Tensor, "batch *space channels"]
    ) -> Float[Tensor, "batch 2 modes channels"]:
        space = tuple(range(1, v.ndim - 1))
        spectrum = torch.fft.rfftn(v, dim=space, norm="forward")
        for i, kept in zip(space, self.frequencies, strict=True):
            index = torch.arange(kept.start, kept.stop, device=v.device) % v.shape[i]
            spectrum = spectrum.index_select(i, index)
        return torch.view_as_real(spectrum).movedim(-1, 1).flatten(2, -2)

    def _synthesis_fft(
        self, c: Float[Tensor, "batch 2 modes channels"]
    ) -> Float[Tensor, "batch *size channels"]:
        """Transform back, complex on all axes but the last, then real."""
        block = [len(kept) for kept in self.frequencies]
        spectrum = torch.view_as_complex(c.movedim(1, -1).unflatten(1, block).contiguous())
        for i, (kept, n) in enumerate(zip(self.frequencies[:-1], self.size, strict=False), 1):
            shape = (*spectrum.shape[:i], n, *spectrum.shape[i + 1 :])
            index = torch.arange(kept.start, kept.stop, device=c.device) % n
            spectrum = spectrum.new_zeros(shape).index_copy(i, index, spectrum)
            spectrum = torch.fft.ifft(spectrum, dim=i, norm="forward")
        # Imaginary parts of the constant mode must not count; not every FFT library ignores them by itself.
        constant, rest = spectrum.tensor_split([1], dim=-2)
        spectrum = torch.cat(
            [torch.complex(constant.real, torch.zeros_like(constant.real)), rest], dim=-2
        )
        return torch.fft.irfft(spectrum, n=self.size[-1], dim=-2, norm="forward")


@dataclass(frozen=True)
class FourierModes:
    """The modes that are kept, and the kinds of the axes.

    ``counts`` m are per sign, as in the FNO paper: frequencies −m … m−1 on every axis but the last,
    0 … m−1 on the last, whose negative half follows from the field being real. ``symmetric`` blocks
    leave −m out. Modes that a grid cannot tell from others (|k| ≥ half its nodes) are not used on
    it, so that a band-limited field gives one answer on all grids that resolve it.

    An axis that is not periodic is treated as a zero extension to ``1 + padding`` times its length.
    Its coefficients are quadratures over the nodes proper (trapezoids on a nodal axis), so the
    extended length is the same at every resolution and padding costs nothing.
    """

    counts: tuple[int, ...]
    boundary: tuple[str, ...]
    padding: float = 0.25
    symmetric: bool = False

    @property
    def block(self) -> tuple[int, ...]:
        """The number of modes per axis that are kept on a grid that has them all."""
        *first, last = self.counts
        return (*(2 * m - self.symmetric for m in first), last)

    def between(
        self, size_in: Sequence[int], size_out: Sequence[int], like: Float[Tensor, " ..."]
    ) -> Transforms:
        """Return the transforms between two grids, in the dtype (at least float32) and on the device of
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
            transforms.forward.append(analysis_matrix(phase, weight, real_input=last).to(dtype))
            phase = target.points(like.device)[:, None] * wavenumber
            transforms.backward.append(synthesis_matrix(phase, real_output=last).to(dtype))
        return transforms

    def _period(self, i: int) -> float:
        return 1.0 if self.boundary[i] == "periodic" else 1.0 + self.padding

    def _frequencies(self, i: int, size: int) -> range:
        """Return the frequencies of axis ``i`` that a grid of ``size`` nodes tells apart."""
        m = self.counts[i]
        last = i == len(self.counts) - 1
        cells = (size - 1 if self.boundary[i] == "dirichlet" else size) * self._period(i)
        if cells > 2 * m:  # the usual case, decided without rounding where sizes are symbols
            return range(0 if last else -m + self.symmetric, m)
        end = min(m, math.ceil(cells / 2))
        return range(0 if last else max(-m + self.symmetric, 1 - math.ceil(cells / 2)), end)

    def _prefers_fft(self, size: Sequence[int]) -> bool:
        """Return True if the FFT is cheaper: its cost per value grows with log n, the matrix product's
        with the modes.

        The constant is where the two cross on CPU (``benchmarks/spectral_conv.py``).
        """
        if any(boundary != "periodic" for boundary in self.boundary):
            return False
        if torch.compiler.is_exporting():  # complex tensors do not export
            return False
        return sum(2 * m for m in self.counts) > 18 * math.log2(math.prod(size))


def analysis_matrix(
    phase: Float[Tensor, "node mode"], weight: Float[Tensor, "node 1"], *, real_input: bool
) -> Float[Tensor, "part_mode node_part"]:
    """Return e^{−iθ}, ``phase`` being θ, as a real matrix from ``(node[, part])`` to
    ``(part, mode)``; parts are real and imaginary."""
    cos = (phase.cos() * weight).T
    sin = (phase.sin() * weight).T
    if real_input:
        return torch.cat([cos, -sin])
    return torch.cat([torch.stack([cos, sin], dim=-1), torch.stack([-sin, cos], dim=-1)]).flatten(1)


def synthesis_matrix(
    phase: Float[Tensor, "node mode"], *, real_output: bool
) -> Float[Tensor, "node_part part_mode"]:
    """Return e^{iθ} as a real matrix from ``(part, mode)`` to ``(node[, part])``."""
    cos = phase.cos()
    sin = phase.sin()
    if real_output:  # the modes k and −k are conjugate: twice the real part, but for k = 0
        twice = torch.full_like(cos[:1], 2.0)
        twice[:, 0] = 1.0
        return torch.cat([cos * twice, -sin * twice], dim=1)
    real = torch.cat([cos, -sin], dim=1)
    imaginary = torch.cat([sin, cos], dim=1)
    return torch.stack([real, imaginary], dim=1).flatten(0, 1)
