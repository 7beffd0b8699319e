"""Initial states of the shallow-water equations: two standard tests and a random measure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.grids.random_fields import GaussianRandomField
from sobolev.grids.sphere import SphereGrid
from sobolev.solvers.shallow_water.equation import ShallowWater

DAY = 86400.0


def williamson2(equation: ShallowWater, grid: SphereGrid) -> Float[Tensor, "3 lat lon"]:
    """Return the steady solid rotation about the axis of the equation, in float64.

    Test case 2 of Williamson et al. (1992, doi:10.1016/S0021-9991(05)80016-6): one turn in 12 days,
    gh₀ = 2.94e4 m²/s². Their angle α is ``equation.tilt``, which tilts the Coriolis force as well.
    """
    speed = 2 * math.pi * equation.radius / (12 * DAY)
    equation.sphere(grid)
    sine = equation.axial_sine(*grid.points())
    depth = 2.94e4 - (equation.radius * equation.rotation * speed + speed**2 / 2) * sine**2
    return torch.stack((2 * speed / equation.radius * sine, torch.zeros_like(sine), depth))


def galewsky(
    equation: ShallowWater,
    grid: SphereGrid,
    *,
    perturbed: bool = True,
    mean_depth: float = 10e3,
) -> Float[Tensor, "3 lat lon"]:
    """Return the barotropically unstable jet of Galewsky et al. (2004,
    doi:10.3402/tellusa.v56i5.14436), in float64.

    80 m/s between 25.7°N and 64.3°N, balanced by the depth; ``perturbed`` adds the bump of 120 m
    which sets the instability off. The mean depth does not count the bump.
    """
    if equation.tilt:
        raise ValueError(f"the jet is zonal: it needs an equation with tilt=0, got {equation.tilt}")
    equation.sphere(grid)
    latitude, longitude = grid.points()
    vorticity, depth = (torch.from_numpy(x)[:, None] for x in _jet(equation, latitude.numpy()))
    depth = (depth + equation.gravity * mean_depth).expand(grid.shape)
    if perturbed:
        east = (longitude + math.pi) % (2 * math.pi) - math.pi  # the bump sits at 45°N, 0°E
        north = (latitude - math.pi / 4)[:, None]
        bump = north.add(math.pi / 4).cos() * torch.exp(-((3 * east) ** 2) - (15 * north) ** 2)
        depth = depth + equation.gravity * 120.0 * bump
    return torch.stack((vorticity.expand(grid.shape), torch.zeros_like(depth), depth))


def balanced(
    equation: ShallowWater,
    vorticity: Float[Tensor, " ..."],
    grid: SphereGrid,
    *,
    mean_depth: float = 10e3,
) -> Float[Tensor, "batch 3 lat lon"]:
    """Return the states of the rotational wind with this ``vorticity``, ``(batch, lat, lon)``.

    No divergence, and the geopotential that lets none arise: ∇²(Φ + ½|u|²) = k·∇×((ζ + f) u), the
    nonlinear balance. All three are projected to the degrees which the solver keeps.
    """
    flow = equation.flow(equation.sphere(grid), vorticity.device)
    grid.check(vorticity)
    if vorticity.ndim != 3 or not len(vorticity):
        raise ValueError(
            f"expected vorticities of shape (batch, lat, lon), got {tuple(vorticity.shape)}"
        )
    zero = torch.zeros_like(vorticity)
    state = torch.stack((vorticity, zero, zero), dim=1)
    v = flow.coefficients(state, grid)
    tendency = flow.explicit(v)[:, :, 1]
    v[:, :, 2] = -tendency * flow.inverse_laplacian
    v[0, 0, 2, :, 0, 0] = equation.gravity * mean_depth * math.sqrt(4 * math.pi)
    return flow.fields(v, grid)


def random_states(
    equation: ShallowWater,
    grid: SphereGrid,
    streams: Sequence[np.random.Generator],
    *,
    speed: float = 20.0,
    scale: float = 8.0,
    smoothness: float = 4.0,
    mean_depth: float = 10e3,
) -> Float[Tensor, "stream 3 lat lon"]:
    """Return one balanced state from each random stream, in float64.

    The stream function is an isotropic Gaussian field, N(0, σ²(−Δ + τ²)^−α) on the unit sphere, and
    the geopotential balances its wind (``balanced``): flows without preferred direction which
    rotation then organises, with few gravity waves at the start. The draw of a stream is the same
    at every resolution.

    Args:
        streams: at least one.
        speed: root mean square of the wind in m/s over all draws; σ follows from it. The strongest
            wind of a draw is about three times that.
        scale: τ, near the degree that holds most energy.
        smoothness: α; kinetic energy falls off like l^(3 − 2α).
        mean_depth: in m.
    """
    l = torch.arange(1, 4096, dtype=torch.float64, device="cpu")
    spectrum = (l * (l + 1) + scale**2) ** -smoothness
    kinetic = ((2 * l + 1) * l * (l + 1) * spectrum).sum().item() / (4 * math.pi)
    unit = SphereGrid(grid.nlat, grid.nlon, grid.kind)
    field = GaussianRandomField(unit, smoothness, scale, speed / math.sqrt(kinetic))
    stream_function = unit.to_modes(field.draw(streams)) * equation.radius
    vorticity = unit.from_modes(-unit.eigenvalues() * stream_function) / equation.radius**2
    return balanced(equation, vorticity, grid, mean_depth=mean_depth)


def _jet(equation: ShallowWater, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vorticity and geopotential (of mean 0 over the sphere) of the jet at these latitudes."""
    south = math.pi / 7
    north = math.pi / 2 - south
    radius = equation.radius
    nodes, weights = np.polynomial.legendre.leggauss(256)

    def wind(phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return u and du/dφ; both vanish outside the jet with all their derivatives."""
        inside = (phi > south) & (phi < north)
        product = np.where(inside, (phi - south) * (phi - north), -1e-3)  # e^−1000 is 0
        u = 80.0 * np.exp(4 / (north - south) ** 2 + 1 / product)
        return u, -u * (2 * phi - south - north) / product**2

    def geopotential(phi: np.ndarray) -> np.ndarray:
        """Return −∫ (f + u tan φ / r) r u dφ from the south pole."""
        half = (np.clip(phi, south, north) - south)[..., None] / 2
        x = south + half * (1 + nodes)
        u = wind(x)[0]
        force = (2 * equation.rotation * np.sin(x) + u * np.tan(x) / radius) * u * radius
        return -(force * half) @ weights

    inside = south + (north - south) / 2 * (1 + nodes)
    jet = (geopotential(inside) * np.cos(inside)) @ weights * (north - south) / 2
    cap = geopotential(np.array([north])) * (1 - math.sin(north))
    u, slope = wind(latitude)
    vorticity = (u * np.tan(latitude) - slope) / radius
    return vorticity, geopotential(latitude) - (jet + cap) / 2
