"""What a data set is drawn from: a random input, a PDE, and the grids they live on.

A recipe is a frozen dataclass whose fields are all there is to know; the store writes them into
every file. The published presets are in ``PRESETS``; ``docs/data.md`` says what their papers leave
open and what was chosen here.
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sobolev.solvers import Burgers, Darcy, GaussianRandomField, Grid
from sobolev.solvers.grids import subsampled_sizes


@dataclass(frozen=True)
class Variable:
    """A named physical field."""

    name: str
    long_name: str
    units: str


class Recipe(ABC):
    """Draws inputs and solves for outputs on ``solver_resolution`` nodes per axis.

    Fields stored at a lower resolution are picked from the nodes of the solve (never re-solved on a
    coarser grid), as the published data sets do.
    """

    inputs: ClassVar[tuple[Variable, ...]]
    outputs: ClassVar[tuple[Variable, ...]]
    title: ClassVar[str]
    references: ClassVar[str]
    symmetries: ClassVar[tuple[str, ...]] = ()
    """Maps of the grid onto itself under which solutions turn into solutions:
    ``"reflections"`` of each axis, ``"transposition"``, ``"odd reflection"`` (u(x) → −u(−x))."""
    solver_resolution: int

    @abstractmethod
    def grid(self, resolution: int) -> Grid:
        """The grid with ``resolution`` nodes per axis."""

    @abstractmethod
    def draw(self, streams: Sequence[np.random.Generator]) -> Tensor:
        """One input from each stream on the solver's grid, ``(sample, input, *space)``, float64."""

    @abstractmethod
    def solve(self, inputs: Tensor, grid: Grid) -> Tensor:
        """The outputs that belong to ``inputs`` on any grid of the recipe, ``(sample, output,
        *space)``."""

    def resolutions(self) -> list[int]:
        """Every resolution at which fields can be stored, finest first."""
        return subsampled_sizes(self.grid(self.solver_resolution).axes[0])

    def configuration(self) -> dict[str, Any]:
        """The recipe as JSON: its class and its parameters."""
        return {"class": type(self).__name__, **asdict(self)}  # type: ignore[call-overload]


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
    references = (
        "Li et al., Fourier Neural Operator for Parametric PDEs, ICLR 2021, arXiv:2010.08895"
    )

    viscosity: float = 0.1
    time: float = 1.0
    length: float = 2 * math.pi
    alpha: float = 2.0
    tau: float = 5.0
    sigma: float = 25.0
    zero_mean: bool = True
    steps: int = 500
    solver_resolution: int = 8192

    def grid(self, resolution: int) -> Grid:
        return Grid.periodic(resolution, length=self.length)

    def draw(self, streams: Sequence[np.random.Generator]) -> Tensor:
        grid = self.grid(self.solver_resolution)
        field = GaussianRandomField(
            grid, self.alpha, self.tau, self.sigma, zero_mean=self.zero_mean
        )
        return field.draw(streams)[:, None]

    def solve(self, inputs: Tensor, grid: Grid) -> Tensor:
        equation = Burgers(self.viscosity, steps=self.steps)
        return equation.solve(inputs[:, 0], grid, self.time)[:, None]


@dataclass(frozen=True)
class DarcyRecipe(Recipe):
    """a ↦ u for −∇·(a∇u) = ``forcing``, a two-phase medium cut from a Gaussian random field.

    ψ ~ N(0, (−Δ + τ²)^−α) with no-flux boundary conditions, its cosine series evaluated on the
    nodes; a is ``high`` where ψ ≥ 0 and ``low`` elsewhere.
    """

    inputs = (Variable("permeability", "permeability of the medium", "1"),)
    outputs = (Variable("pressure", "pressure head", "1"),)
    title = "Darcy flow through a two-phase medium: permeability to pressure"
    references = (
        "Li et al., Fourier Neural Operator for Parametric PDEs, ICLR 2021, arXiv:2010.08895"
    )
    symmetries = ("reflections", "transposition")

    high: float = 12.0
    low: float = 3.0
    alpha: float = 2.0
    tau: float = 3.0
    forcing: float = 1.0
    tolerance: float = 1e-10
    solver_resolution: int = 421

    def grid(self, resolution: int) -> Grid:
        return Grid.dirichlet(resolution, resolution)

    def draw(self, streams: Sequence[np.random.Generator]) -> Tensor:
        n = self.solver_resolution
        cells = Grid.neumann(n, n)
        psi = cells.resample(
            GaussianRandomField(cells, self.alpha, self.tau).draw(streams), self.grid(n)
        )
        return torch.where(psi >= 0, self.high, self.low)[:, None].to(psi.dtype)

    def solve(self, inputs: Tensor, grid: Grid) -> Tensor:
        return Darcy(tolerance=self.tolerance).solve(inputs[:, 0], grid, self.forcing)[:, None]


PRESETS: dict[str, Recipe] = {"burgers-fno": BurgersRecipe(), "darcy-fno": DarcyRecipe()}
_CLASSES: dict[str, type[Recipe]] = {cls.__name__: cls for cls in (BurgersRecipe, DarcyRecipe)}


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
