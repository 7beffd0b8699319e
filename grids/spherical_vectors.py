"""Tangential vector fields on a sphere: velocity, vorticity, divergence and gradient.

A vector field is ``(..., 2, nlat, nlon)``: its eastward component u, then its northward one v. With
stream function ψ and velocity potential χ on a sphere of radius r,

    u cos φ = (∂χ/∂λ − cos φ ∂ψ/∂φ)/r,    v cos φ = (∂ψ/∂λ + cos φ ∂χ/∂φ)/r,

both of which are combinations of harmonics one degree above those of ψ and χ, because

    cos φ ∂Y_lm/∂φ = (l+1) ε_lm Y_(l−1)m − l ε_(l+1)m Y_(l+1)m,    ε_lm² = (l² − m²)/(4l² − 1).

Vorticity and divergence follow by the transpose of that map, so everything here is exact for fields
which the grid resolves, at the poles too.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.grids.sphere import SphereGrid
from sobolev.grids.spherical_transform import HarmonicTransform, cached_tables, harmonic_transform


def velocity(
    vorticity: Float[Tensor, "*batch lat lon"], divergence: Float[Tensor, " ..."], grid: SphereGrid
) -> Float[Tensor, "*batch 2 lat lon"]:
    """Return the wind with this vorticity and divergence, which have one shape.

    The mean of a vorticity or divergence over the sphere is zero; a mean that is given is ignored.

    >>> grid = SphereGrid(8, 16, radius=2.0)
    >>> latitude = grid.points()[0][:, None].expand(grid.shape)
    >>> solid = velocity(latitude.sin(), 0 * latitude, grid)  # ζ = sin φ belongs to u = ½ r cos φ
    >>> torch.allclose(solid[0], latitude.cos())
    True
    """
    grid.check(vorticity)
    if divergence.shape != vorticity.shape or divergence.dtype != vorticity.dtype:
        raise ValueError(
            f"vorticity and divergence must have one shape and dtype, got {tuple(vorticity.shape)} {vorticity.dtype} "
            f"and {tuple(divergence.shape)} {divergence.dtype}"
        )
    calculus = _calculus(grid, vorticity.device, vorticity.dtype)
    scale = calculus.inverse_laplacian * grid.radius
    stream, potential = (calculus.modes(u) * scale for u in (vorticity, divergence))
    return calculus.wind(potential, stream).reshape(*vorticity.shape[:-2], 2, *grid.shape)


def gradient(
    u: Float[Tensor, "*batch lat lon"], grid: SphereGrid
) -> Float[Tensor, "*batch 2 lat lon"]:
    """Return the gradient of fields."""
    grid.check(u)
    calculus = _calculus(grid, u.device, u.dtype)
    potential = calculus.modes(u) / grid.radius
    wind = calculus.wind(potential, torch.zeros_like(potential))
    return wind.reshape(*u.shape[:-2], 2, *grid.shape)


def vorticity_and_divergence(
    wind: Float[Tensor, "... lat lon"], grid: SphereGrid
) -> tuple[Float[Tensor, "*batch lat lon"], Float[Tensor, "*batch lat lon"]]:
    """Return the vorticity and the divergence of a wind ``(..., 2, lat, lon)``."""
    grid.check(wind)
    if wind.ndim < 3 or wind.shape[-3] != 2:
        raise ValueError(
            f"expected a wind of shape (..., 2, {grid.nlat}, {grid.nlon}), eastward and northward, got "
            f"{tuple(wind.shape)}"
        )
    calculus = _calculus(grid, wind.device, wind.dtype)
    a, b = calculus.vector.analysis(wind.reshape(-1, 2, *grid.shape)).unbind(3)
    curl = calculus.maps.curl(a, b)
    divergence = calculus.maps.divergence(a, b)
    shape = (*wind.shape[:-3], *grid.shape)
    return calculus.field(curl).reshape(shape), calculus.field(divergence).reshape(shape)


class TangentMaps:
    """The maps between potentials and u cos φ, v cos φ on the unit sphere, for coefficients in
    order-major form with one batch axis, ``(2, orders, batch, 2, half)``.

    The ``transform`` fixes the layout, device and dtype; it must have one degree more than the
    potentials, whose coefficients of that degree are zero.
    """

    def __init__(self, transform: HarmonicTransform) -> None:
        dtype = transform.table.dtype
        device = transform.table.device
        degree = transform.degree()[:, :, None, None]
        m = torch.arange(transform.orders, device=device)[:, None, None, None]
        l = degree.double()
        eps = ((l**2 - m**2) / (4 * l**2 - 1)).clamp_min(0).sqrt()
        eps_next = (((l + 1) ** 2 - m**2) / (4 * (l + 1) ** 2 - 1)).sqrt()
        inside = degree < transform.degrees
        coefficients = (-(l - 1) * eps, (l + 2) * eps_next, (l + 1) * eps, -l * eps_next)
        self.from_below, self.from_above, self.back_below, self.back_above = (
            (inside * c).to(dtype) for c in coefficients
        )
        self.m = m.to(dtype)

    def east(
        self, a: Float[Tensor, "2 order batch 2 half"]
    ) -> Float[Tensor, "2 order batch 2 half"]:
        """Return ∂a/∂λ: multiplication by im."""
        return torch.stack((-a[..., 1, :], a[..., 0, :]), dim=-2) * self.m

    def north(
        self, a: Float[Tensor, "2 order batch 2 half"]
    ) -> Float[Tensor, "2 order batch 2 half"]:
        """Return cos φ ∂a/∂φ."""
        below, above = _of_next_degrees(a)
        return self.from_below * below + self.from_above * above

    def north_transposed(
        self, a: Float[Tensor, "2 order batch 2 half"]
    ) -> Float[Tensor, "2 order batch 2 half"]:
        """Return the transpose of ``north`` between coefficients, applied to a."""
        below, above = _of_next_degrees(a)
        return self.back_below * below + self.back_above * above

    def components(
        self,
        potential: Float[Tensor, "2 order batch 2 half"],
        stream: Float[Tensor, "2 order batch 2 half"],
    ) -> tuple[Float[Tensor, "2 order batch 2 half"], Float[Tensor, "2 order batch 2 half"]]:
        """Return u cos φ and v cos φ."""
        return (
            self.east(potential) - self.north(stream),
            self.east(stream) + self.north(potential),
        )

    def curl(
        self, a: Float[Tensor, "2 order batch 2 half"], b: Float[Tensor, "2 order batch 2 half"]
    ) -> Float[Tensor, "2 order batch 2 half"]:
        """Return the curl from the coefficients of u/cos φ and v/cos φ; integration by parts moves the
        derivative along the meridian to the harmonics."""
        return self.east(b) + self.north_transposed(a)

    def divergence(
        self, a: Float[Tensor, "2 order batch 2 half"], b: Float[Tensor, "2 order batch 2 half"]
    ) -> Float[Tensor, "2 order batch 2 half"]:
        """Return the divergence from the same coefficients as ``curl``."""
        return self.east(a) - self.north_transposed(b)


def _of_next_degrees(
    a: Float[Tensor, "2 order batch 2 half"],
) -> tuple[Float[Tensor, "2 order batch 2 half"], Float[Tensor, "2 order batch 2 half"]]:
    """Return the coefficients of degree l − 1 and l + 1 in the places of l."""
    even, odd = a.unbind(0)
    pad = torch.nn.functional.pad
    return torch.stack((pad(odd, (1, -1)), even)), torch.stack((odd, pad(even, (-1, 1))))


class _Calculus:
    """The transforms of scalars and of vectors on one grid, in one layout."""

    def __init__(self, grid: SphereGrid, device: torch.device, dtype: torch.dtype) -> None:
        self.grid = grid
        self.scalar, self.vector = (
            harmonic_transform(
                grid.kind,
                grid.nlat,
                grid.nlon,
                grid.lmax + 1,
                grid.lmax,
                device=device,
                dtype=dtype,
                over_cosine=over_cosine,
            )
            for over_cosine in (False, True)
        )
        l = self.scalar.degree()[:, :, None, None]
        self.resolved = l < grid.lmax
        self.inverse_laplacian = -((l > 0) / (l * (l + 1)).clamp_min(1).double()).to(dtype)
        self.maps = TangentMaps(self.scalar)

    def modes(self, u: Float[Tensor, "*batch lat lon"]) -> Float[Tensor, "2 order batch 2 half"]:
        """Return the coefficients of the degrees the grid resolves."""
        return self.scalar.analysis(u.reshape(-1, *self.grid.shape)) * self.resolved

    def field(self, a: Float[Tensor, "2 order batch 2 half"]) -> Float[Tensor, "batch lat lon"]:
        """Return the field of a derivative on the unit sphere, brought to the radius of this one."""
        return self.scalar.synthesis(a * self.resolved) / self.grid.radius

    def wind(
        self,
        potential: Float[Tensor, "2 order batch 2 half"],
        stream: Float[Tensor, "2 order batch 2 half"],
    ) -> Float[Tensor, "batch 2 lat lon"]:
        """Return the wind of potentials on the unit sphere."""
        components = torch.stack(self.maps.components(potential, stream), dim=3)
        return self.vector.synthesis(components)


@cached_tables(maxsize=8)
def _calculus(grid: SphereGrid, device: torch.device, dtype: torch.dtype) -> _Calculus:
    return _Calculus(grid, device, dtype)
