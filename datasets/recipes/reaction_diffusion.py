"""Substances that react and diffuse."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.datasets.recipes.base import PDEBENCH, Check, Fields, Inputs, evaluated
from sobolev.datasets.recipes.initial_states import random_spots
from sobolev.datasets.recipes.semilinear import SemilinearRecipe, within
from sobolev.grids import AbstractGrid
from sobolev.grids.variables import Variable
from sobolev.solvers import FisherKPP, FitzHughNagumo, GrayScott


@dataclass(frozen=True)
class FromSpots(SemilinearRecipe):
    """The initial state is at rest but for one to ``spots`` spots of this ``width``: Gaussian bumps at random
    places, which do not add up."""

    domains: ClassVar = (
        "periodic",
        "neumann",
        "sphere",
    )  # the state of rest does not vanish on walls
    patterns: ClassVar[int] = 1
    """How many sets of spots a state is made of."""
    measure = "a state of rest with Gaussian spots at random places"

    spots: int = 6
    width: float = 0.1

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Inputs:
        grid = self.grid(self.solver_resolution)
        states = [
            self.state([self._spots(grid, dice) for _ in range(self.patterns)]) for dice in streams
        ]
        return evaluated(torch.stack(states), grid, self, resolution)

    @abstractmethod
    def state(self, spots: list[Float[Tensor, "*space"]]) -> Float[Tensor, " output *space"]:
        """Return the initial state that has these sets of spots, each between 0 and 1."""

    def _spots(self, grid: AbstractGrid, dice: np.random.Generator) -> Float[Tensor, "*space"]:
        return random_spots(grid, dice, most=self.spots, width=self.width)


@dataclass(frozen=True)
class FisherKPPRecipe(FromSpots):
    """Trajectories of u_t = D Δu + r u (1 − u): colonies that spread at the speed 2√(rD).

    PDEBench's r = 1 with a diffusivity at which fronts are thin.
    """

    outputs: ClassVar = (Variable("population", "population over its capacity", "1"),)
    title = "The equation of Fisher and KPP: trajectories"
    equation = "u_t = D Δu + r u (1 − u)"
    references = f"Fisher, Ann. Eugenics 7, 1937; {PDEBENCH}"
    ranges: ClassVar = {"diffusivity": "1e-4:1e-2:log", "rate": "0.5:2:log"}

    domain: str = "neumann"
    width: float = 0.05
    diffusivity: float = 1e-3
    rate: float = 1.0
    time: float = 8.0
    interval: float = 0.4
    step: float = 0.1
    solver_resolution: int = 128
    stored_resolution: int | None = 64

    @property
    def semilinear(self) -> FisherKPP:
        return FisherKPP(self.diffusivity, self.rate)

    def state(self, spots: list[Float[Tensor, "*space"]]) -> Float[Tensor, " 1 *space"]:
        return 0.8 * torch.stack(spots)

    def checks(self, fields: Fields, grid: AbstractGrid) -> list[Check]:
        bounds = within("the population", fields["population"], 0.0, 1.0)
        return [*super().checks(fields, grid), bounds]


@dataclass(frozen=True)
class GrayScottRecipe(FromSpots):
    """Trajectories of u_t = D_u Δu − u v² + F (1 − u), v_t = D_v Δv + u v² − (F + k) v.

    Diffusivities are Pearson's (1993), side, feed and kill those of The Well's mazes. In spots u is ½ and v is ¼, as
    in Pearson's square, whose edges no grid resolves.
    """

    outputs: ClassVar = (
        Variable("u", "concentration of the substance that is fed", "1"),
        Variable("v", "concentration of the catalyst", "1"),
    )
    title = "The Gray–Scott equations: trajectories"
    equation = "u_t = D_u Δu − u v² + F (1 − u), v_t = D_v Δv + u v² − (F + k) v"
    references = (
        "Pearson, Complex Patterns in a Simple System, Science 261, 1993, doi:10.1126/science.261.5118.189; "
        "Ohana et al., The Well, NeurIPS 2024, arXiv:2412.00568"
    )
    ranges: ClassVar = {"feed": "0.02:0.06", "kill": "0.055:0.065"}

    length: float = 2.0
    feed: float = 0.029
    kill: float = 0.057
    u_diffusivity: float = 2e-5
    v_diffusivity: float = 1e-5
    spots: int = 10
    time: float = 1000.0
    interval: float = 20.0
    step: float = 2.0
    solver_resolution: int = 256
    stored_resolution: int | None = 128

    @property
    def semilinear(self) -> GrayScott:
        return GrayScott(self.feed, self.kill, (self.u_diffusivity, self.v_diffusivity))

    def state(self, spots: list[Float[Tensor, "*space"]]) -> Float[Tensor, " 2 *space"]:
        return torch.stack([1 - spots[0] / 2, spots[0] / 4])

    def checks(self, fields: Fields, grid: AbstractGrid) -> list[Check]:
        return [
            *super().checks(fields, grid),
            within("u", fields["u"], 0.0, 1.0),
            Check("v is not negative", -fields["v"].flatten(1).amin(1), 1e-3),
        ]


@dataclass(frozen=True)
class FitzHughNagumoRecipe(FromSpots):
    """Trajectories of u_t = D Δu + u − u³/3 − w, w_t = ε (u + a − b w), an excitable membrane, with FitzHugh's
    (1961) parameters.

    Some spots are excited and others still recovering: waves go round these, meet and vanish.
    """

    outputs: ClassVar = (
        Variable("membrane", "potential of the membrane", "1"),
        Variable("recovery", "recovery", "1"),
    )
    patterns: ClassVar[int] = 2
    title = "The FitzHugh–Nagumo equations: trajectories"
    equation = "u_t = D Δu + u − u³/3 − w, w_t = ε (u + a − b w)"
    references = "FitzHugh, Biophys. J. 1, 1961, doi:10.1016/S0006-3495(61)86902-6"
    ranges: ClassVar = {"rate": "0.04:0.1:log"}

    domain: str = "neumann"
    length: float = 80.0
    width: float = 6.0
    diffusivity: float = 1.0
    rate: float = 0.08
    offset: float = 0.7
    decay: float = 0.8
    time: float = 60.0
    interval: float = 2.0
    step: float = 0.2
    solver_resolution: int = 128
    stored_resolution: int | None = 64

    @property
    def semilinear(self) -> FitzHughNagumo:
        return FitzHughNagumo(self.diffusivity, self.rate, self.offset, self.decay)

    def state(self, spots: list[Float[Tensor, "*space"]]) -> Float[Tensor, " 2 *space"]:
        excited, recovering = spots
        u, w = self.rest()
        return torch.stack([u + 3.0 * excited * (1 - recovering), w + 1.8 * recovering])

    def rest(self) -> tuple[float, float]:
        """Return the state of rest: the real root of u³/3 − u + (u + a) / b = 0, and its recovery."""
        roots = np.roots([1 / 3, 0.0, 1 / self.decay - 1, self.offset / self.decay])
        u = float(roots[np.abs(roots.imag).argmin()].real)
        return u, (u + self.offset) / self.decay

    def checks(self, fields: Fields, grid: AbstractGrid) -> list[Check]:
        """Return that |u| ≤ 3 and |w| ≤ (3 + a) / b, a box that no state leaves if the latter is below 6."""
        most = (3 + abs(self.offset)) / self.decay
        found = super().checks(fields, grid)
        if 0 < most < 6:
            found.append(within("the membrane", fields["membrane"], -3.0, 3.0))
            found.append(within("the recovery", fields["recovery"], -most, most))
        return found
