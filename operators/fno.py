"""The Fourier neural operator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sobolev.operators.base import Operator, check_whole
from sobolev.operators.fourier import Transforms
from sobolev.operators.resampling import boundaries, resampled
from sobolev.operators.spectral_conv import SpectralConv
from sobolev.solvers.grids import Axis


class FourierBlock(nn.Module):
    """v ↦ K v + W v + b on channels-last fields, with K a spectral convolution and W a 1×1
    convolution."""

    def __init__(self, kernel: SpectralConv, width: int) -> None:
        super().__init__()
        self.kernel, self.skip = kernel, nn.Linear(width, width)

    def forward(self, v: Tensor, transforms: Transforms) -> Tensor:
        return self.kernel(v, transforms) + self.skip(v)


class FNO(Operator):
    """Fourier neural operator in one, two or three dimensions (Li et al., ICLR 2021,
    arXiv:2010.08895).

    Lift pointwise to ``width`` channels, apply ``depth`` layers v ↦ σ(K v + W v + b) (no σ after
    the last), project pointwise by one hidden layer; σ is GELU. As in the paper, but: no batch
    normalisation (it costs an order of magnitude of accuracy on Burgers), padding by a fraction of
    the domain instead of a number of cells, and no position channels unless asked for, so that on
    periodic axes the operator commutes with shifts.

    Args:
        in_channels: channels of the input field.
        out_channels: channels of the output field.
        modes: Fourier modes per axis and sign: frequencies −m … m−1, on the last axis 0 … m−1. Its
            length is the number of space axes. A grid with fewer modes uses those that it has.
        width: hidden channels.
        depth: Fourier layers.
        boundary: kind of the grid's axes, one for all or one each: ``"periodic"``, ``"dirichlet"``
            (nodes include both ends) or ``"neumann"`` (cell centres).
        padding: fraction of its length by which an axis that is not periodic is extended.
        positions: append position channels: x itself, or (cos 2πx, sin 2πx) on a periodic axis.
        projection: hidden channels of the projection; 2 ``width`` by default.

    Shape:
        ``(batch, in_channels, *space) -> (batch, out_channels, *space)``, any ``space``, odd sizes
        included.

    >>> operator = FNO(1, 1, modes=(12, 12), width=20)
    >>> operator(torch.zeros(2, 1, 64, 48)).shape, operator(torch.zeros(2, 1, 33, 33), size=(66, 66)).shape
    (torch.Size([2, 1, 64, 48]), torch.Size([2, 1, 66, 66]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: Sequence[int] = (12, 12),
        width: int = 32,
        depth: int = 4,
        *,
        boundary: str | Sequence[str] = "periodic",
        padding: float = 0.25,
        positions: bool = False,
        projection: int | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.modes, self.width, self.depth = list(modes), width, depth
        self.boundary = boundaries(boundary, len(self.modes))
        self.padding, self.positions = padding, positions
        self.projection = 2 * width if projection is None else projection
        self._check_arguments()
        position_channels = (
            sum(2 if b == "periodic" else 1 for b in self.boundary) if positions else 0
        )
        self.lift = nn.Linear(in_channels + position_channels, width)
        self.blocks = nn.ModuleList(
            FourierBlock(
                SpectralConv(width, width, self.modes, boundary=self.boundary, padding=padding),
                width,
            )
            for _ in range(depth)
        )
        self.project = nn.Sequential(
            nn.Linear(width, self.projection), nn.GELU(), nn.Linear(self.projection, out_channels)
        )

    @property
    def ndim(self) -> int:
        return len(self.modes)

    def forward(self, u: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """``(batch, in_channels, *space) -> (batch, out_channels, *size)``; ``size`` defaults to
        the input's.

        For another ``size`` the input is first resampled: by its Fourier series where all axes are
        periodic (exact for what the input grid resolves), else linearly.
        """
        self.check(u)
        v = resampled(u, size, self.boundary).movedim(1, -1)
        if self.positions:
            v = torch.cat([v, self._positions(v)], dim=-1)
        v = self.lift(v)
        *hidden, last = (cast(FourierBlock, block) for block in self.blocks)
        transforms = last.kernel.modes.between(v.shape[1:-1], v.shape[1:-1], v)
        for block in hidden:
            v = F.gelu(self.run(block, v, transforms))
        return self.project(self.run(last, v, transforms)).movedim(-1, 1)

    def _positions(self, v: Tensor) -> Tensor:
        channels = []
        for i, (n, boundary) in enumerate(zip(v.shape[1:-1], self.boundary, strict=True)):
            x = Axis("", n, boundary=boundary).points(v.device)
            functions = (
                [(2 * math.pi * x).cos(), (2 * math.pi * x).sin()]
                if boundary == "periodic"
                else [x]
            )
            shape = [1] * i + [n] + [1] * (self.ndim - 1 - i)
            channels += [f.to(v.dtype).reshape(shape).expand(v.shape[1:-1]) for f in functions]
        return torch.stack(channels, dim=-1).expand(*v.shape[:-1], -1)

    def _check_arguments(self) -> None:
        check_whole(
            "FNO", in_channels=self.in_channels, out_channels=self.out_channels, width=self.width,
            depth=self.depth, projection=self.projection, modes=self.modes,
        )  # fmt: skip
        if not 1 <= len(self.modes) <= 3:
            raise ValueError(
                f"modes needs one entry per space axis, one to three; got {self.modes}"
            )
        if not self.padding >= 0:
            raise ValueError(f"padding is a fraction of the domain, at least 0; got {self.padding}")
