"""The Fourier neural operator."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sobolev.grids.axis import Axis
from sobolev.grids.checks import check_whole, whole_numbers
from sobolev.operators.base import Operator
from sobolev.operators.layers.factorized import CPConv, TuckerConv
from sobolev.operators.layers.film import Film, per_layer
from sobolev.operators.layers.fourier_blocks import (
    FourierBlock,
    KernelMLPBlock,
    TwoSkipBlock,
    channel_mlp,
)
from sobolev.operators.layers.resampling import boundaries, resampled
from sobolev.operators.layers.spectral_conv import FourierLayer, SpectralConv, check_padding

Block = FourierBlock | KernelMLPBlock | TwoSkipBlock


class FNO(Operator):
    """Fourier neural operator in one, two or three dimensions (Li et al., ICLR 2021,
    arXiv:2010.08895).

    Lift pointwise to ``width`` channels, apply ``depth`` layers v ↦ σ(K v + W v + b) (no σ after
    the last), project pointwise by one hidden layer; σ is GELU. As in the paper, but: no batch
    normalisation unless asked for (it costs an order of magnitude of accuracy on Burgers), padding
    by a fraction of the domain instead of a number of cells, and no position channels unless asked
    for, so that on periodic axes the operator commutes with shifts.

    Args:
        in_channels: channels of the input field.
        out_channels: channels of the output field.
        modes: Fourier modes per axis and sign: frequencies −m … m−1, on the last axis 0 … m−1. Its
            length is the number of space axes. A grid with fewer modes uses those that it has.
        width: hidden channels.
        depth: Fourier layers.
        boundary: kind of the grid's axes, one for all or one each: ``"periodic"``, ``"dirichlet"``
            (nodes include both ends) or ``"neumann"`` (cell centres).
        padding: fraction of its length by which an axis that is not periodic is extended; of no
            effect on the others.
        positions: append position channels. True: x itself, or (cos 2πx, sin 2πx) on a periodic
            axis. Other networks' conventions, on any axis of n nodes: ``"closed"`` i / (n−1), the
            original's; ``"half-open"`` i / n, neuralop's.
        lifting: hidden channels of the lifting; by default it is linear.
        projection: hidden channels of the projection; 2 ``width`` by default.
        mlp: a channel MLP in each block, its hidden channels as a multiple of ``width``.
        norm: ``"instance"``, ``"batch"`` or ``"group"`` normalisation in each block (group: over
            all channels).
        skip: ``"linear"``, ``"identity"``, ``"soft-gating"`` or None, around kernel and MLP together
            (v ↦ σ(M N(K N(v)) + S v), or v ↦ σ(N(K v + S v)) without MLP); or two of these, around
            the kernel and around the MLP, as in neuralop (v ↦ σN₂(M σ(N₁(K v) + S₁ v) + S₂ v)).
        factorization: ``"tucker"`` or ``"cp"`` weights instead of dense ones; needs the extra
            ``sobolev[factorized]``.
        rank: share of the dense weights' number that factorised ones have; of no effect on dense
            ones.
        active_modes: how many of ``modes`` the layers use, per axis and sign; all by default.

    Shape:
        ``(batch, in_channels, *space) -> (batch, out_channels, *space)``, any ``space``, odd sizes
        included.

    >>> operator = FNO(1, 1, modes=(12, 12), width=20)
    >>> operator(torch.zeros(2, 1, 64, 48)).shape, operator(torch.zeros(2, 1, 33, 33), size=(66, 66)).shape
    (torch.Size([2, 1, 64, 48]), torch.Size([2, 1, 66, 66]))
    """

    boundary: list[str]
    exportable = True

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
        positions: bool | str = False,
        lifting: int | None = None,
        projection: int | None = None,
        mlp: float | None = None,
        norm: str | None = None,
        skip: str | Sequence[str | None] | None = "linear",
        factorization: str | None = None,
        rank: float = 0.1,
        active_modes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.modes = whole_numbers("FNO", "modes", modes)
        self.width = width
        self.depth = depth
        self.boundary = boundaries(boundary, len(self.modes))
        self.padding = padding
        self.positions = positions
        self.lifting = lifting
        self.projection = 2 * width if projection is None else projection
        self.mlp = mlp
        self.norm = norm
        self.skip = skip if skip is None or isinstance(skip, str) else list(skip)
        self.factorization = factorization
        self.rank = rank
        self._check_arguments()
        channels = in_channels + self._position_channels
        self.lift = (
            nn.Linear(channels, width) if lifting is None else channel_mlp(channels, lifting, width)
        )
        self.blocks = nn.ModuleList(self._block(last=i == depth - 1) for i in range(depth))
        self.project = channel_mlp(width, self.projection, out_channels)
        self._active = cast(Block, self.blocks[0]).kernel.modes
        if active_modes is not None:
            self.active_modes = active_modes

    @property
    def ndim(self) -> int:
        return len(self.modes)

    @property
    def film_channels(self) -> list[int]:
        return [self.width] * self.depth

    @property
    def active_modes(self) -> list[int]:
        """The modes per axis and sign that the layers use, of those that they store: ``modes`` unless
        set to fewer, to grow in training (``IncrementalModes``; George et al. 2022, arXiv:2211.15188).

        Part of the ``configuration``, not of the ``state_dict``.

        >>> operator = FNO(1, 1, modes=(12, 12), width=4)
        >>> operator.active_modes = (3, 12)
        >>> operator.active_modes
        [3, 12]
        """
        return list(self._active.counts)

    @active_modes.setter
    def active_modes(self, counts: Sequence[int]) -> None:
        counts = whole_numbers("FNO", "active_modes", counts)
        if len(counts) != self.ndim or any(c > m for c, m in zip(counts, self.modes, strict=True)):
            raise ValueError(
                f"active_modes needs one number per axis, at most the stored modes {self.modes}; "
                f"got {counts}"
            )
        self._active = dataclasses.replace(self._active, counts=tuple(counts))

    def silence_inactive_modes(self) -> None:
        """Set the weights of the modes that are not active to zero, so that activating them changes
        nothing until they have been trained."""
        for block in self.blocks:
            cast(Block, block).kernel.silence(self._active)

    def forward(
        self,
        u: Float[Tensor, "batch in_channels *space"],
        size: Sequence[int] | None = None,
        *,
        films: Sequence[Film] | None = None,
    ) -> Float[Tensor, "batch out_channels *size"]:
        """Apply to fields on any grid; ``size``, of the output, defaults to the input's.

        For another ``size`` the input is first resampled: by its Fourier series where all axes are
        periodic (exact for what the input grid resolves), else linearly. ``films`` modulate what
        the blocks return, before σ.
        """
        self.check(u)
        v = resampled(u, size, self.boundary).movedim(1, -1)
        if self.positions:
            v = torch.cat([v, self._positions(v)], dim=-1)
        v = self.lift(v)
        *hidden, last = zip(self.blocks, per_layer(films, self.depth), strict=True)
        transforms = self._active.between(v.shape[1:-1], v.shape[1:-1], v)
        for block, film in hidden:
            v = F.gelu(self.run(block, v, transforms, film))
        block, film = last
        return self.project(self.run(block, v, transforms, film)).movedim(-1, 1)

    def _block(self, *, last: bool) -> Block:
        kernel = self._kernel()
        width = self.width
        if self.mlp is None:
            return FourierBlock(kernel, width, skip=cast(str | None, self.skip), norm=self.norm)
        hidden = round(self.mlp * width)
        if isinstance(self.skip, list):
            first, second = self.skip
            return TwoSkipBlock(
                kernel, width, hidden, skips=(first, second), norm=self.norm, last=last
            )
        return KernelMLPBlock(kernel, width, hidden, skip=self.skip, norm=self.norm)

    def _kernel(self) -> FourierLayer:
        width = self.width
        boundary = self.boundary
        padding = self.padding
        if self.factorization is None:
            return SpectralConv(width, width, self.modes, boundary=boundary, padding=padding)
        layer = TuckerConv if self.factorization == "tucker" else CPConv
        return layer(width, width, self.modes, boundary=boundary, padding=padding, rank=self.rank)

    @property
    def _position_channels(self) -> int:
        if self.positions is True:
            return sum(2 if boundary == "periodic" else 1 for boundary in self.boundary)
        return self.ndim if self.positions else 0

    def _positions(
        self, v: Float[Tensor, "batch *space channels"]
    ) -> Float[Tensor, "batch *space positions"]:
        channels = []
        for i, (n, boundary) in enumerate(zip(v.shape[1:-1], self.boundary, strict=True)):
            shape = [1] * i + [n] + [1] * (self.ndim - 1 - i)
            for f in self._coordinates(n, boundary, v.device):
                channels.append(f.to(v.dtype).reshape(shape).expand(v.shape[1:-1]))
        return torch.stack(channels, dim=-1).expand(*v.shape[:-1], -1)

    def _coordinates(
        self, n: int, boundary: str, device: torch.device
    ) -> list[Float[Tensor, " n"]]:
        """Return the position channels of one axis."""
        if self.positions == "closed":
            return [torch.arange(n, dtype=torch.float64, device=device) / max(n - 1, 1)]
        if self.positions == "half-open":
            return [torch.arange(n, dtype=torch.float64, device=device) / n]
        x = Axis("", n, boundary=boundary).points(device)
        if boundary == "periodic":
            return [(2 * math.pi * x).cos(), (2 * math.pi * x).sin()]
        return [x]

    def _check_arguments(self) -> None:
        check_whole(
            "FNO", in_channels=self.in_channels, out_channels=self.out_channels, width=self.width,
            depth=self.depth, projection=self.projection,
            lifting=1 if self.lifting is None else self.lifting,
        )  # fmt: skip
        if not 1 <= len(self.modes) <= 3:
            raise ValueError(
                f"modes needs one entry per space axis, one to three; got {self.modes}"
            )
        check_padding(self.padding)
        named = isinstance(self.positions, str) and self.positions in ("closed", "half-open")
        if not named and not isinstance(self.positions, bool):
            raise ValueError(
                f"positions needs True, False, 'closed' or 'half-open', got {self.positions!r}"
            )
        if self.mlp is not None and not self.mlp * self.width >= 1:
            raise ValueError(
                f"mlp is the MLP's hidden channels as a multiple of width={self.width}, at least one "
                f"channel; got {self.mlp}"
            )
        if isinstance(self.skip, list) and (self.mlp is None or len(self.skip) != 2):
            raise ValueError(
                f"two skips are one around the kernel and one around the MLP, so they need mlp; got "
                f"skip={self.skip} and mlp={self.mlp}"
            )
        if self.factorization not in (None, "tucker", "cp"):
            raise ValueError(
                f"factorization needs 'tucker', 'cp' or None, got {self.factorization!r}"
            )
        if not 0 < self.rank <= 1:
            raise ValueError(f"rank is a share of the dense weights, in (0, 1]; got {self.rank}")
