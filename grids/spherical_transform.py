"""Spherical harmonic transform in float64 tables, on rings of equally spaced longitudes.

Spectral fields are kept in *order-major* form: real tensors ``(2, orders, ..., 2, half)`` whose
entry ``[p, m, ..., i, j]`` is the real (i = 0) or imaginary part (i = 1) of

    a_lm = ∫ u Ȳ_lm dΩ,   l = m + p + 2j,   m ≥ 0,

on the unit sphere, with orthonormal Y_lm = P_lm(sin φ) e^{imλ} without the Condon–Shortley phase.
Splitting the degrees by the parity p of l − m makes every Legendre function even or odd about the
equator, which halves the tables, and the Legendre step becomes one batched real matrix product.
Entries with l ≥ ``degrees`` are padding; they stay zero.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

KINDS = ("legendre-gauss", "equiangular")
P = ParamSpec("P")
T = TypeVar("T")
_caches: list[Any] = []


def cached_tables(maxsize: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a decorator that keeps the tables which a function made for its last ``maxsize`` arguments.

    They are plain tensors whoever asks first. Those made in inference mode could not serve a backward
    pass later, and those made while ``torch.export`` traces would be its fake tensors.
    """

    def decorated(build: Callable[P, T]) -> Callable[P, T]:
        @functools.lru_cache(maxsize)
        @functools.wraps(build)
        def kept(*args: P.args, **kwargs: P.kwargs) -> T:
            with _disable_current_modes(), torch.inference_mode(False):
                return build(*args, **kwargs)

        _caches.append(kept)
        return cast(Callable[P, T], kept)

    return decorated


def clear_tables() -> None:
    """Free the tables of all transforms on spheres; what is needed again is made again."""
    for cache in _caches:
        cache.cache_clear()


@cached_tables(maxsize=32)
def sines_and_weights(kind: str, nlat: int) -> tuple[Float[Tensor, " lat"], Float[Tensor, " lat"]]:
    """Return sin φ of the rings from north to south and their weights, which sum to 2; float64 on the CPU.

    Legendre–Gauss rings avoid the poles; equiangular ones (Clenshaw–Curtis) have a ring on each.
    Both are made exactly symmetric about the equator.
    """
    from torch_harmonics.quadrature import clenshaw_curtiss_weights, legendre_gauss_weights

    rule = legendre_gauss_weights if kind == "legendre-gauss" else clenshaw_curtiss_weights
    # the library allocates on the default device and would otherwise hand out meta or CUDA tensors
    with torch.device("cpu"):
        x, w = rule(nlat, -1, 1)
        x = x.double()
        w = w.double()
        return (x.flip(0) - x) / 2, (w + w.flip(0)) / 2


class HarmonicTransform:
    """Analysis and synthesis between ``(..., nlat, nlon)`` and the order-major form.

    Args:
        kind: the rings, one of ``KINDS``.
        nlat, nlon: rings, and nodes per ring.
        degrees: l runs over 0 … degrees − 1.
        orders: m runs over 0 … orders − 1, at most the Nyquist order of a ring.
        device, dtype: where the tables lie. They are computed in float64 on the CPU and then moved.
        over_cosine: use P_lm / cos φ, the functions which the components of tangential vectors are
            made of. At a pole that is the limit, which is not 0 for m = 1 alone; for m = 0 the
            table holds 0 there, as every vector field has no mean around a pole.
    """

    def __init__(
        self,
        kind: str,
        nlat: int,
        nlon: int,
        degrees: int,
        orders: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        over_cosine: bool = False,
    ) -> None:
        self.nlat = nlat
        self.nlon = nlon
        self.degrees = degrees
        self.orders = orders
        self.rings = (nlat + 1) // 2
        self.half = (degrees + 1) // 2
        sines, weights = sines_and_weights(kind, nlat)
        table = _legendre_table(sines[: self.rings], degrees, orders, over_cosine)
        weights = weights[: self.rings] * (2 * math.pi / nlon)
        if nlat % 2:  # the equator is its own mirror image and is added to itself below
            weights[-1] /= 2
        # beside a pole P_lm underflows for large m; subnormal numbers would slow the products tenfold
        table[table.abs() < torch.finfo(dtype).tiny ** 0.5] = 0.0
        self.table = table.to(device, dtype)
        self.weights = weights.to(device, dtype)

    def analysis(
        self, u: Float[Tensor, "*batch lat lon"]
    ) -> Float[Tensor, "2 order *batch 2 half"]:
        """Return the coefficients of fields."""
        batch = u.shape[:-2]
        by_order = torch.fft.rfft(u)[..., : self.orders].movedim(-1, 0).contiguous()
        v = torch.view_as_real(by_order).mT  # (orders, ..., 2, nlat)
        north = v[..., : self.rings]
        south = v[..., self.nlat - self.rings :].flip(-1)
        folded = torch.stack((north + south, north - south)).mul_(self.weights)
        rows = folded.reshape(2 * self.orders, -1, self.rings)
        return torch.bmm(rows, self.table).reshape(2, self.orders, *batch, 2, self.half)

    def synthesis(
        self, a: Float[Tensor, "2 order *batch 2 half"]
    ) -> Float[Tensor, "*batch lat lon"]:
        """Return the fields with these coefficients."""
        batch = a.shape[2:-2]
        rows = torch.bmm(a.reshape(2 * self.orders, -1, self.half), self.table.mT)
        even, odd = rows.reshape(2, self.orders, *batch, 2, self.rings).unbind(0)
        south = (even - odd).flip(-1)[..., self.nlat % 2 :]
        v = torch.cat((even + odd, south), dim=-1)
        by_order = torch.complex(v[..., 0, :], v[..., 1, :])
        return torch.fft.irfft(by_order.movedim(0, -1), n=self.nlon, norm="forward")

    def degree(self) -> Int[Tensor, "2 order half"]:
        """Return l of each entry, int64, on the device of the tables."""
        device = self.table.device
        parity, m, j = (torch.arange(n, device=device) for n in (2, self.orders, self.half))
        return m[:, None] + parity[:, None, None] + 2 * j

    def present(self) -> Bool[Tensor, "2 order half"]:
        """Return true for every entry that is no padding."""
        return self.degree() < self.degrees


@cached_tables(maxsize=8)
def harmonic_transform(
    kind: str,
    nlat: int,
    nlon: int,
    degrees: int,
    orders: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
    over_cosine: bool = False,
) -> HarmonicTransform:
    """Return the one ``HarmonicTransform`` with these arguments; it is read-only, its tables are shared."""
    return HarmonicTransform(
        kind, nlat, nlon, degrees, orders, device=device, dtype=dtype, over_cosine=over_cosine
    )


def legendre_functions(
    sines: Float[Tensor, " lat"], degrees: int, orders: int
) -> Float[Tensor, "order degree lat"]:
    """Return P_lm at sin φ, float64 on the CPU; zero for m > l."""
    from torch_harmonics.legendre import legpoly

    with torch.device("cpu"):
        return legpoly(orders, degrees, sines, csphase=False)


def _legendre_table(
    sines: Float[Tensor, " ring"], degrees: int, orders: int, over_cosine: bool
) -> Float[Tensor, "both_parities ring half"]:
    """Return P_lm of the northern rings, float64, zero where padded."""
    values = legendre_functions(sines, degrees, orders)
    if over_cosine:
        cosines = (1 - sines**2).sqrt()
        pole = cosines == 0
        values = values / torch.where(pole, torch.ones_like(cosines), cosines)
        values[:, :, pole] = 0.0
        if orders > 1:
            l = torch.arange(degrees, dtype=torch.float64, device="cpu")
            # P_l1 / cos φ → √(l(l+1)(2l+1)/16π) at the poles
            limit = (l * (l + 1) * (2 * l + 1) / (16 * math.pi)).sqrt()
            values[1][:, pole] = limit[:, None]
    half = (degrees + 1) // 2
    table = torch.zeros(2, orders, half, len(sines), dtype=torch.float64, device="cpu")
    for m in range(orders):
        for parity in (0, 1):
            picked = values[m, m + parity :: 2]
            table[parity, m, : len(picked)] = picked
    return table.mT.reshape(2 * orders, len(sines), half).contiguous()
