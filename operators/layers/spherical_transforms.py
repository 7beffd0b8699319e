"""Spherical harmonics of fields, up to some degree, as products with tables.

Inside, fields are ``(lon, lat, batch, channels)``. A truncated transform is then two matrix products
without a transposition between them: one along the longitudes, which makes orders of nodes, and one
per order along the latitudes, which makes degrees of rings.

Spectral fields are real tensors ``(degree, row, batch, channels)``, coefficients in harmonics that
are orthonormal on the unit sphere. For D degrees there are 2D − 1 rows: the real parts of orders
0 … D − 1, then the imaginary parts of orders 1 … D − 1, for the kernel e^{−imλ}. Entries whose
order is beyond the degree are zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import index
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.grids.sphere import SphereGrid
from sobolev.grids.spherical_transform import (
    cached_tables,
    legendre_functions,
    sines_and_weights,
)
from sobolev.operators.layers.spectral_conv import full_precision

P = ParamSpec("P")
T = TypeVar("T")
Tables = tuple[Float[Tensor, "_ _"], Float[Tensor, "row _ _"]]


class Analysis(NamedTuple):
    """The map from fields on a grid to their coefficients, by exact quadrature."""

    fourier: Float[Tensor, "row lon"]
    legendre: Float[Tensor, "row degree lat"]

    def __call__(
        self, v: Float[Tensor, "lon lat batch channels"]
    ) -> Float[Tensor, "degree row batch channels"]:
        rows, degrees, nlat = self.legendre.shape
        with full_precision(v):
            by_order = self.fourier @ v.to(self.fourier.dtype).flatten(1)
            c = torch.bmm(self.legendre, by_order.view(rows, nlat, -1))
        return c.view(rows, degrees, *v.shape[2:]).transpose(0, 1)


class Synthesis(NamedTuple):
    """The map from coefficients to the field at the nodes of a grid, whether it resolves them or not."""

    fourier: Float[Tensor, "lon row"]
    legendre: Float[Tensor, "row lat degree"]

    def __call__(
        self, c: Float[Tensor, "degree row batch channels"]
    ) -> Float[Tensor, "lon lat batch channels"]:
        with full_precision(c):
            rings = torch.bmm(self.legendre, c.flatten(2).transpose(0, 1))
            v = self.fourier @ rings.flatten(1)
        return v.view(len(v), -1, *c.shape[2:])


def analysis(kind: str, size: Sequence[int], degrees: int, like: Float[Tensor, " ..."]) -> Analysis:
    """Return the transform of fields on a grid, in the dtype (at least float32) and on the device of
    ``like``.

    Degrees that the grid does not resolve come out as zero.
    """
    return Analysis(
        *_tables("analysis", kind, *_plain_sizes(size), degrees, *_device_and_dtype(like))
    )


def synthesis(
    kind: str, size: Sequence[int], degrees: int, like: Float[Tensor, " ..."]
) -> Synthesis:
    """Return the transform to fields on a grid, in the dtype and on the device of ``like``."""
    return Synthesis(
        *_tables("synthesis", kind, *_plain_sizes(size), degrees, *_device_and_dtype(like))
    )


def unit_vectors(
    kind: str, size: Sequence[int], like: Float[Tensor, " ..."]
) -> Float[Tensor, "lon lat xyz"]:
    """Return x, y, z of the nodes on the unit sphere, in the dtype and on the device of ``like``."""
    return _unit_vectors(kind, *_plain_sizes(size), *_device_and_dtype(like))


def resolved_degrees(kind: str, size: Sequence[int]) -> int:
    """Return the number of degrees that a grid resolves."""
    return _resolved_degrees(kind, *_plain_sizes(size))


def check_size(size: Sequence[int]) -> Sequence[int]:
    """Refuse what is not (nlat, nlon) of a sphere.

    Raises:
        ValueError: for another number of axes, or fewer than 3 nodes along one.
    """
    if len(size) != 2 or min(size) < 3:
        raise ValueError(
            f"a field on a sphere has nlat and nlon of at least 3, got the sizes {tuple(size)}"
        )
    return size


def constant_when_compiled(function: Callable[P, T]) -> Callable[P, T]:
    """Mark a function for the compiler, which then calls it while it traces, with arguments that must
    be constants, and takes the result for one.

    So quadrature codes stay out of the graph, which is made again for another grid.
    ``torch.compiler.assume_constant_result`` does the same, but imports the compiler first, which
    takes two seconds.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def _device_and_dtype(like: Float[Tensor, " ..."]) -> tuple[torch.device, torch.dtype]:
    """Return the device and the dtype of the transforms, float32 at least."""
    return like.device, torch.float64 if like.dtype == torch.float64 else torch.float32


def _plain_sizes(size: Sequence[int]) -> tuple[int, int]:
    """Return (nlat, nlon) as numbers where a graph that is being compiled has symbols for them."""
    nlat, nlon = size
    return index(nlat), index(nlon)


@constant_when_compiled
def _tables(direction: str, *arguments: Any) -> Tables:
    return _cached_tables(direction, *arguments)


@cached_tables(maxsize=8)
def _cached_tables(
    direction: str,
    kind: str,
    nlat: int,
    nlon: int,
    degrees: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Tables:
    """Compute tables of ``Analysis`` or ``Synthesis``, computed in float64 on the CPU."""
    sines, weights = sines_and_weights(kind, nlat)
    legendre = legendre_functions(sines, degrees, degrees)
    order = torch.arange(degrees, dtype=torch.float64, device="cpu")[:, None]
    longitude = SphereGrid(nlat, nlon, kind).points()[1]
    amplitude = torch.full_like(order, math.sqrt(2))
    amplitude[0] = 1.0
    cos = amplitude * (order * longitude).cos()
    sin = amplitude * (order * longitude).sin()
    fourier = torch.cat([cos, -sin[1:]])
    legendre = torch.cat([legendre, legendre[1:]])
    if direction == "analysis":
        legendre = legendre * weights * (2 * math.pi / nlon)
        legendre[:, SphereGrid(nlat, nlon, kind).lmax :] = 0.0
    else:
        fourier = fourier.T
        legendre = legendre.mT
    # beside a pole the functions underflow; subnormal numbers would slow the products tenfold
    legendre = torch.where(legendre.abs() < torch.finfo(dtype).tiny ** 0.5, 0.0, legendre)
    return fourier.contiguous().to(device, dtype), legendre.contiguous().to(device, dtype)


@constant_when_compiled
def _resolved_degrees(kind: str, nlat: int, nlon: int) -> int:
    return SphereGrid(nlat, nlon, kind).lmax


@constant_when_compiled
def _unit_vectors(
    kind: str, nlat: int, nlon: int, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "lon lat xyz"]:
    latitude, longitude = SphereGrid(nlat, nlon, kind).points()
    ring = latitude.cos()
    z = latitude.sin().expand(nlon, nlat)
    x = longitude.cos()[:, None] * ring
    y = longitude.sin()[:, None] * ring
    return torch.stack([x, y, z], dim=-1).to(device, dtype)
