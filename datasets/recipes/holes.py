"""Steady flow around a hole: a domain that differs from sample to sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.datasets.recipes.base import Check, Fields, Inputs, Outputs, Recipe
from sobolev.datasets.recipes.darcy import RandomMediumRecipe
from sobolev.grids import Grid
from sobolev.grids.variables import MASK, Variable
from sobolev.solvers.elliptic.part_of_box import solve_in_domain

_CELLS = 32
"""The corners of holes lie on so many cells per axis, so that they are nodes of every finer grid."""


@dataclass(frozen=True)
class HoledDarcyRecipe(RandomMediumRecipe):
    """(domain, a) ↦ u for −∇·(a∇u) = ``forcing`` in a square with a rectangular hole, u = 0 on both borders.

    The hole's sides are ``least`` to ``most`` 32nds of the square's, and it keeps three of them from
    the border. Its closed rectangle is outside the domain.
    """

    inputs: ClassVar[tuple[Variable, ...]] = (MASK, *RandomMediumRecipe.inputs)
    outputs = (Variable("pressure", "pressure head, zero in the hole", "1"),)
    mask: ClassVar[str] = MASK.name
    title = "Darcy flow around a hole: domain and permeability to pressure"
    equation = "−∇·(a ∇u) = f in the unit square without a rectangle, u = 0 on the borders of both"
    measure = f"the hole: sides and place uniform on {_CELLS}nds; {RandomMediumRecipe.measure}"
    references = "cf. the Poisson problem with a hole of PINA's tutorials, there on finite elements"

    solver_resolution: int = 129
    stored_resolution: int | None = 65
    least: int = 4
    most: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.least <= self.most <= _CELLS - 8:
            raise ValueError(
                f"a hole's sides are 1 to {_CELLS - 8} 32nds, least ≤ most; got {self.least} and {self.most}"
            )
        if (self.solver_resolution - 1) % _CELLS:
            raise ValueError(
                f"solver_resolution must be a multiple of {_CELLS} plus 1, so that holes end at nodes; got "
                f"{self.solver_resolution}"
            )

    def grid(self, resolution: int) -> Grid:
        return Grid.dirichlet(resolution, resolution)

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Inputs:
        grid = self.grid(resolution or self.solver_resolution)
        domains = torch.stack([self._domain(dice, grid) for dice in streams])[:, None]
        medium = super().draw(streams, resolution)
        return torch.cat([domains, medium], dim=1)

    def solve(self, inputs: Inputs, grid: Grid) -> Outputs:
        domain, a = inputs.unbind(1)
        return solve_in_domain(a, domain == 1, grid, self.forcing)[:, None]

    def refined(self) -> Recipe:
        return replace(self, solver_resolution=2 * self.solver_resolution - 1)

    def resolutions(self) -> list[int]:
        return [n for n in super().resolutions() if (n - 1) % _CELLS == 0]

    def checks(self, fields: Fields, grid: Grid) -> list[Check]:
        u = fields["pressure"]
        outside = (fields[MASK.name] == 0) * u.abs()
        largest = u.flatten(1).amax(dim=1)
        return [
            *super().checks(fields, grid),
            Check("the pressure is zero in the hole", outside.flatten(1).amax(dim=1), 0.0),
            Check("the pressure is nowhere negative", -u.flatten(1).amin(dim=1) / largest, 1e-6),
        ]

    def _domain(self, dice: np.random.Generator, grid: Grid) -> Float[Tensor, "y x"]:
        """Return 1 in the domain and 0 in a hole of random sides and place."""
        sides = dice.integers(self.least, self.most, size=2, endpoint=True)
        starts = [int(dice.integers(3, _CELLS - 3 - side, endpoint=True)) for side in sides]
        inside = []
        for start, side, points in zip(starts, sides.tolist(), grid.points(), strict=True):
            scaled = points * _CELLS
            inside.append((scaled > start - 1e-6) & (scaled < start + side + 1e-6))
        return 1 - (inside[0][:, None] & inside[1][None, :]).double()
