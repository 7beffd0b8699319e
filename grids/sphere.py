"""The sphere as a grid: rings of nodes, quadrature, and real spherical harmonics."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from sobolev.grids.checks import is_whole
from sobolev.grids.grid import AbstractGrid
from sobolev.grids.spherical_transform import (
    KINDS,
    HarmonicTransform,
    cached_tables,
    harmonic_transform,
    sines_and_weights,
)


@dataclass(frozen=True)
class SphereGrid(AbstractGrid):
    """``nlat`` rings of ``nlon`` nodes on a sphere, from north to south and eastward from 0°.

    ================  =======================================  ==================================
    kind              latitudes                                degrees ``lmax``
    ================  =======================================  ==================================
    legendre-gauss    arcsines of the Gauss nodes, no poles    min(nlat, (nlon+1)//2)
    equiangular       π/2 − iπ/(nlat−1), both poles included   min((nlat+1)//2, (nlon+1)//2)
    ================  =======================================  ==================================

    The modes are the real spherical harmonics of degree l = 0 … lmax − 1 and order m = −l … l,
    flat, by degree and then by order: mode l² + l + m is cos(mλ) for m ≥ 0 and sin(−mλ) for m < 0,
    times the associated Legendre function without Condon–Shortley sign, over the radius r. They are
    orthonormal in L² of the sphere, so coefficients obey Parseval: Σ c² = ∫ u² r² dΩ for every field
    the grid resolves. Below degree ``lmax`` the quadrature is exact for products of two harmonics,
    so that ``to_modes(from_modes(c))`` is c; there are fewer modes than nodes, and what lies above
    is cut off. The modes of a coarser grid are the first ones of a finer grid.

    >>> grid = SphereGrid(16, 32)
    >>> latitude, longitude = grid.points()
    >>> grid.mode_shape, grid.dims
    ((256,), ('lat', 'lon'))
    >>> u = latitude.sin()[:, None].expand(grid.shape)  # l = 1, m = 0; the integral of sin² is 4π/3
    >>> round(grid.to_modes(u)[2].item() ** 2 / math.pi, 12)
    1.333333333333

    Args:
        nlat, nlon: rings, and nodes per ring.
        kind: where the rings lie.
        radius: r > 0.

    Raises:
        ValueError: for an unknown kind, too few nodes, or a radius that is not positive.
    """

    nlat: int
    nlon: int
    kind: str = "legendre-gauss"
    radius: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(
                f"a sphere has kind={self.kind!r}; it must be one of {', '.join(KINDS)}"
            )
        if not (self.radius > 0 and math.isfinite(self.radius)):
            raise ValueError(f"a sphere needs a positive radius, got {self.radius}")
        object.__setattr__(self, "radius", float(self.radius))
        for name in ("nlat", "nlon"):
            size = getattr(self, name)
            if not is_whole(size):
                raise ValueError(f"{name} must be a whole number, got {size!r}")
            if size < 3:
                raise ValueError(f"a sphere needs {name} of at least 3, got {size}")
            object.__setattr__(self, name, int(size))

    @property
    def shape(self) -> tuple[int, ...]:
        """The numbers of rings and of nodes per ring."""
        return self.nlat, self.nlon

    @property
    def ndim(self) -> int:
        """The number of axes of a field."""
        return 2

    @property
    def dims(self) -> tuple[str, ...]:
        """The names of the axes."""
        return "lat", "lon"

    @property
    def lmax(self) -> int:
        """The number of degrees that the grid resolves: l runs over 0 … lmax − 1."""
        exact = self.nlat if self.kind == "legendre-gauss" else (self.nlat + 1) // 2
        return min(exact, (self.nlon + 1) // 2)

    @property
    def mode_shape(self) -> tuple[int, ...]:
        """One flat axis of lmax² modes."""
        return (self.lmax**2,)

    def points(
        self, device: torch.device | str = "cpu"
    ) -> tuple[Float[Tensor, " lat"], Float[Tensor, " lon"]]:
        """Return the latitudes from north to south and the longitudes in [0, 2π), in radians and float64."""
        if self.kind == "equiangular":  # evenly spaced to the last digit, which arcsines are not
            ring = torch.arange(self.nlat, dtype=torch.float64, device=device)
            latitude = (self.nlat - 1 - 2 * ring) * (math.pi / 2 / (self.nlat - 1))
        else:
            latitude = sines_and_weights(self.kind, self.nlat)[0].asin().to(device)
        node = torch.arange(self.nlon, dtype=torch.float64, device=device)
        return latitude, node * (2 * math.pi / self.nlon)

    def quadrature(self, device: torch.device | str = "cpu") -> Float[Tensor, "lat lon"]:
        """Return the area of each node, in float64; they sum to 4πr² and are exact for harmonics of degree
        below 2 lmax − 1."""
        weights = sines_and_weights(self.kind, self.nlat)[1].to(device)
        return (weights * (2 * math.pi / self.nlon * self.radius**2))[:, None].expand(self.shape)

    def eigenvalues(self, device: torch.device | str = "cpu") -> Float[Tensor, " mode"]:
        """Return the eigenvalue l(l+1)/r² of −Δ for each mode, in float64."""
        l = self.shells(device)[1]
        return (l * (l + 1)).double() / self.radius**2

    def shells(
        self, device: torch.device | str = "cpu"
    ) -> tuple[Float[Tensor, " degree"], Int[Tensor, " mode"]]:
        """Return the wavenumber √(l(l+1))/r of each degree, and the degree of each mode."""
        l = torch.arange(self.lmax, device=device)
        wavenumbers = (l * (l + 1)).double().sqrt() / self.radius
        return wavenumbers, l.repeat_interleave(2 * l + 1, output_size=self.lmax**2)

    def to_modes(self, u: Real[Tensor, "*batch lat lon"]) -> Float[Tensor, "*batch mode"]:
        """Return the coefficients in the orthonormal harmonics: ``(..., nlat, nlon) -> (..., lmax²)``."""
        self.check(u)
        transform, flat = _transform(self, u.device, u.dtype)
        a = transform.analysis(u).movedim((0, 1), (-4, -3)).flatten(-4)
        return a[..., flat.position] * flat.scale

    def from_modes(self, c: Float[Tensor, "*batch mode"]) -> Float[Tensor, "*batch lat lon"]:
        """Return the field with these coefficients: ``(..., lmax²) -> (..., nlat, nlon)``."""
        self.check(c, modes=True)
        transform, flat = _transform(self, c.device, c.dtype)
        a = c.new_zeros(*c.shape[:-1], 4 * self.lmax * transform.half)
        a = a.index_copy(-1, flat.position, c / flat.scale)
        a = a.unflatten(-1, (2, self.lmax, 2, transform.half)).movedim((-4, -3), (0, 1))
        return transform.synthesis(a)

    def resized(self, *sizes: int) -> SphereGrid:
        """Return the same sphere with ``nlat, nlon`` other numbers of nodes."""
        if len(sizes) != 2:
            raise ValueError(f"a sphere is resized to nlat and nlon, got {sizes}")
        nlat, nlon = sizes
        return replace(self, nlat=nlat, nlon=nlon)

    def resample(
        self, u: Float[Tensor, "*batch lat lon"], other: AbstractGrid
    ) -> Float[Tensor, "*batch other_lat other_lon"]:
        """Evaluate the expansion of ``u`` in harmonics on another grid of the same sphere.

        Exact for every field that both grids resolve; degrees beyond the other's are left out.
        """
        target = self._of_same_sphere(other)
        self.check(u)
        if target == self:
            return u
        width = target.lmax**2 - self.lmax**2
        return target.from_modes(torch.nn.functional.pad(self.to_modes(u), (0, width)))

    def subsample(
        self, u: Float[Tensor, "*batch lat lon"], coarser: AbstractGrid
    ) -> Float[Tensor, "*batch other_lat other_lon"]:
        """Pick the values of ``u`` at the nodes of ``coarser``, every one of which must be a node
        here."""
        self.check(u)
        lat, lon = self._strides(coarser)
        return u[..., ::lat, ::lon]

    def can_subsample(self, coarser: AbstractGrid) -> bool:
        """Return true if every node of ``coarser`` is a node of this grid."""
        try:
            self._strides(coarser)
        except ValueError:
            return False
        return True

    def without_border(
        self, u: Float[Tensor, "*batch lat lon"], cells: AbstractGrid | None = None
    ) -> Float[Tensor, "*batch lat lon"]:
        """Return ``u`` itself: a sphere has no border."""
        self.check(u)
        return u

    def _of_same_sphere(self, other: AbstractGrid) -> SphereGrid:
        if not isinstance(other, SphereGrid):
            raise ValueError(f"a field on a sphere stays on a sphere, got the grid {other!r}")
        if not math.isclose(self.radius, other.radius, rel_tol=1e-9):
            raise ValueError(
                f"this sphere has radius {self.radius:g}, the other {other.radius:g}; both must be one sphere"
            )
        return other

    def _strides(self, coarser: AbstractGrid) -> tuple[int, int]:
        """Return the steps along latitude and longitude that lead from node to node of ``coarser``."""
        target = self._of_same_sphere(coarser)
        lon, lon_rest = divmod(self.nlon, target.nlon)
        nodes = [self.nlon // s for s in _divisors(self.nlon)]
        if self.kind == "equiangular":
            lat, lat_rest = divmod(self.nlat - 1, target.nlat - 1)
            rings = [(self.nlat - 1) // s + 1 for s in _divisors(self.nlat - 1)]
        else:  # Gauss rings of different numbers share at most the equator
            lat = 1
            lat_rest = self.nlat - target.nlat
            rings = [self.nlat]
        if self.kind != target.kind or lat_rest or lon_rest or not (lat and lon):
            raise ValueError(
                f"the nodes of {target} are not among those of {self}, which can be subsampled to kind={self.kind!r}, "
                f"nlat in {[n for n in rings if n >= 3]}, nlon in {[n for n in nodes if n >= 3]}; resample works "
                "between any two"
            )
        return lat, lon


@dataclass(frozen=True, eq=False)
class _FlatModes:
    """The places of the flat modes in the order-major form (last axes parity, order, part, j), and the
    factors from complex coefficients on the unit sphere to real ones on this sphere."""

    position: Int[Tensor, " mode"]
    scale: Float[Tensor, " mode"]


@cached_tables(maxsize=8)
def _transform(
    grid: SphereGrid, device: torch.device, dtype: torch.dtype
) -> tuple[HarmonicTransform, _FlatModes]:
    lmax = grid.lmax
    transform = harmonic_transform(
        grid.kind, grid.nlat, grid.nlon, lmax, lmax, device=device, dtype=dtype
    )
    l = grid.shells(device)[1]
    order = torch.arange(lmax**2, device=device) - l * (l + 1)
    m = order.abs()
    sine = (order < 0).long()
    parity = (l - m) % 2
    j = (l - m) // 2
    position = ((parity * lmax + m) * 2 + sine) * transform.half + j
    # u = Σ_m≥0 (2 − δ_m0) P (Re a cos mλ − Im a sin mλ)
    scale = torch.where(order == 0, 1.0, math.sqrt(2) * (1 - 2 * sine).double()) * grid.radius
    return transform, _FlatModes(position, scale.to(dtype))


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
