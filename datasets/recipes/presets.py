"""The problems that data sets are drawn from, and the published presets among them.

A recipe's fields are all there is to know; ``docs/data.md`` says what the papers leave open and
what was chosen here.
"""

from __future__ import annotations

import difflib
import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, get_args, get_type_hints

import numpy as np
import torch
from torch import Tensor

from sobolev.datasets.recipes.base import (
    FNO_PAPER,
    Check,
    Recipe,
    central_difference,
    evaluated,
    relative_residual,
)
from sobolev.datasets.recipes.flows import (
    DecayingTurbulenceRecipe,
    NavierStokesRecipe,
    ShallowWaterRecipe,
)
from sobolev.grids import GaussianRandomField, Grid
from sobolev.grids.variables import Variable
from sobolev.solvers import Burgers, Darcy, EllipticityWarning, PublishedDarcy


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
    conserved: ClassVar = {"velocity": "initial_velocity"}
    title = "Burgers' equation on a circle: initial to final velocity"
    equation = "u_t + ½ (u²)_x = ν u_xx, periodic"
    measure = "u(·, 0) ~ N(0, σ²(−d²/dx² + τ²)^−α)"
    references = FNO_PAPER

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
        return evaluated(field.draw(streams)[:, None], grid, self, resolution)

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
    references = FNO_PAPER
    symmetries = ("reflections", "transposition")
    error_norm: ClassVar[str | None] = (
        "energy, |u - p|_a / |u|_a with |v|_a^2 the integral of a |grad v|^2"
    )

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

    def error_bound(self, inputs: Tensor, outputs: Tensor, grid: Grid) -> Tensor:
        """‖u − p‖_a / ‖u‖_a at most, with ``Darcy.error_bound`` above and, below, ‖u‖_a = sup_v (f, v) /
        ‖v‖_a: v = p is sharp for good predictions, v = (−Δ)⁻¹ f makes the bound finite for all."""
        a, p = inputs[:, 0].double(), grid.without_border(outputs[:, 0]).double()
        f = torch.full_like(p[:1], self.forcing)
        trials = (p, grid.from_modes(grid.to_modes(f) / grid.eigenvalues(f.device)))
        size = torch.stack([self._least_energy(v, a, grid) for v in trials]).amax(dim=0)
        bound = Darcy().error_bound(p, a, grid, self.forcing)
        return torch.where(bound == 0, 0.0, bound / size)

    def true_error(self, inputs: Tensor, outputs: Tensor, grid: Grid) -> Tensor:
        """‖u − p‖_a / ‖u‖_a."""
        a, p = inputs[:, 0].double(), grid.without_border(outputs[:, 0]).double()
        u = self.solve(inputs.double(), grid)[:, 0]
        return Darcy().energy_norm(p - u, a, grid) / Darcy().energy_norm(u, a, grid)

    def _least_energy(self, trial: Tensor, a: Tensor, grid: Grid) -> Tensor:
        """|(f, v)| / ‖v‖_a, which ‖u‖_a is not below; 0 for v = 0."""
        load = self.forcing * (trial * grid.quadrature(trial.device)).sum((-2, -1))
        energy = Darcy().energy_norm(trial, a, grid)
        return torch.where(energy > 0, load.abs() / energy, 0.0)

    def improved(
        self, inputs: Tensor, outputs: Tensor, grid: Grid, tolerance: float
    ) -> tuple[Tensor, Tensor]:
        """Conjugate gradients, to a guaranteed relative error in the energy norm; in float64."""
        a, p = inputs[:, 0], outputs[:, 0]
        u, iterations = Darcy().improved(p, a, grid, self.forcing, tolerance=tolerance)
        return u[:, None], iterations

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
    error_norm = None

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

    def error_bound(self, inputs: Tensor, outputs: Tensor, grid: Grid) -> Tensor:
        """Refused: the splined pressure solves no discrete equation."""
        return Recipe.error_bound(self, inputs, outputs, grid)

    def true_error(self, inputs: Tensor, outputs: Tensor, grid: Grid) -> Tensor:
        """Refused: the splined pressure solves no discrete equation."""
        return Recipe.true_error(self, inputs, outputs, grid)

    def improved(
        self, inputs: Tensor, outputs: Tensor, grid: Grid, tolerance: float
    ) -> tuple[Tensor, Tensor]:
        """Refused: the splined pressure solves no discrete equation."""
        return Recipe.improved(self, inputs, outputs, grid, tolerance)

    def checks(self, fields: dict[str, Tensor], grid: Grid) -> list[Check]:
        a = fields["permeability"]
        return [Check("the permeability is positive", -a.flatten(1).amin(dim=1), 0.0)]


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


def is_known(configuration: Any) -> bool:
    """Whether ``recipe_from`` knows the class."""
    name = configuration.get("class") if isinstance(configuration, dict) else None
    return isinstance(name, str) and name in _CLASSES


def recipe_from(configuration: Any) -> Recipe:
    """The recipe that ``configuration``, JSON that may be anybody's, describes.

    Raises:
        ValueError: if its class is none of this package's, nothing ever being imported by name; for
            parameters that the class lacks, or that are of another type or not finite.
    """
    if not is_known(configuration):
        name = configuration.get("class") if isinstance(configuration, dict) else configuration
        raise ValueError(
            f"the data were made by a recipe of class {name!r}; sobolev can only draw again from {', '.join(_CLASSES)}"
        )
    arguments = dict(configuration)
    recipe = _CLASSES[arguments.pop("class")]
    kinds = get_type_hints(recipe)
    known = {f.name: kinds[f.name] for f in fields(recipe)}  # type: ignore[arg-type]
    for name, value in arguments.items():
        if name not in known:
            raise ValueError(
                f"{recipe.__name__} has no parameter {name!r}; it has {', '.join(known)}"
            )
        if not _is_of_kind(value, known[name]):
            kind = getattr(known[name], "__name__", known[name])
            raise ValueError(f"{recipe.__name__} needs a finite {kind} for {name}, got {value!r}")
    return recipe(**arguments)


def _is_of_kind(value: Any, kind: Any) -> bool:
    """Whether a parameter from JSON has the type that it is annotated with, an integer standing for
    a float; numbers have to be finite."""
    kinds = get_args(kind) or (kind,)
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return type(value) in kinds
    if isinstance(value, int) and int in kinds:
        return True
    return isinstance(value, (int, float)) and float in kinds and abs(value) <= sys.float_info.max
