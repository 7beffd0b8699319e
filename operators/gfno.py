"""The group-equivariant Fourier neural operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from sobolev.grids.axis import Axis
from sobolev.grids.checks import check_whole, is_whole, whole_numbers
from sobolev.grids.grid import AbstractGrid, Grid
from sobolev.operators.base import Operator
from sobolev.operators.layers.film import Film, per_layer
from sobolev.operators.layers.fourier import FourierModes, Transforms
from sobolev.operators.layers.group_conv import (
    GroupLinear,
    GroupSpectralConv,
    Lifting,
    Projection,
    group_matrices,
)
from sobolev.operators.layers.resampling import boundaries, resampled
from sobolev.operators.layers.spectral_conv import check_padding, full_precision

_EPSILON = 1e-5  # added to variances, as torch's instance norm does


class GroupFourierBlock(nn.Module):
    """v ↦ A₂ σ(A₁ N(K N(v))) + W v on fields over the group: K a spectral convolution, A₁, A₂ and W
    pointwise, N without its parameters the instance norm over group and space.

    The second N and A₁ act on Fourier coefficients, which are far fewer than values: A₁ commutes with
    the transform, and a variance is the sum of the squared coefficients (Parseval; on axes that are
    not periodic, the variance over the torus of the transform). So does a modulation of what σ is
    applied to.
    """

    def __init__(
        self, matrices: Int[Tensor, "g 2 2"], width: int, modes: FourierModes, norm: bool
    ) -> None:
        super().__init__()
        self.width = width
        self.norm = norm
        self.kernel = GroupSpectralConv(matrices, width, width, modes)
        self.inner = GroupLinear(matrices, width, width)
        self.outer = GroupLinear(matrices, width, width)
        self.skip = GroupLinear(matrices, width, width)

    def forward(
        self,
        v: Float[Tensor, "batch *space channels"],
        transforms: Transforms,
        film: Film | None = None,
    ) -> Float[Tensor, "batch *space channels"]:
        with full_precision(v):
            w = v if v.dtype == torch.float64 else v.float()
            if self.norm:
                w = F.group_norm(w.movedim(-1, 1), self.width, eps=_EPSILON).movedim(1, -1)
            c = self.kernel(transforms.analysis(w), transforms)
            if self.norm:
                c = self._normalised(c, transforms)
            weight, bias = self.inner.weights()
            c = c @ weight.T
            if film is not None:
                film = film.repeated(v.shape[-1] // self.width)
                c = c * film.scale[:, None, None]
                bias = film.scale * bias + film.shift
            c[:, 0, transforms.zero] += bias
            w = transforms.synthesis(c)
        return self.outer(F.gelu(w)) + self.skip(v)

    def _normalised(
        self, c: Float[Tensor, "batch 2 modes channels"], transforms: Transforms
    ) -> Float[Tensor, "batch 2 modes channels"]:
        """Return coefficients with mean 0 and variance 1 over the group and the torus of the
        transform."""
        c = c.clone()
        c[:, 0, transforms.zero] -= self._over_group(c[:, 0, transforms.zero])
        square = c.square().sum(1).unflatten(1, (-1, len(transforms.frequencies[-1])))
        energy = 2 * square.sum((1, 2)) - square[:, :, 0].sum(1)  # k and −k, but for k_last = 0
        return c * (self._over_group(energy) + _EPSILON).rsqrt()[:, None, None]

    def _over_group(self, a: Float[Tensor, "batch channels"]) -> Float[Tensor, "batch channels"]:
        """Return each channel's mean over the group, in the place of its values."""
        values = a.unflatten(-1, (self.width, -1))
        return values.mean(-1, keepdim=True).expand_as(values).flatten(-2)


class GFNO(Operator):
    """Group-equivariant Fourier neural operator (Helwig et al., ICML 2023, arXiv:2306.05697): turning
    the input by a quarter, or for ``group="p4m"`` mirroring it, turns or mirrors the output, exactly.

    Lift to fields v(x, g) on the group, apply ``depth`` blocks v ↦ σ(A₂ σ(A₁ N(K N(v))) + W v) (no
    outer σ after the last), sum over the group after one hidden layer; σ is GELU, N the instance
    norm. On three axes (y, x, t) the group acts on y and x alone.

    As in the paper, but: weights follow every change of the parameters in evaluation, too (the
    released code keeps those of the first call); all frequencies start from one distribution (there,
    those on the axes of the block start larger); squared distances are taken from the middle of
    the nodes, since from the middle of a periodic domain they are not symmetric on its nodes; axes
    need not be periodic, and channels may be the components of vectors. On periodic axes without
    position channel the operator also commutes with shifts.

    A scalar channel keeps its value when it is mirrored. Vorticity changes sign, so choose p4 for it.

    Args:
        in_channels: channels of the input field.
        out_channels: channels of the output field.
        modes: m per axis, frequencies −(m−1) … m−1 on y and x, which need the same number; a third
            one for time. A grid with fewer modes uses those that it has.
        width: hidden channels per group element.
        depth: blocks.
        group: ``"p4"``, quarter turns, or ``"p4m"``, quarter turns and reflections.
        boundary: kind of the grid's axes, one for all or one each: ``"periodic"``, ``"dirichlet"`` or
            ``"neumann"``; y and x are of one kind.
        padding: fraction of its length by which an axis that is not periodic is extended.
        positions: ``"symmetric"`` appends the squared distance from the middle of the nodes, and
            time on three axes; None nothing.
        vectors: pairs of channels that are vectors (u_y, u_x), as ``{"in": [[0, 1]], "out": []}``.
        norm: whether the blocks have N; by default as in the paper, on two axes but not on three.
        projection: hidden channels per group element of the projection; 4 ``width`` by default.

    Shape:
        ``(batch, in_channels, n, n[, time]) -> (batch, out_channels, n, n[, time])``, any n.

    >>> operator, u = GFNO(1, 1, modes=(4, 4), width=3).double(), torch.rand(1, 1, 9, 9).double()
    >>> torch.allclose(operator(u.rot90(dims=(2, 3))), operator(u).rot90(dims=(2, 3)), atol=1e-12)
    True
    """

    boundary: list[str]
    exportable = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: Sequence[int] = (12, 12),
        width: int = 10,
        depth: int = 4,
        group: str = "p4",
        *,
        boundary: str | Sequence[str] = "periodic",
        padding: float = 0.25,
        positions: str | None = None,
        vectors: Mapping[str, Sequence[Sequence[int]]] | None = None,
        norm: bool | None = None,
        projection: int | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.modes = whole_numbers("GFNO", "modes", modes)
        self.width = width
        self.depth = depth
        self.group = group
        self.boundary = boundaries(boundary, len(self.modes))
        self.padding = padding
        self.positions = positions
        self.vectors = {
            "in": _vector_pairs("in", vectors, in_channels),
            "out": _vector_pairs("out", vectors, out_channels),
        }
        self.norm = len(self.modes) == 2 if norm is None else norm
        self.projection = 4 * width if projection is None else projection
        self._check_arguments()
        matrices = group_matrices(group)
        lifted = in_channels + (0 if positions is None else self.ndim - 1)
        self._fourier = FourierModes(
            tuple(self.modes), tuple(self.boundary), padding, symmetric=True
        )
        self.lift = Lifting(matrices, lifted, width, self.vectors["in"])
        self.blocks = nn.ModuleList(
            GroupFourierBlock(matrices, width, self._fourier, self.norm) for _ in range(depth)
        )
        self.project = nn.Sequential(
            GroupLinear(matrices, width, self.projection),
            nn.GELU(),
            Projection(matrices, self.projection, out_channels, self.vectors["out"]),
        )

    @property
    def ndim(self) -> int:
        return len(self.modes)

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

        For another ``size`` the input is first resampled, as in ``FNO``. On periodic axes that keeps
        turns about a node, not about the middle of the nodes. ``films`` modulate what the blocks
        return, before σ, all group elements of a channel alike.
        """
        self.check(u)
        v = resampled(u, size, self.boundary).movedim(1, -1)
        _check_square("size", v.shape[1:-1])
        if self.positions is not None:
            v = torch.cat([v, self._positions(v)], dim=-1)
        v = self.lift(v)
        transforms = self._fourier.between(v.shape[1:-1], v.shape[1:-1], v)
        *hidden, last = zip(self.blocks, per_layer(films, self.depth), strict=True)
        for block, film in hidden:
            v = F.gelu(self.run(block, v, transforms, film))
        block, film = last
        return self.project(self.run(block, v, transforms, film)).movedim(-1, 1)

    def check(self, u: Shaped[Tensor, " ..."]) -> None:
        """Refuse input of the wrong rank, channel count or shape; a turn maps a grid to itself only
        if it is square.

        Raises:
            ValueError: saying what was expected.
        """
        super().check(u)
        _check_square("a field", u.shape[2:])

    def check_grid(self, grid: AbstractGrid) -> None:
        """Refuse a grid whose fields the operator is not built for, or that a turn does not map to
        itself.

        Raises:
            ValueError: saying what was expected.
        """
        super().check_grid(grid)
        y, x = cast(Grid, grid).axes[:2]
        _check_square("a grid", grid.shape)
        if y.length != x.length:
            raise ValueError(
                f"GFNO needs a square domain, since a turn maps another one elsewhere; got lengths {y.length} "
                f"and {x.length}"
            )

    def _positions(
        self, v: Float[Tensor, "batch *space channels"]
    ) -> Float[Tensor, "batch *space positions"]:
        square, *rest = (
            Axis("", n, boundary=boundary)
            for n, boundary in zip(v.shape[2:-1], self.boundary[1:], strict=True)
        )
        x = square.points(v.device)
        x = (x - x.flip(0)) / 2  # from the middle of the nodes, antisymmetric to the last bit
        channels = [(x[:, None] ** 2 + x**2).reshape(*v.shape[1:3], *([1] * len(rest)))]
        channels += [axis.points(v.device) for axis in rest]
        expanded = [channel.to(v.dtype).expand(v.shape[1:-1]) for channel in channels]
        return torch.stack(expanded, dim=-1).expand(*v.shape[:-1], -1)

    def _check_arguments(self) -> None:
        check_whole(
            "GFNO", in_channels=self.in_channels, out_channels=self.out_channels, width=self.width,
            depth=self.depth, projection=self.projection,
        )  # fmt: skip
        if len(self.modes) not in (2, 3) or self.modes[0] != self.modes[1]:
            raise ValueError(
                f"GFNO needs modes (m, m) or (m, m, time), as many on y as on x; got {self.modes}"
            )
        if self.boundary[0] != self.boundary[1]:
            raise ValueError(
                f"GFNO needs y and x of one boundary kind, since a turn swaps them; got {self.boundary}"
            )
        check_padding(self.padding)
        if not isinstance(self.norm, bool):
            raise ValueError(f"norm must be True, False or None, got {self.norm!r}")
        if self.positions not in (None, "symmetric"):
            raise ValueError(f"positions must be None or 'symmetric', got {self.positions!r}")


def _check_square(what: str, space: Sequence[int]) -> None:
    if space[0] != space[1]:
        raise ValueError(
            f"GFNO needs as many nodes on y as on x, since a turn maps another grid to a different one; got {what} "
            f"of {tuple(space)}; resample it to a square one, or use FNO"
        )


def _vector_pairs(
    name: str, vectors: Mapping[str, Sequence[Sequence[int]]] | None, channels: int
) -> list[list[int]]:
    """Return the pairs of channels that ``vectors`` has under ``name``, ``"in"`` or ``"out"``."""
    if vectors is None:
        return []
    if not isinstance(vectors, Mapping) or not set(vectors) <= {"in", "out"}:
        raise ValueError(
            f"vectors is a mapping with entries for 'in' and 'out' only, got {vectors!r}"
        )
    pairs = vectors.get(name, [])
    whole = isinstance(pairs, (list, tuple)) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and all(map(is_whole, pair))
        for pair in pairs
    )
    flat = [i for pair in pairs for i in pair] if whole else []
    if not whole or len(set(flat)) < len(flat) or not set(flat) <= set(range(channels)):
        raise ValueError(
            f"vectors[{name!r}] needs pairs of different channels (u_y, u_x) among 0 … {channels - 1}, got "
            f"{pairs!r}"
        )
    return [list(pair) for pair in pairs]
