"""The right side of the shallow-water equations in spherical harmonics."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Complex, Float, Inexact
from torch import Tensor

from sobolev.grids.sphere import SphereGrid
from sobolev.grids.spherical_transform import HarmonicTransform, harmonic_transform
from sobolev.grids.spherical_vectors import TangentMaps
from sobolev.solvers.adjoints import ByAutograd
from sobolev.solvers.integrators import ETDRK4, Number

States = Float[Tensor, "2 order 3 batch 2 half"]
"""Coefficients of vorticity, divergence and geopotential."""
Waves = Complex[Tensor, "2 order 2 batch 2 half"]
"""ζ and z of ``SphericalStepper``."""
ByDegree = Float[Tensor, " ..."]
"""One number for each degree, in any layout."""


def truncation(grid: SphereGrid) -> int:
    """Return the number T of degrees of the product of two fields that ``grid`` represents without
    aliasing.

    >>> truncation(SphereGrid(64, 128)), truncation(SphereGrid(128, 256, "equiangular"))
    (43, 43)
    """
    rings = (2 * grid.nlat + 2) // 3 if grid.kind == "legendre-gauss" else (grid.nlat + 2) // 3
    return min(rings, (grid.nlon + 2) // 3)


class SphericalFlow:
    """``ShallowWater`` for T degrees.

    States are coefficients ``(2, orders, 3, batch, 2, half)`` of vorticity, divergence and
    geopotential, in the order-major form of ``spherical_transform`` with T + 1 degrees; the last
    one is empty and makes room for the wind. Products are formed on the smallest Gauss grid that
    keeps the degrees below T free of aliasing.

    Args:
        degrees: T.
        radius, hyperdiffusion: as in ``ShallowWater``.
        coriolis: f from latitudes and longitudes, as ``(lat, lon)``.
    """

    def __init__(
        self,
        degrees: int,
        device: torch.device,
        *,
        radius: float,
        hyperdiffusion: Number,
        coriolis: Callable[
            [Float[Tensor, " lat"], Float[Tensor, " lon"]], Float[Tensor, "lat lon"]
        ],
    ) -> None:
        self.degrees = degrees
        self.device = device
        self.radius = radius
        self.hyperdiffusion = hyperdiffusion
        grid = SphereGrid(2 * math.ceil((3 * degrees - 2) / 4), _fast_size(3 * degrees - 2))
        self.transform = self.on_nodes_of(grid)
        self.maps = TangentMaps(self.transform)
        latitude, longitude = grid.points(device)
        self.secant2 = latitude.cos().square().reciprocal()[:, None]
        self.coriolis = coriolis(latitude, longitude)

        l = self.transform.degree()[:, :, None, None].double()
        self.resolved = (l < degrees).double()
        self.deviates = (l > 0).double()
        self.laplacian = self.eigenvalue(l) * self.resolved
        self.inverse_laplacian = self.resolved * self.deviates / self.eigenvalue(l.clamp_min(1))

    def eigenvalue(self, l: ByDegree) -> ByDegree:
        """Return l(l+1)/r², of −∇²."""
        return l * (l + 1) / self.radius**2

    def decay(self, l: ByDegree) -> ByDegree:
        """Return the rate of the hyperdiffusion: ∝ ∇⁸, but nothing at l = 1."""
        rate = ((l * (l + 1)) ** 4 - 2.0**4) / ((self.degrees * (self.degrees - 1)) ** 4 - 2.0**4)
        return self.hyperdiffusion * rate.clamp(0, 1)

    @property
    def largest_wavenumber(self) -> float:
        """The wavenumber √(T(T−1))/r of the last degree."""
        return math.sqrt(self.degrees * (self.degrees - 1)) / self.radius

    def on_nodes_of(self, grid: SphereGrid) -> HarmonicTransform:
        """Return the transform between these coefficients and the nodes of ``grid``."""
        return harmonic_transform(
            grid.kind,
            grid.nlat,
            grid.nlon,
            self.degrees + 1,
            self.degrees,
            device=self.device,
            dtype=torch.float64,
        )

    def coefficients(self, state: Float[Tensor, "batch 3 lat lon"], grid: SphereGrid) -> States:
        """Return the coefficients of states on ``grid``, projected to the degrees kept; a mean vorticity
        or divergence, which no wind has, is dropped."""
        v = self.on_nodes_of(grid).analysis(state.double().transpose(0, 1))
        v *= self.resolved[:, :, None]
        v[:, :, :2] *= self.deviates[:, :, None]
        return v

    def fields(self, v: States, grid: SphereGrid) -> Float[Tensor, "batch 3 lat lon"]:
        """Return the states with these coefficients."""
        return self.on_nodes_of(grid).synthesis(v).transpose(0, 1)

    def wind(self, v: States) -> Float[Tensor, "4 batch lat lon"]:
        """Return vorticity, deviation of the geopotential, u cos φ and v cos φ on the Gauss grid."""
        vorticity, divergence, geopotential = v.unbind(2)
        scale = self.inverse_laplacian / -self.radius
        components = self.maps.components(scale * divergence, scale * vorticity)
        fields = (vorticity, geopotential * self.deviates, *components)
        return self.transform.synthesis(torch.stack(fields, dim=2))

    def explicit(self, v: States) -> States:
        """Return advection, rotation and the mass flux of the deviation from the mean depth."""
        vorticity, deviation, u, w = self.wind(v)
        absolute = (vorticity + self.coriolis) * self.secant2
        deviation = deviation * self.secant2
        energy = (u.square() + w.square()) * (self.secant2 / 2)
        products = (absolute * u, absolute * w, deviation * u, deviation * w, energy)
        a = self.transform.analysis(torch.stack(products))
        east, north, flux_east, flux_north, kinetic = a.unbind(2)
        scale = self.resolved / self.radius
        return torch.stack(
            (
                self.maps.divergence(east, north) * -scale,
                self.maps.curl(east, north) * scale + self.laplacian * kinetic,
                self.maps.divergence(flux_east, flux_north) * -scale,
            ),
            dim=2,
        )

    def stepper(self, v: States, step: float) -> SphericalStepper:
        """Return time steps for samples with the mean geopotentials of ``v``."""
        return SphericalStepper(self, self.mean(v), step)

    @torch.no_grad()
    def rates(self, v: States) -> Float[Tensor, " batch"]:
        """Return the largest frequency k U + 2Ω of the explicit terms of each sample, in 1/s."""
        _, deviation, u, w = self.wind(v)
        speed = ((u.square() + w.square()) * self.secant2).flatten(1).amax(1).sqrt()
        waves = deviation.abs().flatten(1).amax(1) / self.mean(v).sqrt()
        return self.largest_wavenumber * (speed + waves) + self.coriolis.abs().max()

    @staticmethod
    def mean(v: States) -> Float[Tensor, " batch"]:
        """Return the mean geopotential of each sample."""
        return v[0, 0, 2, :, 0, 0] / math.sqrt(4 * math.pi)


class SphericalStepper(ETDRK4):
    """ETDRK4 steps of ``SphericalFlow`` states, with gravity waves and hyperdiffusion exact.

    About a layer of geopotential Φ̄, divergence and geopotential of degree l obey δ_t = λΦ − Dδ and
    Φ_t = −Φ̄δ with λ = l(l+1)/r². The pair is one complex number z = Φ + (σ/λ) δ with z_t = σz, where
    σ = −D/2 + i √(λΦ̄ − D²/4); together with ζ_t = −Dζ the linear part is diagonal. Divergence is
    damped a little less than critically at most.
    """

    def __init__(self, flow: SphericalFlow, mean: Float[Tensor, " batch"], step: float) -> None:
        # by degree first, (field, batch, degree): the coefficients are contour integrals
        l = torch.arange(flow.degrees + 1, dtype=torch.float64, device=mean.device)
        moves = l > 0  # √λΦ̄ has no derivative at l = 0, where 1 stands for it
        eigenvalue = flow.eigenvalue(l)
        undamped = torch.where(moves, eigenvalue * mean[:, None], 1.0).sqrt()
        # past critical damping (D = 2 √(λΦ̄)) there would be no waves left to be one complex number
        damping = torch.minimum(flow.decay(l), 1.9 * undamped)
        frequency = (undamped**2 - damping**2 / 4).sqrt()
        waves = torch.complex(-damping / 2, frequency * moves)
        vorticity = (-flow.decay(l)).expand_as(damping).to(waves.dtype)
        self.flow = flow
        self._degree = flow.transform.degree().clamp_max(flow.degrees)
        slope = waves / flow.eigenvalue(l.clamp_min(1))
        inverse = torch.where(moves, flow.eigenvalue(l) / frequency, 0.0)
        self.real, self.imag, self.inverse = map(
            self._in_order_major_form, (slope.real, slope.imag, inverse)
        )
        parameters = (self.real, self.imag, self.inverse, flow.coriolis)
        super().__init__(
            torch.stack((vorticity, waves)), ByAutograd(self._tendency, parameters), step
        )
        self.coefficients = tuple(map(self._in_order_major_form, self.coefficients))

    def _in_order_major_form(
        self, by_degree: Inexact[Tensor, "*batch degree"]
    ) -> Inexact[Tensor, "2 order *batch 1 half"]:
        """Return numbers by degree at the places of their degrees."""
        return by_degree[..., self._degree].movedim((-3, -2), (0, 1))[..., None, :]

    def to_waves(self, v: States) -> Waves:
        """Return ζ and z."""
        vorticity, divergence, geopotential = v.unbind(2)
        real = torch.stack((vorticity, geopotential + self.real * divergence), dim=2)
        imag = torch.stack((torch.zeros_like(vorticity), self.imag * divergence), dim=2)
        return torch.complex(real, imag)

    def from_waves(self, z: Waves) -> States:
        """Return vorticity, divergence and geopotential."""
        vorticity, both = z.real.unbind(2)
        divergence = self.inverse * z.imag[:, :, 1]
        return torch.stack((vorticity, divergence, both - self.real * divergence), dim=2)

    def _tendency(self, z: Waves) -> Waves:
        return self.to_waves(self.flow.explicit(self.from_waves(z)))


def _fast_size(least: int) -> int:
    """Return the smallest even number of at least ``least`` without prime factors above 5: quick FFTs."""

    def is_fast(n: int) -> bool:
        for prime in (2, 3, 5):
            while n % prime == 0:
                n //= prime
        return n == 1

    return next(n for n in range(least + least % 2, 2 * least + 2, 2) if is_fast(n))
