"""The problems that data sets are drawn from, and the published presets among them.

A recipe's fields are all there is to know; ``docs/data.md`` says what the papers leave open and
what was chosen here.
"""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sobolev.datasets.base import (
    Check,
    Recipe,
    Variable,
    central_difference,
    relative_residual,
)
from sobolev.solvers import (
    AbstractGrid,
    Burgers,
    Darcy,
    EllipticityWarning,
    GaussianRandomField,
    Grid,
    NavierStokes,
    PublishedDarcy,
    ShallowWater,
    SolutionError,
    SphereGrid,
)
from sobolev.solvers.navier_stokes import band_limited, energy, enstrophy
from sobolev.solvers.shallow_water_states import galewsky, random_states
from sobolev.solvers.spherical_vectors import vorticity_and_divergence

_FNO = "Li et al., Fourier Neural Operator for Parametric PDEs, ICLR 2021, arXiv:2010.08895"


@dataclass(frozen=True)
class BurgersRecipe(Recipe):
    """u(·, 0) ↦ u(·, ``time``) for Burgers' equation, u(·, 0) ~ N(0, σ²(−d²/dx² + τ²)^−α) on a
    circle.

    The defaults are the FNO paper's data set with its circle taken to be 2π long, as the authors'
    journal paper says: on a circle of length 1 viscosity 0.1 leaves nothing of the field at t = 1.
    """

    inputs = (Variable("initial_velocity", "velocity at time 0", "1"),)
    outputs = (Variable("velocity", "velocity at the final time", "1"),)
    symmetries = ("odd reflection",)
    title = "Burgers' equation on a circle: initial to final velocity"
    equation = "u_t + ½ (u²)_x = ν u_xx, periodic"
    measure = "u(·, 0) ~ N(0, σ²(−d²/dx² + τ²)^−α)"
    references = _FNO

    viscosity: float = 0.1
    time: float = 1.0
    length: float = 2 * math.pi
    alpha: float = 2.0
    tau: float = 5.0
    sigma: float = 25.0
    zero_mean: bool = True
    steps: int = 500
    solver_resolution: int = 8192

    def __post_init__(self) -> None:
        if self.steps < 4:
            raise ValueError(f"steps must be at least 4, got {self.steps}")

    def grid(self, resolution: int) -> Grid:
        return Grid.periodic(resolution, length=self.length)

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Tensor:
        grid = self.grid(self.solver_resolution)
        field = GaussianRandomField(
            grid, self.alpha, self.tau, self.sigma, zero_mean=self.zero_mean
        )
        return _evaluated(field.draw(streams)[:, None], grid, self, resolution)

    def solve(self, inputs: Tensor, grid: Grid) -> Tensor:
        return self._equation.solve(inputs[:, 0], grid, self.time)[:, None]

    def refined(self) -> Recipe:
        return replace(self, steps=2 * self.steps, solver_resolution=2 * self.solver_resolution)

    def residual(self, streams: Sequence[np.random.Generator]) -> Tensor:
        grid, h = self.grid(self.solver_resolution), self.time / self.steps
        frames = self._equation.solve(
            self.draw(streams)[:, 0], grid, [self.time + i * h for i in range(-4, 1)]
        )
        rate = central_difference(frames, h)
        return relative_residual(self._equation.residual(frames[:, 2], rate, grid), rate, grid)

    def checks(self, fields: dict[str, Tensor], grid: Grid) -> list[Check]:
        before, after = fields["initial_velocity"], fields["velocity"]
        largest = before.abs().amax(dim=-1)
        drift = (before.mean(dim=-1) - after.mean(dim=-1)).abs()
        # the mean is conserved on the solver's nodes; picking some of them is a quadrature of its own
        room = 1e-5 if grid.shape[0] == self.solver_resolution else 0.05
        return [
            Check("the mean velocity is conserved", drift / largest, room),
            Check(
                "the velocity obeys the maximum principle",
                after.abs().amax(dim=-1) / largest - 1,
                1e-3,
            ),
        ]

    @property
    def _equation(self) -> Burgers:
        return Burgers(self.viscosity, steps=self.steps)


@dataclass(frozen=True)
class DarcyRecipe(Recipe):
    """a ↦ u for −∇·(a∇u) = ``forcing`` in a medium made of a Gaussian random field.

    ψ ~ N(0, σ²(−Δ + τ²)^−α) with no-flux boundary conditions, its cosine series evaluated on the
    nodes. A two-phase ``medium`` is ``high`` where ψ ≥ 0 and ``low`` elsewhere; a lognormal one is
    e^ψ.
    """

    inputs = (Variable("permeability", "permeability of the medium", "1"),)
    outputs = (Variable("pressure", "pressure head", "1"),)
    title = "Darcy flow through a random medium: permeability to pressure"
    equation = "−∇·(a ∇u) = f in the unit square, u = 0 on its border"
    measure = "a = high where ψ ≥ 0, else low (two-phase), or a = e^ψ (lognormal); ψ ~ N(0, σ²(−Δ + τ²)^−α), no flux"
    references = _FNO
    symmetries = ("reflections", "transposition")

    high: float = 12.0
    low: float = 3.0
    alpha: float = 2.0
    tau: float = 3.0
    forcing: float = 1.0
    tolerance: float = 1e-10
    solver_resolution: int = 421
    medium: str = "two-phase"
    sigma: float = 1.0
    stored_resolution: int | None = None

    def __post_init__(self) -> None:
        if not min(self.low, self.high) > 0:
            raise ValueError(f"the permeabilities must be positive, got {self.low=}, {self.high=}")
        if self.medium not in ("two-phase", "lognormal"):
            raise ValueError(f"medium must be two-phase or lognormal, got {self.medium!r}")

    @property
    def default_resolution(self) -> int:
        return self.stored_resolution or self.solver_resolution

    def grid(self, resolution: int) -> Grid:
        return Grid.dirichlet(resolution, resolution)

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Tensor:
        n = self.solver_resolution
        cells = Grid.neumann(n, n)
        field = GaussianRandomField(cells, self.alpha, self.tau, self.sigma).draw(streams)
        psi = cells.resample(field, self.grid(resolution or n))[:, None]
        if self.medium == "lognormal":
            return psi.exp()
        return torch.where(psi >= 0, self.high, self.low).to(psi.dtype)

    def solve(self, inputs: Tensor, grid: Grid) -> Tensor:
        return Darcy(tolerance=self.tolerance).solve(inputs[:, 0], grid, self.forcing)[:, None]

    def refined(self) -> Recipe:
        return replace(self, solver_resolution=2 * self.solver_resolution - 1)

    def residual(self, streams: Sequence[np.random.Generator]) -> Tensor | None:
        grid = self.grid(self.solver_resolution)
        a = self.draw(streams)
        u = self.solve(a, grid)
        missing = Darcy().residual(u[:, 0], a[:, 0], grid, self.forcing)
        return relative_residual(missing, torch.full_like(missing, self.forcing), grid)

    def checks(self, fields: dict[str, Tensor], grid: Grid) -> list[Check]:
        a, u = fields["permeability"], fields["pressure"]
        border = (u - grid.without_border(u)).abs().flatten(1).amax(dim=1)
        size = u.abs().flatten(1).amax(dim=1)
        sign = 1.0 if self.forcing >= 0 else -1.0
        # Talenti (1976): the disc of the same area, filled with the least permeability, has the largest pressure
        bound = abs(self.forcing) / (4 * math.pi * a.flatten(1).amin(dim=1))
        return [
            Check("the permeability is positive", -a.flatten(1).amin(dim=1), 0.0),
            Check("the pressure vanishes on the border", border / size, 0.0),
            Check(
                "the pressure has the sign of the forcing",
                (-sign * u).flatten(1).amax(dim=1) / size,
                1e-6,
            ),
            Check("the pressure obeys the maximum principle", size / bound - 1, 0.0),
        ]


@dataclass(frozen=True)
class PublishedDarcyRecipe(DarcyRecipe):
    """The Darcy problem as the released files solve it: fields at cell centres, splined to nodes and
    back (``PublishedDarcy``).

    Fields are at the centres of ``solver_resolution`` cells per axis. The spline makes most two-phase
    permeabilities negative somewhere, so that what is solved is no elliptic problem there; take
    ``darcy-fno`` unless the released files themselves are to be reproduced.
    """

    title = "Darcy flow as in the released FNO files: permeability to pressure at cell centres"
    equation = "−∇·(a ∇u) = f in the unit square, a and f splined from cell centres to nodes, u splined back"

    def grid(self, resolution: int) -> Grid:
        return Grid.neumann(resolution, resolution)

    def solve(self, inputs: Tensor, grid: Grid) -> Tensor:
        with warnings.catch_warnings():  # this recipe is a choice to live with it
            warnings.simplefilter("ignore", EllipticityWarning)
            return PublishedDarcy().solve(inputs[:, 0], self.forcing)[:, None]

    def refined(self) -> Recipe:
        return replace(self, solver_resolution=2 * self.solver_resolution)

    def residual(self, streams: Sequence[np.random.Generator]) -> None:
        """None: the splined pressure solves no discrete equation."""

    def checks(self, fields: dict[str, Tensor], grid: Grid) -> list[Check]:
        a = fields["permeability"]
        return [Check("the permeability is positive", -a.flatten(1).amin(dim=1), 0.0)]


_FORCINGS = {
    "fno": lambda y, x: 0.1 * ((2 * math.pi * (x + y)).sin() + (2 * math.pi * (x + y)).cos()),
    "symmetric": lambda y, x: 0.1 * ((4 * math.pi * x).cos() + (4 * math.pi * y).cos()),
    "none": None,
}
_SIGMAS = {"published": math.sqrt(2) * 7**1.5, "kl": 7**1.5, "paper": 7**0.75}


@dataclass(frozen=True)
class NavierStokesRecipe(Recipe):
    """Trajectories of the vorticity on the unit torus, ω(·, 0) ~ N(0, σ²(−Δ + 49)^−2.5).

    Which σ, is a matter of ``convention``: the papers print σ² = 7^{3/2}, which is the σ of their
    code (``"paper"``, pointwise standard deviation 0.043); the code that made the published files
    drew real and imaginary parts of variance 1 each and so doubled the variance (``"published"``,
    0.262); without that doubling, σ = 7^{3/2} gives ``"kl"`` (0.185).

    Initial fields are cut to the modes that the 2/3 rule keeps; the published script strides
    through a finer random grid instead, which aliases. Frames are at t = 0, ``interval``, … ``time``.
    """

    inputs = ()
    outputs = (Variable("vorticity", "vorticity", "1"),)
    chaotic = True
    title = "Navier–Stokes on the torus: trajectories of the vorticity"
    equation = "ω_t + u·∇ω = ν Δω + f, −Δψ = ω, u = (ψ_y, −ψ_x), periodic"
    measure = "ω(·, 0) ~ N(0, σ²(−Δ + τ²)^−α), cut to the kept modes"
    references = _FNO

    viscosity: float = 1e-3
    time: float = 50.0
    interval: float = 1.0
    forcing: str = "fno"
    convention: str = "published"
    alpha: float = 2.5
    tau: float = 7.0
    step: float = 0.05
    solver_resolution: int = 64

    def __post_init__(self) -> None:
        for name, known in (("forcing", _FORCINGS), ("convention", _SIGMAS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        frames = self.time / self.interval if self.interval > 0 else math.nan
        if not (
            math.isfinite(frames)
            and frames > 0
            and math.isclose(frames, round(frames), rel_tol=1e-9)
        ):
            raise ValueError(
                f"time must be a multiple of interval, got time={self.time}, interval={self.interval}"
            )

    @property
    def symmetries(self) -> tuple[str, ...]:  # type: ignore[override]
        return {"fno": (), "symmetric": ("quarter turns",), "none": ("quarter turns", "shifts")}[
            self.forcing
        ]

    @property
    def times(self) -> tuple[float, ...]:
        return tuple(i * self.interval for i in range(round(self.time / self.interval) + 1))

    @property
    def default_resolution(self) -> int:
        return next(n for n in self.resolutions() if n <= 64)

    def resolutions(self) -> list[int]:
        return [n for n in super().resolutions() if n >= 4]

    def grid(self, resolution: int) -> Grid:
        return Grid.periodic(resolution, resolution)

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Tensor:
        grid = self.grid(self.solver_resolution)
        field = GaussianRandomField(grid, self.alpha, self.tau, _SIGMAS[self.convention])
        return _evaluated(band_limited(field.draw(streams), grid)[:, None], grid, self, resolution)

    def solve(self, inputs: Tensor, grid: Grid) -> Tensor:
        return _with_channel(lambda: self._equation.solve(inputs[:, 0], grid, self.times))

    def refined(self) -> Recipe:
        return replace(self, step=self.step / 2, solver_resolution=2 * self.solver_resolution)

    def residual(self, streams: Sequence[np.random.Generator]) -> Tensor:
        grid, h = self.grid(self.solver_resolution), min(self.step, self.interval) / 16
        times = [self.interval - i * h for i in range(4, -1, -1)]
        frames = self._equation.solve(self.draw(streams)[:, 0], grid, times)
        finer = grid.resized(*(2 * n for n in grid.shape))  # where the products have room
        frames = grid.resample(frames, finer)
        rate = central_difference(frames, h)
        missing = self._equation.residual(frames[:, 2], rate, finer)
        return relative_residual(missing, rate, finer)

    def checks(self, fields: dict[str, Tensor], grid: Grid) -> list[Check]:
        w = fields["vorticity"].double()
        mean = w.mean(dim=(-2, -1), keepdim=True)
        drift, w = mean.abs().flatten(1).amax(dim=1) / w.abs().flatten(1).amax(dim=1), w - mean
        found = [Check("the mean vorticity vanishes", drift, 1e-5)]
        if grid.shape[0] <= (self.solver_resolution - 1) // 3:
            found = []  # picking so few nodes folds some modes onto the mean
        if self.forcing == "none" and self.is_resolved_by(grid):
            for name, quantity in (("energy", energy), ("enstrophy", enstrophy)):
                values = quantity(w.flatten(0, 1), grid).reshape(w.shape[:2])
                growth = (values.diff(dim=1) / values[:, :1]).amax(dim=1)
                found.append(Check(f"the {name} of an unforced flow never grows", growth, 1e-5))
        return found

    def is_resolved_by(self, grid: Grid) -> bool:
        """Whether fields on ``grid`` hold all modes of the solver's."""
        return grid.shape[0] >= self.solver_resolution

    @property
    def _equation(self) -> NavierStokes:
        return NavierStokes(self.viscosity, _FORCINGS[self.forcing], step=self.step)


@dataclass(frozen=True)
class DecayingTurbulenceRecipe(NavierStokesRecipe):
    """Decaying turbulence on the torus of length 2π from McWilliams' (1984) spectrum.

    |ψ̂|² ∝ 1 / (k (1 + (k/``peak``)⁴)) with random phases, scaled to kinetic energy ½ per unit area;
    the flow is left to itself for ``warm_up`` before the first stored frame, so that vortices have
    formed. That frame counts as drawn: error estimates start from it.
    """

    title = "Decaying two-dimensional turbulence: trajectories of the vorticity"
    equation = "ω_t + u·∇ω = ν Δω, periodic"
    measure = "Gaussian, |ψ̂|² ∝ 1 / (k (1 + (k/k₀)⁴)), energy ½, after a warm-up"
    references = (
        "McWilliams, The emergence of isolated coherent vortices in turbulent flow, JFM 146, 1984; "
        "Cao et al., Spectral-Refiner, ICLR 2025, arXiv:2405.17211"
    )

    time: float = 10.0
    interval: float = 0.1
    forcing: str = "none"
    step: float = 0.005
    solver_resolution: int = 256
    peak: float = 4.0
    warm_up: float = 4.5

    def grid(self, resolution: int) -> Grid:
        return Grid.periodic(resolution, resolution, length=2 * math.pi)

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Tensor:
        grid = self.grid(self.solver_resolution)
        k = grid.eigenvalues().sqrt()
        noise = torch.from_numpy(np.stack([s.standard_normal(grid.mode_shape) for s in streams]))
        # ω̂ = k² ψ̂
        w = grid.from_modes(noise * k**2 / (k * (1 + (k / self.peak) ** 4)).clamp(min=1).sqrt())
        w = band_limited(w, grid)
        area = (2 * math.pi) ** 2
        w = w * (0.5 * area / energy(w, grid)).sqrt()[:, None, None]
        formed = self._equation.solve(w, grid, self.warm_up)
        return _evaluated(formed[:, None], grid, self, resolution)


@dataclass(frozen=True)
class ShallowWaterRecipe(Recipe):
    """Trajectories of a shallow layer on the rotating earth, on Gauss grids of n × 2n nodes.

    ``start="random"``: isotropic Gaussian stream functions with winds of ``speed`` m/s (root mean
    square) in nonlinear balance. ``start="galewsky"``: the barotropically unstable jet of Galewsky
    et al. (2004), set off by a bump whose height (60 to 180 m), latitude (35° to 55°) and longitude
    are drawn; theirs is 120 m at 45°N, 0°E.

    Coarser grids than the solver's share no nodes with it: fields are restricted by cutting modes.
    The grid's radius is 1, so that Sobolev norms weigh degrees; on a radius in metres all are L².
    """

    inputs = ()
    outputs = (
        Variable("vorticity", "relative vorticity", "s-1"),
        Variable("divergence", "divergence of the wind", "s-1"),
        Variable("geopotential", "geopotential g h of the depth h", "m2 s-2"),
    )
    title = "Shallow water on the rotating sphere: trajectories"
    equation = "ζ_t = −∇·((ζ+f)u), δ_t = k·∇×((ζ+f)u) − ∇²(Φ + ½|u|²), Φ_t = −∇·(Φu), with hyperdiffusion ∇⁸"
    measure = "isotropic Gaussian stream functions in balance, or unstable jets with a random bump"
    references = (
        "Bonev et al., Spherical Fourier Neural Operators, ICML 2023, arXiv:2306.03838; "
        "Galewsky, Scott & Polvani, Tellus A 56, 2004, doi:10.3402/tellusa.v56i5.14436"
    )
    time_units = "s"
    chaotic = True

    start: str = "random"
    hours: int = 24
    interval: float = 3600.0
    speed: float = 20.0
    scale: float = 8.0
    smoothness: float = 6.0
    mean_depth: float = 10e3
    courant: float = 0.7
    solver_resolution: int = 128
    stored_resolution: int = 64

    def __post_init__(self) -> None:
        if self.start not in ("random", "galewsky"):
            raise ValueError(f"start must be random or galewsky, got {self.start!r}")

    @property
    def times(self) -> tuple[float, ...]:
        return tuple(self.interval * i for i in range(round(3600 * self.hours / self.interval) + 1))

    @property
    def default_resolution(self) -> int:
        return next(n for n in self.resolutions() if n <= self.stored_resolution)

    def resolutions(self) -> list[int]:
        n = self.solver_resolution
        return [n, *(m for m in range(n - 1, 7, -1) if m % 4 == 0)]

    def grid(self, resolution: int) -> SphereGrid:
        return SphereGrid(resolution, 2 * resolution)

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Tensor:
        grid = self.grid(self.solver_resolution)
        if self.start == "random":
            states = random_states(
                self._equation, grid, streams, speed=self.speed, scale=self.scale,
                smoothness=self.smoothness, mean_depth=self.mean_depth,
            )  # fmt: skip
        else:
            jet = galewsky(self._equation, grid, perturbed=False, mean_depth=self.mean_depth)
            states = torch.stack([jet + self._bump(grid, dice) for dice in streams])
            states = grid.from_modes(grid.to_modes(states))
        return _evaluated(states, grid, self, resolution)

    def solve(self, inputs: Tensor, grid: SphereGrid) -> Tensor:
        try:
            return self._equation.solve(inputs, grid, self.times).transpose(1, 2)
        except SolutionError as error:
            raise SolutionError(str(error), error.solution.transpose(1, 2), error.status) from error

    def refined(self) -> Recipe:
        return replace(self, courant=self.courant / 2, solver_resolution=2 * self.solver_resolution)

    def residual(self, streams: Sequence[np.random.Generator]) -> Tensor:
        """Of the vorticity's equation."""
        grid, h = self.grid(self.solver_resolution), 60.0
        frames = self._equation.solve(
            self.draw(streams), grid, [self.interval + i * h for i in range(-4, 1)]
        )
        vorticity = frames[:, 2, 0]
        rate = central_difference(frames[:, :, 0], h)
        absolute = vorticity + self._equation.coriolis(*grid.points())
        wind = self._equation.velocity(frames[:, 2], grid)
        _, convergence = vorticity_and_divergence(
            absolute[:, None] * wind, self._equation.sphere(grid)
        )
        flow, degree = self._equation.flow(grid, vorticity.device), grid.shells()[1]
        damping = grid.from_modes(grid.to_modes(vorticity) * flow.decay(degree.double()))
        missing = grid.to_modes(rate + convergence + damping) * (degree < flow.degrees)
        return relative_residual(grid.from_modes(missing), convergence, grid)

    def checks(self, fields: dict[str, Tensor], grid: SphereGrid) -> list[Check]:
        area = grid.quadrature()
        mean = (fields["geopotential"].double() * area).sum(dim=(-2, -1)) / area.sum()
        drift = (mean - mean[:, :1]).abs().amax(dim=1) / mean[:, 0]
        vorticity = fields["vorticity"].double()
        circulation = (vorticity * area).sum(dim=(-2, -1)) / area.sum()
        return [
            Check("the mass is conserved", drift, 1e-6),
            Check("the depth is positive", -fields["geopotential"].flatten(1).amin(dim=1), 0.0),
            Check(
                "the mean vorticity vanishes",
                circulation.abs().amax(dim=1) / vorticity.abs().flatten(1).amax(dim=1),
                1e-5,
            ),
        ]

    def _bump(self, grid: SphereGrid, dice: np.random.Generator) -> Tensor:
        """Geopotential of the bump that sets the jet off, as a state."""
        a, b, c = dice.random(3)
        height, centre, meridian = 60 + 120 * a, math.radians(35 + 20 * b), 2 * math.pi * c
        latitude, longitude = grid.points()
        east = (longitude - meridian + math.pi) % (2 * math.pi) - math.pi
        north = latitude[:, None] - centre
        bump = latitude.cos()[:, None] * torch.exp(-((3 * east) ** 2) - (15 * north) ** 2)
        bump = self._equation.gravity * height * bump
        return torch.stack([torch.zeros_like(bump), torch.zeros_like(bump), bump])

    @property
    def _equation(self) -> ShallowWater:
        return ShallowWater(courant=self.courant)


def _with_channel(solve: Callable[[], Tensor]) -> Tensor:
    """The only output of a solve as a channel, also of one that failed in part."""
    try:
        return solve()[:, None]
    except SolutionError as error:
        raise SolutionError(str(error), error.solution[:, None], error.status) from error


def _evaluated(
    inputs: Tensor, grid: AbstractGrid, recipe: Recipe, resolution: int | None
) -> Tensor:
    return grid.resample(inputs, recipe.grid(resolution)) if resolution else inputs


PRESETS: dict[str, Recipe] = {
    "burgers-fno": BurgersRecipe(),
    "darcy-fno": DarcyRecipe(),
    "darcy-fno-published": PublishedDarcyRecipe(),
    "darcy-lognormal": DarcyRecipe(medium="lognormal", sigma=3.0),
    "darcy-rough": DarcyRecipe(tau=5.0, solver_resolution=511, stored_resolution=256),
    "ns-fno-1e-3": NavierStokesRecipe(),
    "ns-fno-1e-4": NavierStokesRecipe(
        viscosity=1e-4, time=30.0, step=0.0125, solver_resolution=128
    ),
    "ns-fno-1e-5": NavierStokesRecipe(
        viscosity=1e-5, time=20.0, step=0.00625, solver_resolution=256
    ),
    "ns-sym": NavierStokesRecipe(
        viscosity=1e-4, time=30.0, forcing="symmetric", step=0.0125, solver_resolution=128
    ),
    "ns-mcwilliams": DecayingTurbulenceRecipe(),
    "swe-random": ShallowWaterRecipe(),
    "swe-galewsky": ShallowWaterRecipe(start="galewsky", hours=144, interval=4 * 3600.0),
}
_CLASSES: dict[str, type[Recipe]] = {
    cls.__name__: cls
    for cls in (
        BurgersRecipe,
        DarcyRecipe,
        PublishedDarcyRecipe,
        NavierStokesRecipe,
        DecayingTurbulenceRecipe,
        ShallowWaterRecipe,
    )
}


def find_recipe(recipe: str | Recipe) -> Recipe:
    """A preset by name; a recipe is returned as it is.

    Raises:
        ValueError: for an unknown name, with the nearest one.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in PRESETS:
        near = difflib.get_close_matches(recipe, PRESETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown recipe {recipe!r}{hint} (known: {', '.join(PRESETS)})")
    return PRESETS[recipe]


def is_known(configuration: dict[str, Any]) -> bool:
    """Whether ``recipe_from`` knows the class."""
    return configuration.get("class") in _CLASSES


def recipe_from(configuration: dict[str, Any]) -> Recipe:
    """The recipe that ``configuration`` describes.

    Raises:
        ValueError: if its class is none of this package's; nothing is ever imported by name.
    """
    arguments = dict(configuration)
    name = arguments.pop("class", None)
    if name not in _CLASSES:
        raise ValueError(
            f"the data were made by a recipe of class {name!r}; sobolev can only draw again from {', '.join(_CLASSES)}"
        )
    return _CLASSES[name](**arguments)
