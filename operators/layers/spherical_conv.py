"""Convolution on the sphere: a linear map, degree by degree, of a field's spherical harmonics.

Fields and coefficients lie as in ``spherical_transforms``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sobolev.grids.checks import check_whole
from sobolev.grids.spherical_transform import KINDS, cached_tables
from sobolev.operators.layers.spectral_conv import full_precision
from sobolev.operators.layers.spherical_transforms import (
    analysis,
    check_size,
    constant_when_compiled,
    synthesis,
)


class ZonalFilter(nn.Module):
    """ĉ_lm = K_l c_lm with real matrices K_l: convolution with zonal kernels.

    It commutes with every rotation, and with reflections.
    """

    CHANNEL_AXES: ClassVar = {"weight": (-2, -1)}

    def __init__(self, in_channels: int, out_channels: int, degrees: int) -> None:
        super().__init__()
        self.weight = _normal_weights(degrees, in_channels, out_channels, variance=1 / in_channels)

    def forward(
        self, c: Float[Tensor, "degree row batch i"]
    ) -> Float[Tensor, "degree row batch o"]:
        with full_precision(c):
            return torch.bmm(c.flatten(1, 2), self.weight.to(c.dtype)).unflatten(1, c.shape[1:3])


class ComplexFilter(nn.Module):
    """ĉ_lm = K_l c_lm with complex K_l for m ≥ 0, the filter of the released codes.

    A field is real, so the orders −m see the conjugate of K_l: its phase turns east- and westward
    waves in opposite senses. That commutes with rotations about the polar axis only.
    """

    CHANNEL_AXES: ClassVar = {"weight": (-3, -2)}

    def __init__(self, in_channels: int, out_channels: int, degrees: int) -> None:
        super().__init__()
        self.weight = _normal_weights(
            degrees, in_channels, out_channels, 2, variance=0.5 / in_channels
        )

    def forward(
        self, c: Float[Tensor, "degree row batch i"]
    ) -> Float[Tensor, "degree row batch o"]:
        degrees, rows, batch, _ = c.shape
        with full_precision(c):
            product = torch.bmm(c.flatten(1, 2), self.weight.to(c.dtype).flatten(2))
            product = product.view(degrees, rows, batch, -1, 2)
            zero, real, imaginary = product.split([1, rows // 2, rows // 2], dim=1)
            return torch.cat([zero[..., 0], *_complex_product(real, imaginary)], dim=1)


class DiagonalFilter(nn.Module):
    """ĉ_lm = K_lm c_lm with complex K_lm for m > 0 and real K_l0.

    The weights lie as the modes of ``SphereGrid`` do: the real part of K_lm at l² + l + m, the
    imaginary part at l² + l − m, so that none is without effect. It commutes with rotations about
    the polar axis only.
    """

    CHANNEL_AXES: ClassVar = {"weight": (-2, -1)}

    def __init__(self, in_channels: int, out_channels: int, degrees: int) -> None:
        super().__init__()
        self.degrees = degrees
        self.weight = _normal_weights(
            degrees**2, in_channels, out_channels, variance=0.5 / in_channels
        )

    def forward(
        self, c: Float[Tensor, "degree row batch i"]
    ) -> Float[Tensor, "degree row batch o"]:
        zero, real, imaginary, *entries = _triangle_places(self.degrees, c.device)
        weight = self.weight.to(c.dtype)
        rows = c.flatten(0, 1)
        with full_precision(c):
            complex_weight = torch.stack([weight[real], weight[imaginary]], dim=-1).flatten(2)
            parts = [torch.bmm(rows[e], complex_weight).unflatten(2, (-1, 2)) for e in entries[1:]]
            values = [torch.bmm(rows[entries[0]], weight[zero]), *_complex_product(*parts)]
        filtered = rows.new_zeros(*rows.shape[:2], weight.shape[-1])
        filtered = filtered.index_copy(0, torch.cat(entries), torch.cat(values))
        return filtered.unflatten(0, c.shape[:2])


FILTERS: dict[str, type[ZonalFilter] | type[ComplexFilter] | type[DiagonalFilter]] = {
    "zonal": ZonalFilter,
    "diagonal": DiagonalFilter,
    "complex": ComplexFilter,
}


class SphericalConv(nn.Module):
    """u ↦ Σ_lm K c_lm Y_lm, the spectral convolution on the sphere (Bonev et al. 2023,
    arXiv:2306.03838, section 3), c_lm being the coefficients of u.

    Per degree and pair of channels a zonal filter has 1 real weight, a complex one 2, a diagonal
    one 2l + 1. The released codes store complex weights for zonal filters too, which breaks the
    rotational symmetry that the filter is there for.

    Args:
        in_channels, out_channels: channels.
        degrees: l runs over 0 … degrees − 1. A grid with fewer exact degrees uses those it has.
        kind: where the rings of the grid lie, ``"legendre-gauss"`` or ``"equiangular"``.
        filter: ``"zonal"`` (commutes with every rotation), ``"complex"`` or ``"diagonal"`` (about
            the polar axis only).

    Shape:
        ``(batch, in_channels, lat, lon) -> (batch, out_channels, *size)``.

    >>> layer = SphericalConv(1, 1, 4)
    >>> with torch.no_grad():
    ...     _ = layer.filter.weight.fill_(2.0)
    >>> layer(torch.ones(1, 1, 5, 8), size=(9, 17)).mean().item()
    2.0

    Raises:
        ValueError: for counts below 1, an unknown kind or filter, too few nodes, or other input.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        degrees: int,
        *,
        kind: str = "legendre-gauss",
        filter: str = "zonal",
    ) -> None:
        super().__init__()
        check_whole(
            "SphericalConv", in_channels=in_channels, out_channels=out_channels, degrees=degrees
        )
        check_name("kind", kind, KINDS)
        check_name("filter", filter, FILTERS)
        self.in_channels = in_channels
        self.degrees = degrees
        self.kind = kind
        self.filter = FILTERS[filter](in_channels, out_channels, degrees)

    def forward(
        self, u: Float[Tensor, "batch in_channels lat lon"], *, size: Sequence[int] | None = None
    ) -> Float[Tensor, "batch out_channels lat_out lon_out"]:
        """Apply to fields on any grid of the kind; ``size``, of the output, defaults to the input's."""
        if u.ndim != 4 or u.shape[1] != self.in_channels:
            raise ValueError(
                f"SphericalConv expects (batch, {self.in_channels}, lat, lon), got a tensor of shape {tuple(u.shape)}"
            )
        space = check_size(u.shape[2:])
        size = space if size is None else check_size(size)
        c = analysis(self.kind, space, self.degrees, u)(u.permute(3, 2, 0, 1))
        v = synthesis(self.kind, size, self.degrees, u)(self.filter(c))
        return v.permute(2, 3, 1, 0)


def check_name(what: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that is not among the known ones.

    Raises:
        ValueError: listing them.
    """
    if name not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}; got {name!r}")


def _complex_product(
    real: Float[Tensor, "*shape 2"], imaginary: Float[Tensor, "*shape 2"]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Return the parts of the product, from those of one factor times each part of the other (last axis)."""
    return real[..., 0] - imaginary[..., 1], real[..., 1] + imaginary[..., 0]


def _normal_weights(*shape: int, variance: float) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) * math.sqrt(variance))


@constant_when_compiled
def _triangle_places(degrees: int, device: torch.device) -> tuple[Int[Tensor, " n"], ...]:
    return _cached_triangle_places(degrees, device)


@cached_tables(maxsize=8)
def _cached_triangle_places(degrees: int, device: torch.device) -> tuple[Int[Tensor, " n"], ...]:
    """Return the places of a diagonal filter's weights, then of the coefficients in flat
    ``(degree, row)``: order 0, real parts, imaginary parts."""
    l, m = torch.ones(degrees, degrees, device="cpu").tril().nonzero().T
    l = l[m > 0]
    m = m[m > 0]
    zero = torch.arange(degrees, device="cpu")
    middle = l**2 + l
    start = l * (2 * degrees - 1)
    indices = [zero**2 + zero, middle + m, middle - m]
    indices += [zero * (2 * degrees - 1), start + m, start + degrees - 1 + m]
    return tuple(i.to(device) for i in indices)
