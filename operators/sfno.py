"""The spherical Fourier neural operator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sobolev.grids.checks import check_whole
from sobolev.grids.grid import AbstractGrid
from sobolev.grids.sphere import SphereGrid
from sobolev.grids.spherical_transform import KINDS
from sobolev.operators.base import Operator
from sobolev.operators.layers.film import Film, per_layer
from sobolev.operators.layers.spectral_conv import full_precision
from sobolev.operators.layers.spherical_conv import FILTERS, check_name
from sobolev.operators.layers.spherical_transforms import (
    Synthesis,
    analysis,
    check_size,
    resolved_degrees,
    synthesis,
    unit_vectors,
)


class SphericalBlock(nn.Module):
    """c ↦ MLP(Σ_lm (K c)_lm Y_lm): the branch of a residual block, from coefficients to a field."""

    def __init__(self, filter: nn.Module, width: int, hidden: int, *, norm: bool) -> None:
        super().__init__()
        self.filter = filter
        self.norm = norm
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(
        self,
        c: Float[Tensor, "degree row batch channels"],
        transform: Synthesis,
        film: Film | None = None,
    ) -> Float[Tensor, "lon lat batch channels"]:
        c = self.filter(c)
        w = self.mlp(transform(normalized(c) if self.norm else c))
        return w if film is None else film(w, batch=2)


class SFNO(Operator):
    """Spherical Fourier neural operator (Bonev et al., ICML 2023, arXiv:2306.03838).

    Lift pointwise to ``width`` channels, apply ``depth`` residual blocks v ↦ v + MLP(K v), project
    pointwise. K is a spectral convolution, the MLP acts pointwise with one hidden layer of GELUs.
    This is the block of torch-harmonics' current example, which needs one pass over the field less
    than the paper's (norms and a second skip inside the block).

    With ``filter="zonal"`` and without ``positions`` the operator commutes with rotations, up to
    the aliasing of GELU on the inner grid. All blocks but the last end on that grid, which belongs
    to the operator and not to the data: a field that the input grid resolves gives one and the same
    function, to rounding, on whatever grid it came, and that function is what the output holds at
    its nodes. Finer output is evaluated, not interpolated.

    What differs from the released codes: zonal weights are real (theirs are complex, which is
    equivariant about the polar axis only); the norm takes means over the sphere's area instead of
    over the nodes, by Parseval; the residual changes grids through the harmonics also where two
    grids agree in size but not in kind (torch-harmonics 0.9.3 then takes the nodes of one for those
    of the other). The lift has no bias, and like the projection of the last residual it acts on
    coefficients, where it is the same linear map on fewer numbers.

    The tables of the transforms come from a quadrature code and are cached by grid, device and
    dtype outside the module: neither parameters nor buffers; ``spherical_transform.clear_tables``
    frees them. They cannot be computed from a symbolic resolution, so the operator is not
    ``exportable``.

    Args:
        in_channels: channels of the input field.
        out_channels: channels of the output field.
        grid: the grid of the training data, as a ``SphereGrid`` or a mapping of its fields. Other
            grids of its kind are taken at call time; their sizes are the input's.
        degrees: l runs over 0 … degrees − 1 in every filter; at most, and by default, as many as
            ``grid`` and the inner grid resolve.
        width: hidden channels.
        depth: blocks.
        filter: ``"zonal"`` (one real matrix per degree), ``"complex"`` (one complex matrix per
            degree) or ``"diagonal"`` (one per degree and order); the latter two commute with
            rotations about the polar axis only.
        scale: the inner grid has (nlat − 1) // scale + 1 rings of nlon // scale nodes.
        inner: kind of the inner grid.
        mlp_ratio: hidden channels of an MLP over ``width``.
        norm: normalize each channel after the filter to mean 0 and variance 1 over the sphere.
        skip: add a linear map of the input to the output; it carries what is beyond ``degrees``.
        positions: append the node's unit vector (x, y, z) to the input, which ends equivariance.

    Shape:
        ``(batch, in_channels, lat, lon) -> (batch, out_channels, *size)``.

    >>> operator = SFNO(1, 2, grid=SphereGrid(16, 32), width=8, scale=2)
    >>> operator.sphere.lmax, operator.degrees
    (16, 8)
    >>> operator(torch.zeros(3, 1, 16, 32), size=(33, 64)).shape
    torch.Size([3, 2, 33, 64])

    Raises:
        ValueError: for counts below 1, an unknown filter or kind, a grid that is no sphere, or an inner
            grid below 3 × 3.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        grid: SphereGrid | Mapping[str, Any],
        degrees: int | None = None,
        width: int = 32,
        depth: int = 4,
        *,
        filter: str = "zonal",
        scale: int = 1,
        inner: str = "legendre-gauss",
        mlp_ratio: float = 2.0,
        norm: bool = False,
        skip: bool = False,
        positions: bool = False,
    ) -> None:
        super().__init__()
        self.sphere = _sphere(grid)
        self.grid = asdict(self.sphere)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.width = width
        self.depth = depth
        self.filter = filter
        self.scale = scale
        self.inner = inner
        self.mlp_ratio = mlp_ratio
        self.norm = norm
        self.skip = skip
        self.positions = positions
        self._check_arguments(degrees)
        rings = (self.sphere.nlat - 1) // scale + 1
        nodes = self.sphere.nlon // scale
        self.inner_size = tuple(check_size((rings, nodes)))
        resolved = min(self.sphere.lmax, SphereGrid(rings, nodes, inner).lmax)
        self.degrees = resolved if degrees is None else min(degrees, resolved)
        self.lift = nn.Linear(in_channels + 3 * positions, width, bias=False)
        self.blocks = nn.ModuleList(
            SphericalBlock(
                FILTERS[filter](width, width, self.degrees),
                width,
                round(width * mlp_ratio),
                norm=norm,
            )
            for _ in range(depth)
        )
        self.project = nn.Linear(width, out_channels)
        if skip:
            self.bypass = nn.Linear(in_channels, out_channels, bias=False)

    @property
    def ndim(self) -> int:
        return 2

    @property
    def film_channels(self) -> list[int]:
        return [self.width] * self.depth

    def check_grid(self, grid: AbstractGrid) -> None:
        """Refuse a grid that is not of this sphere and of its kind, at any resolution.

        Raises:
            ValueError: saying what the operator is built for.
        """
        mine = self.sphere
        if not isinstance(grid, SphereGrid):
            raise ValueError(
                "SFNO works on a sphere, the data live on a flat grid; FNO is for those"
            )
        if grid.kind != mine.kind or not math.isclose(grid.radius, mine.radius, rel_tol=1e-9):
            raise ValueError(
                f"SFNO was built for a sphere of kind={mine.kind!r} and radius={mine.radius:g}, the data's has "
                f"kind={grid.kind!r} and radius={grid.radius:g}"
            )

    def forward(
        self,
        u: Float[Tensor, "batch in_channels lat lon"],
        size: Sequence[int] | None = None,
        *,
        films: Sequence[Film] | None = None,
    ) -> Float[Tensor, "batch out_channels lat_out lon_out"]:
        """Apply to fields on any grid of the sphere; ``size``, of the output, defaults to the input's.

        The output is the same function whatever ``size``: only the last synthesis and the layers
        after it work on the output's nodes. ``films`` modulate the blocks' branches.
        """
        self.check(u)
        space = check_size(u.shape[-2:])
        size = space if size is None else check_size(size)
        v = u.permute(3, 2, 0, 1)  # (lon, lat, batch, channels), see spherical_transforms.py
        kind = self.sphere.kind
        degrees = self.degrees
        to_output = synthesis(kind, size, degrees, u)
        c = analysis(kind, space, degrees, u)(self._with_positions(v))
        *inner, last = per_layer(films, self.depth)
        c = self._inner_blocks(linear_without_bias(c, self.lift), inner)
        branch = self.project(self.run(self.blocks[-1], c, to_output, last))
        result = branch + to_output(linear_without_bias(c, self.project))
        if self.skip:
            result = result + self.bypass(self._resampled(v, space, size))
        return result.permute(2, 3, 1, 0)

    def _inner_blocks(
        self, c: Float[Tensor, "degree row batch channels"], films: Sequence[Film | None]
    ) -> Float[Tensor, "degree row batch channels"]:
        """Apply all blocks but the last, from coefficients to coefficients."""
        if self.depth == 1:
            return c
        to_inner = synthesis(self.inner, self.inner_size, self.degrees, c)
        to_modes = analysis(self.inner, self.inner_size, self.degrees, c)
        v = to_inner(c)
        for block, film in zip(list(self.blocks)[:-1], films, strict=True):
            v = v + self.run(block, c, to_inner, film)
            c = to_modes(v)
        return c

    def _with_positions(
        self, v: Float[Tensor, "lon lat batch channels"]
    ) -> Float[Tensor, "lon lat batch more"]:
        if not self.positions:
            return v
        directions = unit_vectors(self.sphere.kind, (v.shape[1], v.shape[0]), v)
        return torch.cat([v, directions[:, :, None].to(v.dtype).expand(*v.shape[:3], 3)], dim=-1)

    def _resampled(
        self, v: Float[Tensor, "lon lat batch channels"], space: Sequence[int], size: Sequence[int]
    ) -> Float[Tensor, "lon_out lat_out batch channels"]:
        """Return fields on another grid, with all degrees that their own resolves."""
        if tuple(size) == tuple(space):
            return v
        kind = self.sphere.kind
        degrees = resolved_degrees(self.sphere.kind, space)
        return synthesis(kind, size, degrees, v)(analysis(kind, space, degrees, v)(v))

    def _check_arguments(self, degrees: int | None) -> None:
        check_whole(
            "SFNO", in_channels=self.in_channels, out_channels=self.out_channels, width=self.width,
            depth=self.depth, scale=self.scale, degrees=1 if degrees is None else degrees,
        )  # fmt: skip
        check_name("filter", self.filter, FILTERS)
        check_name("inner", self.inner, KINDS)
        if not round(self.width * self.mlp_ratio) >= 1:
            raise ValueError(
                f"mlp_ratio must leave at least one of width={self.width} channels, got {self.mlp_ratio}"
            )


def _sphere(grid: SphereGrid | Mapping[str, Any]) -> SphereGrid:
    if isinstance(grid, SphereGrid):
        return grid
    known = {field.name for field in fields(SphereGrid)}
    if not isinstance(grid, Mapping) or not {"nlat", "nlon"} <= set(grid) <= known:
        raise ValueError(
            "SFNO needs grid to be a SphereGrid or a mapping of its fields, nlat and nlon and perhaps kind and "
            f"radius; got {grid!r}"
        )
    return SphereGrid(**grid)


def normalized(
    c: Float[Tensor, "degree row batch channels"], eps: float = 1e-6
) -> Float[Tensor, "degree row batch channels"]:
    """Return coefficients of the fields less their mean and over their standard deviation, both over
    the sphere's area.

    The mean is the coefficient of degree 0, the variance by Parseval the sum of the other squares
    over 4π: exact, the same at every resolution and under every rotation, which means over the
    nodes of a grid are not.
    """
    deviation = torch.cat([torch.zeros_like(c[:1]), c[1:]])
    variance = deviation.square().sum((0, 1)) / (4 * math.pi)
    return deviation * (variance + eps).rsqrt()


def linear_without_bias(
    c: Float[Tensor, "*shape i"], layer: nn.Linear
) -> Float[Tensor, "*shape o"]:
    """Apply the layer without its bias, in the precision of the coefficients."""
    with full_precision(c):
        return F.linear(c, layer.weight.to(c.dtype))
