"""Darcy flow through random media: permeability to pressure."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sobolev.datasets.recipes.base import (
    FNO_PAPER,
    Check,
    Fields,
    Inputs,
    Outputs,
    Recipe,
    relative_residual,
)
from sobolev.datasets.recipes.capabilities import (
    Bounded,
    Loosenable,
    Prediction,
    PressureEquation,
    WithResidual,
    scaled,
)
from sobolev.grids import GaussianRandomField, Grid
from sobolev.grids.norms import ratio
from sobolev.grids.variables import Variable
from sobolev.solvers.elliptic.darcy import Darcy
from sobolev.solvers.elliptic.darcy_published import EllipticityWarning, PublishedDarcy


@dataclass(frozen=True)
class RandomMediumRecipe(Recipe):
    """Permeabilities made of a Gaussian random field, for the problems that have one.

    ψ ~ N(0, σ²(−Δ + τ²)^−α) with no-flux boundary conditions, its cosine series evaluated on the
    nodes. A two-phase ``medium`` is ``high`` where ψ ≥ 0 and ``low`` elsewhere; a lognormal one is
    e^ψ.
    """

    inputs: ClassVar[tuple[Variable, ...]] = (
        Variable("permeability", "permeability of the medium", "1"),
    )
    outputs = (Variable("pressure", "pressure head", "1"),)
    measure = "a = high where ψ ≥ 0, else low (two-phase), or a = e^ψ (lognormal); ψ ~ N(0, σ²(−Δ + τ²)^−α), no flux"
    references = FNO_PAPER
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
        super().__post_init__()
        if not min(self.low, self.high) > 0:
            raise ValueError(f"the permeabilities must be positive, got {self.low=}, {self.high=}")
        if self.medium not in ("two-phase", "lognormal"):
            raise ValueError(f"medium must be two-phase or lognormal, got {self.medium!r}")

    @property
    def default_resolution(self) -> int:
        return self.stored_resolution or self.solver_resolution

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Inputs:
        law = self.alpha, self.tau, self.sigma
        psi = self.drawn_field(streams, resolution, *law)[:, None]
        if self.medium == "lognormal":
            return psi.exp()
        return torch.where(psi >= 0, self.high, self.low).to(psi.dtype)

    def drawn_field(
        self,
        streams: Sequence[np.random.Generator],
        resolution: int | None,
        alpha: float,
        tau: float,
        sigma: float,
    ) -> Float[Tensor, " sample *space"]:
        """Draw N(0, σ²(−Δ + τ²)^−α) without flux through the border, its cosines summed at the nodes."""
        cells = Grid.neumann(*self.grid(self.solver_resolution).shape)
        field = GaussianRandomField(cells, alpha, tau, sigma).draw(streams)
        return cells.resample(field, self.grid(resolution or self.solver_resolution))

    def checks(self, fields: Fields, grid: Grid) -> list[Check]:
        a = fields["permeability"]
        return [Check("the permeability is positive", -a.flatten(1).amin(dim=1), 0.0)]


@dataclass(frozen=True)
class SteadyFlowRecipe(Bounded, WithResidual, Loosenable, RandomMediumRecipe):
    """(a, …) ↦ u for −∇·(a∇u) = f in a box whose Dirichlet walls hold u = 0."""

    error_norm: ClassVar[str] = (
        "energy, |u - p|_a / |u|_a with |v|_a^2 the integral of a |grad v|^2"
    )

    @abstractmethod
    def grid(self, resolution: int) -> Grid: ...

    @abstractmethod
    def source(self, inputs: Inputs) -> Float[Tensor, " sample *space"]:
        """Return f, in float64."""

    def solve(self, inputs: Inputs, grid: Grid) -> Outputs:
        solver = Darcy(tolerance=self.tolerance)
        return solver.solve(inputs[:, 0], grid, self.source(inputs))[:, None]

    def refined(self) -> Recipe:
        return replace(self, solver_resolution=2 * self.solver_resolution - 1)

    def residual(self, streams: Sequence[np.random.Generator]) -> Float[Tensor, " sample"]:
        grid = self.grid(self.solver_resolution)
        inputs = self.draw(streams)
        u = self.solve(inputs, grid)
        f = self.source(inputs)
        return relative_residual(Darcy().residual(u[:, 0], inputs[:, 0], grid, f), f, grid)

    def error_bound(
        self, inputs: Inputs, outputs: Prediction, grid: Grid
    ) -> Float[Tensor, " sample"]:
        """Return an upper bound of ‖u − p‖_a / ‖u‖_a.

        ``Darcy.error_bound`` bounds the numerator. The denominator is ‖u‖_a = sup_v (f, v) / ‖v‖_a:
        v = p is sharp for good predictions, v = (−Δ)⁻¹ f makes the bound finite for all.
        """
        a = inputs[:, 0].double()
        p = grid.without_border(outputs[:, 0]).double()
        f = self.source(inputs)
        trials = (p, grid.from_modes(grid.to_modes(f) / grid.eigenvalues(f.device)))
        size = torch.stack([_least_energy(v, f, a, grid) for v in trials]).amax(dim=0)
        bound = Darcy().error_bound(p, a, grid, f)
        return torch.where(bound == 0, 0.0, bound / size)

    def true_error(
        self, inputs: Inputs, outputs: Prediction, grid: Grid
    ) -> Float[Tensor, " sample"]:
        """Return ‖u − p‖_a / ‖u‖_a."""
        a = inputs[:, 0].double()
        p = grid.without_border(outputs[:, 0]).double()
        u = self.solve(inputs.double(), grid)[:, 0]
        return ratio(Darcy().energy_norm(p - u, a, grid), Darcy().energy_norm(u, a, grid))

    def improved(
        self, inputs: Inputs, outputs: Prediction, grid: Grid, tolerance: float
    ) -> tuple[Prediction, Int[Tensor, " sample"]]:
        """Return pressures of a guaranteed relative error in the energy norm, float64, and the iterations
        of conjugate gradients that they took."""
        a, f = inputs[:, 0], self.source(inputs)
        u, iterations = Darcy().improved(outputs[:, 0], a, grid, f, tolerance=tolerance)
        return u[:, None], iterations

    @property
    def setting(self) -> str:
        return f"tolerance {self.tolerance:.4g}"

    def looser(self) -> Iterator[Recipe]:
        return scaled(self, "tolerance", 100, last=0.1)

    def checks(self, fields: Fields, grid: Grid) -> list[Check]:
        u = fields["pressure"]
        border = (u - grid.without_border(u)).abs().flatten(1).amax(dim=1)
        size = u.abs().flatten(1).amax(dim=1)
        return [
            *super().checks(fields, grid),
            Check("the pressure vanishes on the border", border / size, 0.0),
        ]


def _least_energy(
    trial: Float[Tensor, "#sample *space"],
    f: Float[Tensor, " sample *space"],
    a: Float[Tensor, " sample *space"],
    grid: Grid,
) -> Float[Tensor, " sample"]:
    """Return |(f, v)| / ‖v‖_a, which ‖u‖_a is not below, for a ``trial`` v; 0 for v = 0."""
    load = (f * trial * grid.quadrature(trial.device)).flatten(1).sum(1)
    energy = Darcy().energy_norm(trial, a, grid)
    return torch.where(energy > 0, load.abs() / energy, 0.0)


@dataclass(frozen=True)
class DarcyRecipe(PressureEquation, SteadyFlowRecipe):
    """a ↦ u for −∇·(a∇u) = ``forcing`` in the medium of ``RandomMediumRecipe``."""

    title = "Darcy flow through a random medium: permeability to pressure"
    equation = "−∇·(a ∇u) = f in the unit square, u = 0 on its border"

    def grid(self, resolution: int) -> Grid:
        return Grid.dirichlet(resolution, resolution)

    def source(self, inputs: Inputs) -> Float[Tensor, " sample *space"]:
        return torch.full_like(inputs[:, 0], self.forcing, dtype=torch.float64)

    @property
    def load(self) -> float:
        return self.forcing

    def checks(self, fields: Fields, grid: Grid) -> list[Check]:
        a = fields["permeability"]
        u = fields["pressure"]
        size = u.abs().flatten(1).amax(dim=1)
        sign = 1.0 if self.forcing >= 0 else -1.0
        # Talenti (1976): the disc of the same area, filled with the least permeability, has the largest pressure
        bound = abs(self.forcing) / (4 * math.pi * a.flatten(1).amin(dim=1))
        return [
            *super().checks(fields, grid),
            Check(
                "the pressure has the sign of the forcing",
                (-sign * u).flatten(1).amax(dim=1) / size,
                1e-6,
            ),
            Check("the pressure obeys the maximum principle", size / bound - 1, 0.0),
        ]


@dataclass(frozen=True)
class PublishedDarcyRecipe(RandomMediumRecipe):
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

    def solve(self, inputs: Inputs, grid: Grid) -> Outputs:
        with warnings.catch_warnings():  # this recipe is a choice to live with it
            warnings.simplefilter("ignore", EllipticityWarning)
            return PublishedDarcy().solve(inputs[:, 0], self.forcing)[:, None]

    def refined(self) -> Recipe:
        return replace(self, solver_resolution=2 * self.solver_resolution)
