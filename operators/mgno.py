"""The multigrid neural operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sobolev.grids.checks import check_whole, is_whole
from sobolev.operators.base import Operator
from sobolev.operators.layers.film import Film, per_layer
from sobolev.operators.layers.resampling import boundaries, resampled
from sobolev.operators.layers.vcycle import CONVOLUTIONS, CycleOptions, VCycle


class MultigridLayer(nn.Module):
    """u ↦ GELU(W u + B u + b), W a V-cycle and B, b pointwise."""

    def __init__(self, cycle: VCycle, pointwise: nn.Module | None) -> None:
        super().__init__()
        self.cycle = cycle
        self.pointwise = pointwise

    def forward(
        self, u: Float[Tensor, "batch channels *space"], film: Film | None = None
    ) -> Float[Tensor, "batch width *space"]:
        w = self.cycle(u)
        w = w if self.pointwise is None else w + self.pointwise(u)
        return F.gelu(w if film is None else film(w, channels=1))


class MgNO(Operator):
    """Multigrid neural operator (He, Liu & Xu, ICLR 2024, arXiv:2310.19809, eq. 3 and alg. 1).

    ``depth`` layers u ← GELU(W u + B u + b) and a last 1×1 map; W is a multigrid V-cycle with free
    stencils (``VCycle``: linear, no weights shared between levels or sweeps), so that every layer
    reaches across the domain at a cost linear in the number of nodes. No lift, no projection.

    Unlike the released code:

    - One transposed kernel of 4 nodes serves grids of any size, odd or even; there its size is
      written down for one chain of grids.
    - Ghosts are those of the node layout on every level, in the prolongation too (there: zeros).
      Dirichlet axes continue oddly about their end nodes; zeros put the border one cell outside,
      on level j 2^j cells. Neumann axes, of cell centres, repeat the outer cell.
    - ``norm="layer"`` has one affine map per channel instead of one per channel and node, which
      tied the released Navier–Stokes model to 64² and held 60 % of its weights.

    What transfers between resolutions: any grid is taken, but stencils count in cells. On a finer
    grid the same weights are another operator, and it does not converge. To use it on other grids,
    ask for predictions on the one it was trained on and resample those.

    Args:
        in_channels: channels of the input field.
        out_channels: channels of the output field.
        levels: grids of the V-cycle; every axis needs more than 2^(levels−1) nodes.
        width: hidden channels.
        depth: layers.
        boundary: kind of the grid's axes, one for all or one each: ``"periodic"``, ``"dirichlet"``
            (nodes include both ends) or ``"neumann"`` (cell centres).
        smoothings: sweeps per level, finest first, a number or (before, after) the coarse
            correction; by default 1, …, 1, 2, all before, as for Darcy in the paper.
        restrict: what goes to the coarser level, the ``"data"`` f as in the paper's experiments or
            the ``"residual"`` f − A u as in multigrid.
        pointwise: whether a layer has the branch B u + b.
        bias: whether the stencils A and S have a bias; the V-cycle is then affine.
        increment: whether the input is added to the output.
        norm: ``"layer"`` normalises after each prolongation; the V-cycle is then not linear.
        ndim: number of space axes.

    The paper's Navier–Stokes model is ``MgNO(1, 1, 5, 32, 5, "periodic", smoothings=(1, 1, 1, 2, 2),
    pointwise=False, bias=True, increment=True, norm="layer")``.

    Shape:
        ``(batch, in_channels, *space) -> (batch, out_channels, *space)``, any ``space`` large
        enough for the levels.

    Raises:
        ValueError: for wrong arguments, or a grid too small for the levels.

    >>> import torch
    >>> operator = MgNO(1, 1, levels=3, width=8, depth=2)
    >>> operator(torch.zeros(2, 1, 33, 20)).shape
    torch.Size([2, 1, 33, 20])
    """

    exportable = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        levels: int = 5,
        width: int = 24,
        depth: int = 5,
        boundary: str | Sequence[str] = "dirichlet",
        *,
        smoothings: Sequence[int | Sequence[int]] | None = None,
        restrict: str = "data",
        pointwise: bool = True,
        bias: bool = False,
        increment: bool = False,
        norm: str | None = None,
        ndim: int = 2,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.levels = levels
        self.width = width
        self.depth = depth
        self.restrict = restrict
        self.pointwise = pointwise
        self.bias = bias
        self.increment = increment
        self.norm = norm
        self._ndim = ndim
        self._check_arguments()
        self.boundary = boundaries(boundary, ndim)
        self.smoothings = _sweeps(smoothings, levels)
        options = CycleOptions(tuple(self.boundary), restrict, bias, norm)
        convolution = CONVOLUTIONS[ndim]
        self.layers = nn.ModuleList(
            MultigridLayer(
                VCycle(channels, width, self.smoothings, options),
                convolution(channels, width, 1) if pointwise else None,
            )
            for channels in [in_channels] + [width] * (depth - 1)
        )
        self.output = convolution(width, out_channels, 1, bias=False)

    @property
    def ndim(self) -> int:
        return self._ndim

    @property
    def film_channels(self) -> list[int]:
        return [self.width] * self.depth

    def forward(
        self,
        u: Float[Tensor, "batch in_channels *space"],
        size: Sequence[int] | None = None,
        *,
        films: Sequence[Film] | None = None,
    ) -> Float[Tensor, "batch out_channels *size"]:
        """Apply to fields on any grid; ``size``, of the output, defaults to the input's.

        For another ``size`` the input is first resampled, and the operator works on that grid.
        ``films`` modulate W u + B u + b.
        """
        self.check(u)
        u = resampled(u, size, self.boundary or [])
        self._check_size(u.shape[2:])
        v = u
        for layer, film in zip(self.layers, per_layer(films, self.depth), strict=True):
            v = self.run(layer, v, film)
        v = self.output(v)
        return u + v if self.increment else v

    def _check_size(self, space: Sequence[int]) -> None:
        for n in space:
            if n <= 2 ** (self.levels - 1):
                fits = (n - 1).bit_length()
                raise ValueError(
                    f"MgNO with levels={self.levels} needs more than {2 ** (self.levels - 1)} nodes on every axis, "
                    f"got a grid of {tuple(space)}; " + (f"use levels<={fits} or " if fits else "")
                    + f"resample to at least {2 ** (self.levels - 1) + 1}"
                )  # fmt: skip

    def _check_arguments(self) -> None:
        check_whole(
            "MgNO", in_channels=self.in_channels, out_channels=self.out_channels,
            levels=self.levels, width=self.width, depth=self.depth, ndim=self.ndim,
        )  # fmt: skip
        if self.ndim > 3:
            raise ValueError(f"MgNO works in one to three dimensions, got ndim={self.ndim}")
        if self.restrict not in ("data", "residual"):
            raise ValueError(f"restrict must be 'data' or 'residual', got {self.restrict!r}")
        if self.norm not in (None, "layer"):
            raise ValueError(f"norm must be None or 'layer', got {self.norm!r}")
        if self.increment and self.in_channels != self.out_channels:
            raise ValueError(
                f"increment=True adds the input to the output, so both need equal channels; got "
                f"in_channels={self.in_channels} and out_channels={self.out_channels}"
            )


def _sweeps(smoothings: Sequence[int | Sequence[int]] | None, levels: int) -> list[list[int]]:
    """Return the sweeps (before, after) the coarse correction of each level.

    Raises:
        ValueError: for a wrong number of levels or counts that leave a level out.
    """
    if smoothings is None:
        smoothings = [1] * (levels - 1) + [2]
    if not isinstance(smoothings, (list, tuple)) or len(smoothings) != levels:
        raise ValueError(f"smoothings needs one entry per level, {levels}, got {smoothings!r}")
    pairs: list[list[Any]] = [
        list(s) if isinstance(s, (list, tuple)) else [s, 0] for s in smoothings
    ]
    for pair in pairs:
        if len(pair) != 2 or not all(is_whole(s) and s >= 0 for s in pair):
            raise ValueError(
                f"an entry of smoothings is a count or (before, after), whole numbers of at least 0; got {pair}"
            )
    if pairs[0][0] < 1 or pairs[-1][0] < 1 or pairs[-1][1] > 0:
        raise ValueError(
            "smoothings needs a sweep before the coarse correction on the finest level, and on the coarsest at least "
            f"one and none after; got {pairs}"
        )
    return pairs
