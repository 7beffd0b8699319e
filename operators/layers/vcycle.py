"""The multigrid V-cycle with free stencils: the linear maps of MgNO.

Level j has ⌈n/2^j⌉ nodes per axis; node i of a coarse axis stands at node 2i of the finer one. What
lies beyond the border is a ghost of what lies inside, the same on every level::

    boundary   nodes                 ghosts                    the coarse grid is exact for
    periodic   end left out          u₋₁ =  uₙ₋₁, uₙ =  u₀      even n
    dirichlet  both ends included    u₋₁ = −u₁,   uₙ = −uₙ₋₂    odd n: both ends stay nodes
    neumann    cell centres          u₋₁ =  u₀,   uₙ =  uₙ₋₁    even n: cells merge in pairs

Otherwise the last coarse cell is wider or narrower than the others by one fine cell: still a linear
map, but no more exactly the symmetry's or the textbook's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_LAYOUTS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d}


class CycleOptions(NamedTuple):
    """Options that all levels of a V-cycle share."""

    boundary: tuple[str, ...]
    restrict: str = "data"
    bias: bool = False
    norm: str | None = None


class VCycle(nn.Module):
    """f ↦ u, one V-cycle from u = 0 for "A u = f" with learnt stencils (He, Liu & Xu, ICLR 2024,
    arXiv:2310.19809, alg. 1).

    On every level, each arrow with weights of its own::

        smooth       u ← u + S (f − A u)                          pre times; the very first is u = S f
        restrict     f′ = R f  or, of the residual, R (f − A u);  u′ = Π u
        prolongate   u ← u + P u′                                 u′ from the level below
        smooth       u ← u + S (f − A u)                          post times

    A, S: 3 nodes per axis; R, Π: 3, stride 2; P: transposed, 4, stride 2, its output cut to the size
    of the finer level. On 4 nodes P holds linear interpolation on nodes (½, 1, ½, 0) and on cell
    centres (¼, ¾, ¾, ¼), R their restrictions (¼, ½, ¼) and (0, ½, ½).

    With no bias and no norm the map is linear. With Π = 0 and the residual restricted it is the
    classical V-cycle, whatever A, S, R and P are; on periodic axes of 2^(levels−1) m nodes it
    commutes with shifts by 2^(levels−1) nodes.

    Args:
        data: channels of f.
        unknown: channels of u.
        smoothings: (pre, post) per level, finest first.
        options: boundaries, what is restricted, whether A and S have a bias, and the norm after
            each prolongation.

    Shape:
        ``(batch, data, *space) -> (batch, unknown, *space)``, channels-last in memory.
    """

    def __init__(
        self, data: int, unknown: int, smoothings: Sequence[Sequence[int]], options: CycleOptions
    ) -> None:
        super().__init__()
        (pre, post), *coarser = smoothings
        self.options = options
        self.start = stencil(data, unknown, options)
        self.finest = Level(data, unknown, [(pre - 1, post), *coarser], options)

    def forward(
        self, f: Float[Tensor, "batch data *space"]
    ) -> Float[Tensor, "batch unknown *space"]:
        boundary = self.options.boundary
        f = f.contiguous(
            memory_format=_LAYOUTS[len(boundary)]
        )  # convolutions then take half the time
        return self.finest(self.start(extended(f, boundary)), f)


class Level(nn.Module):
    """The part of the V-cycle from one level downwards: (u, f) ↦ u."""

    def __init__(
        self, data: int, unknown: int, smoothings: Sequence[Sequence[int]], options: CycleOptions
    ) -> None:
        super().__init__()
        (pre, post), *coarser = smoothings
        self.before = nn.ModuleList(Smoothing(data, unknown, options) for _ in range(pre))
        self.after = nn.ModuleList(Smoothing(data, unknown, options) for _ in range(post))
        self.correction = CoarseCorrection(data, unknown, coarser, options) if coarser else None

    def forward(
        self, u: Float[Tensor, "batch unknown *space"], f: Float[Tensor, "batch data *space"]
    ) -> Float[Tensor, "batch unknown *space"]:
        for smoothing in self.before:
            u = smoothing(u, f)
        if self.correction is not None:
            u = self.correction(u, f)
        for smoothing in self.after:
            u = smoothing(u, f)
        return u


class Smoothing(nn.Module):
    """(u, f) ↦ u + S (f − A u)."""

    def __init__(self, data: int, unknown: int, options: CycleOptions) -> None:
        super().__init__()
        self.boundary = options.boundary
        self.A = stencil(unknown, data, options)
        self.S = stencil(data, unknown, options)

    def forward(
        self, u: Float[Tensor, "batch unknown *space"], f: Float[Tensor, "batch data *space"]
    ) -> Float[Tensor, "batch unknown *space"]:
        residual = f - self.A(extended(u, self.boundary))
        return u + self.S(extended(residual, self.boundary))


class CoarseCorrection(nn.Module):
    """(u, f) ↦ u + P u′, with u′ from the next coarser level."""

    def __init__(
        self, data: int, unknown: int, smoothings: Sequence[Sequence[int]], options: CycleOptions
    ) -> None:
        super().__init__()
        self.boundary = options.boundary
        plain = options._replace(bias=False)
        self.A = stencil(unknown, data, options) if options.restrict == "residual" else None
        self.R = stencil(data, data, plain, stride=2)
        self.Pi = stencil(unknown, unknown, plain, stride=2)
        self.P = _TRANSPOSED[len(self.boundary)](unknown, unknown, 4, 2, padding=2, bias=False)
        # over all channels and nodes, as in the released code, but with one affine map per channel
        self.norm = nn.GroupNorm(1, unknown) if options.norm == "layer" else None
        self.coarser = Level(data, unknown, smoothings, options)

    def forward(
        self, u: Float[Tensor, "batch unknown *space"], f: Float[Tensor, "batch data *space"]
    ) -> Float[Tensor, "batch unknown *space"]:
        surrounded = extended(u, self.boundary)
        if self.A is not None:
            f = f - self.A(surrounded)
        f = self.R(extended(f, self.boundary))
        correction = self.P(extended(self.coarser(self.Pi(surrounded), f), self.boundary))
        for axis in range(2, u.ndim):  # one fine node too many before, one or two after
            correction = correction.narrow(axis, 1, u.shape[axis])
        u = u + correction
        return u if self.norm is None else self.norm(u)


def stencil(channels: int, out_channels: int, options: CycleOptions, stride: int = 1) -> nn.Module:
    """Return a convolution over 3 nodes per axis of an extended field."""
    convolution = CONVOLUTIONS[len(options.boundary)]
    return convolution(channels, out_channels, 3, stride, bias=options.bias)


def extended(
    u: Float[Tensor, "batch channels *space"], boundary: Sequence[str]
) -> Float[Tensor, "batch channels *more"]:
    """Return fields with one ghost node on either side of every axis.

    >>> extended(torch.tensor([[[1.0, 2, 3]]]), ["dirichlet"])
    tensor([[[-2.,  1.,  2.,  3., -2.]]])
    """
    for kind, extend in _EXTENSIONS.items():
        axes = [axis for axis, b in enumerate(boundary, 2) if b == kind]
        u = extend(u, axes) if axes else u
    return u


def _wrapped(
    u: Float[Tensor, "batch channels *space"], axes: Sequence[int]
) -> Float[Tensor, "batch channels *more"]:
    """Extend periodic axes; ``pad(mode="circular")`` takes three times as long and forgets the layout."""
    for axis in axes:
        if torch.compiler.is_exporting():  # the graph would not hold for an empty inner part
            first = u.narrow(axis, 0, 1)
            last = u.narrow(axis, u.shape[axis] - 1, 1)
            u = torch.cat([last, u, first], axis)
        else:  # its gradient takes half the time
            first, inner, last = u.split([1, u.shape[axis] - 2, 1], axis)
            u = torch.cat([last, first, inner, last, first], axis)
    return u


def _repeated(
    u: Float[Tensor, "batch channels *space"], axes: Sequence[int]
) -> Float[Tensor, "batch channels *more"]:
    return F.pad(u, _padding_around(u, axes), mode="replicate")


def _mirrored(
    u: Float[Tensor, "batch channels *space"], axes: Sequence[int]
) -> Float[Tensor, "batch channels *more"]:
    """Extend fields oddly about the end nodes."""
    sign = u.new_ones(())
    for axis in axes:
        ends = F.pad(u.new_ones(u.shape[axis]), (1, 1), value=-1.0)
        sign = sign * ends.view(-1, *[1] * (u.ndim - 1 - axis))
    return F.pad(u, _padding_around(u, axes), mode="reflect") * sign


def _padding_around(u: Float[Tensor, "batch channels *space"], axes: Sequence[int]) -> list[int]:
    """Return the padding by one node on either side of ``axes``, last axis first."""
    return [int(axis in axes) for axis in range(u.ndim - 1, 1, -1) for _ in range(2)]


_EXTENSIONS = {"periodic": _wrapped, "neumann": _repeated, "dirichlet": _mirrored}
