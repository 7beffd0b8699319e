"""Darcy flow under a random source, between walls of different kinds, in two or three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.datasets.recipes.base import Inputs, Recipe
from sobolev.datasets.recipes.darcy import RandomMediumRecipe, SteadyFlowRecipe
from sobolev.grids import Axis, Grid
from sobolev.grids.variables import Variable

_NAMES = ("z", "y", "x")


@dataclass(frozen=True)
class ForcedDarcyRecipe(SteadyFlowRecipe):
    """(a, f) ↦ u for −∇·(a∇u) = f in the unit square or cube, in the medium of ``RandomMediumRecipe``.

    f is ``forcing`` plus a draw of N(0, σ²(−Δ + τ²)^−α) without flux and mean, with the ``source_`` numbers.

    ``walls`` says for each axis what stands at its ends: u = 0 (``"dirichlet"``), no flow (``"neumann"``), or
    nothing (``"periodic"``); one at least must hold the pressure. A Dirichlet axis has ``solver_resolution``
    nodes, walls included; the others have a cell less than that of the same width, so that cells are
    squares or cubes. Cell centres nest by odd factors alone.
    """

    inputs: ClassVar[tuple[Variable, ...]] = (
        *RandomMediumRecipe.inputs,
        Variable("source", "source of fluid", "1"),
    )
    title = "Darcy flow under a random source: permeability and source to pressure"
    equation = "−∇·(a ∇u) = f in the unit square or cube, between walls with u = 0 or without flow"
    measure = (
        "f = forcing + N(0, σ²(−Δ + τ²)^−α) with the source_ numbers, no flux; "
        f"{RandomMediumRecipe.measure}"
    )

    forcing: float = 0.0
    solver_resolution: int = 193
    stored_resolution: int | None = 65
    walls: tuple[str, ...] = ("dirichlet", "neumann")
    source_alpha: float = 2.0
    source_tau: float = 5.0
    source_sigma: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "walls", tuple(self.walls))
        if not 1 <= len(self.walls) <= 3 or "dirichlet" not in self.walls:
            raise ValueError(
                "walls say for each of one to three axes what stands at its ends, and one at least must hold the "
                f"pressure ('dirichlet'); got {self.walls}"
            )
        self.grid(self.solver_resolution)  # says what is wrong with a wall or a number of nodes

    @property
    def symmetries(self) -> tuple[str, ...]:  # type: ignore[override]
        alike = len(self.walls) == 2 and len(set(self.walls)) == 1
        return ("reflections", "transposition") if alike else ("reflections",)

    def grid(self, resolution: int) -> Grid:
        return Grid(
            *(
                Axis(name, resolution - (wall != "dirichlet"), boundary=wall)
                for name, wall in zip(_NAMES[-len(self.walls) :], self.walls, strict=True)
            )
        )

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Inputs:
        medium = super().draw(streams, resolution)
        law = self.source_alpha, self.source_tau, self.source_sigma
        source = self.forcing + self.drawn_field(streams, resolution, *law)
        return torch.cat([medium, source[:, None]], dim=1)

    def source(self, inputs: Inputs) -> Float[Tensor, " sample *space"]:
        return inputs[:, 1].double()

    def refined(self) -> Recipe:
        """Return the same problem on a grid with twice the cells; thrice where cell centres have to nest."""
        factor = 3 if "neumann" in self.walls else 2
        return replace(self, solver_resolution=factor * (self.solver_resolution - 1) + 1)

    def resolutions(self) -> list[int]:
        finest = self.grid(self.solver_resolution)
        sizes = range(self.solver_resolution, 2, -1)
        return [n for n in sizes if finest.can_subsample(self.grid(n))]
