"""Recipes of semilinear equations: trajectories by ``integrate``, on every domain whose eigenbasis a grid
knows."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.datasets.recipes.base import (
    Check,
    Fields,
    Inputs,
    Outputs,
    Recipe,
    central_difference,
    evaluated,
    sizes_by_modes,
)
from sobolev.datasets.recipes.capabilities import Evolving, Loosenable, WithResidual, scaled
from sobolev.datasets.recipes.initial_states import smooth_fields
from sobolev.grids import AbstractGrid, Grid, SphereGrid, sobolev_norm
from sobolev.solvers import Semilinear, SolutionError, integrate
from sobolev.solvers.evolution import terms

R = TypeVar("R", bound="SemilinearRecipe")
BOXES = {"periodic": Grid.periodic, "dirichlet": Grid.dirichlet, "neumann": Grid.neumann}
DOMAINS = (*BOXES, "sphere")


@dataclass(frozen=True)
class SemilinearRecipe(Evolving, WithResidual, Loosenable, Recipe):
    """Trajectories of u_t = L u + N(u) at t = 0, ``interval``, … ``time``, in steps of at most ``step``.

    ``domain`` is ``"periodic"``, ``"dirichlet"`` (u = 0 on the walls), ``"neumann"`` (no flux through them),
    boxes of one to three ``axes`` of this ``length``; or ``"sphere"``, of radius 1, on Gauss grids of n × 2n nodes.

    A subclass names its ``outputs``, one for each channel of the equation, says its ``semilinear`` and draws its
    initial states.
    """

    inputs: ClassVar = ()
    domains: ClassVar[tuple[str, ...]] = DOMAINS
    """Where the equation can be solved."""
    dimensions: ClassVar[tuple[int, ...]] = (1, 2, 3)
    """Numbers of axes that its boxes may have."""

    domain: str = "periodic"
    axes: int = 2
    length: float = 1.0
    time: float = 1.0
    interval: float = 0.1
    step: float = 0.01
    solver_resolution: int = 64
    stored_resolution: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.domain not in self.domains:
            known = ", ".join(self.domains)
            raise ValueError(f"{type(self).__name__} lives on {known}, got domain={self.domain!r}")
        if self.axes not in self.dimensions:
            known = " or ".join(map(str, self.dimensions))
            raise ValueError(f"{type(self).__name__} has {known} axes, got axes={self.axes}")
        if self.domain == "sphere" and (self.axes, self.length) != (2, 1.0):
            raise ValueError(
                f"the sphere has radius 1 and two axes, got length={self.length:g}, axes={self.axes}; a larger one has "
                "smaller diffusivities"
            )
        for name in ("length", "time", "interval", "step"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        frames = self.time / self.interval
        if not math.isclose(frames, round(frames), rel_tol=1e-9) or frames < 0.5:
            raise ValueError(
                f"time must be a multiple of interval, got time={self.time}, interval={self.interval}"
            )
        _ = self.semilinear  # which refuses what is out of its range, before anything is written

    @property
    @abstractmethod
    def semilinear(self) -> Semilinear:
        """The equation."""

    @property
    def symmetries(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the domain, which the Laplacian has."""
        if self.domain == "sphere":
            return ()
        exchanged = ("transposition",) if self.axes == 2 else ()
        return ("reflections", *exchanged, *(("shifts",) if self.domain == "periodic" else ()))

    @property
    def times(self) -> tuple[float, ...]:
        return tuple(i * self.interval for i in range(round(self.time / self.interval) + 1))

    @property
    def default_resolution(self) -> int:
        wanted = self.stored_resolution or self.solver_resolution
        return next(n for n in self.resolutions() if n <= wanted)

    def resolutions(self) -> list[int]:
        """Return every resolution at which fields can be stored, finest first."""
        shared = self.domain in ("periodic", "dirichlet")  # nodes of finer grids
        return super().resolutions() if shared else sizes_by_modes(self.solver_resolution)

    def grid(self, resolution: int) -> AbstractGrid:
        if self.domain == "sphere":
            return SphereGrid(resolution, 2 * resolution)
        return BOXES[self.domain](*[resolution] * self.axes, length=self.length)

    def solve(self, inputs: Inputs, grid: AbstractGrid) -> Outputs:
        try:
            return self._trajectories(inputs, grid, self.times)
        except SolutionError as error:
            raise SolutionError(
                str(error), self._channels_first(error.solution), error.status
            ) from error

    def refined(self: R) -> R:
        twice = 2 * self.solver_resolution - (self.domain == "dirichlet")
        return replace(self, solver_resolution=twice, step=self.step / 2)

    def continued(self: R, frames: int, stride: int) -> R:
        interval = self.interval * stride
        return replace(self, interval=interval, time=interval * frames)

    def residual(self, streams: Sequence[np.random.Generator]) -> Float[Tensor, " sample"]:
        """Return ‖u_t − L u − N(u)‖_{H⁻¹} after one interval over the largest of the three norms."""
        grid = self.grid(self.solver_resolution)
        h = min(self.step, self.interval / 8)
        frames = self._trajectories(
            self.draw(streams), grid, [self.interval + i * h for i in range(-4, 1)]
        )
        state = frames[:, :, 2]
        rate = central_difference(frames.transpose(1, 2), h)
        linear, nonlinear = terms(self.semilinear, self._as_state(state), grid)
        parts = [rate, linear.view_as(rate), nonlinear.view_as(rate)]
        sizes = [_norm_of_all(part, grid) for part in parts]
        return _norm_of_all(parts[0] - parts[1] - parts[2], grid) / torch.stack(sizes).amax(0)

    def checks(self, fields: Fields, grid: AbstractGrid) -> list[Check]:
        """Return that conserved fields keep their means, and that walls keep their zeros."""
        found = []
        for name in self.conserved:
            means = self.means(fields[name], grid)
            size = fields[name].abs().flatten(1).amax(1)
            found.append(self.keeps(f"the mean {name}", means, size, 1e-5, grid))
        if self.domain == "dirichlet":
            for variable in self.outputs:
                u = fields[variable.name]
                border = (u - grid.without_border(u)).abs().flatten(1).amax(1)
                size = u.abs().flatten(1).amax(1)
                found.append(Check(f"{variable.name} vanishes on the walls", border / size, 1e-6))
        return found

    def means(
        self, u: Float[Tensor, "sample time *space"], grid: AbstractGrid
    ) -> Float[Tensor, "sample time"]:
        """Return the mean of each frame over the domain."""
        area = grid.quadrature(u.device)
        return (u.double() * area).flatten(2).sum(2) / area.sum()

    def keeps(
        self,
        quantity: str,
        values: Float[Tensor, "sample time"],
        size: Float[Tensor, " sample"],
        limit: float,
        grid: AbstractGrid,
    ) -> Check:
        """Return that an integral over the domain does not change by more than a ``limit`` of its ``size``.

        It is conserved on the solver's nodes; picking some of them is a quadrature of its own.
        """
        drift = (values - values[:, :1]).abs().amax(1) / size
        own = grid.shape[0] == self.solver_resolution
        return Check(f"{quantity} is conserved", drift, limit if own else 0.05)

    @property
    def setting(self) -> str:
        return f"step {self.step:.4g}"

    def looser(self: R) -> Iterator[R]:
        return scaled(self, "step", 2, last=self.interval)

    def _trajectories(
        self, inputs: Inputs, grid: AbstractGrid, times: Sequence[float]
    ) -> Float[Tensor, "sample output time *space"]:
        found = integrate(self.semilinear, self._as_state(inputs), grid, times, step=self.step)
        return self._channels_first(found)

    def _as_state(
        self, inputs: Float[Tensor, "sample output *space"]
    ) -> Float[Tensor, " sample *output_and_space"]:
        """Return fields as the equation has them: without an axis for a single channel."""
        return inputs if self.semilinear.channels else inputs[:, 0]

    def _channels_first(
        self, solution: Float[Tensor, "sample time *output_and_space"]
    ) -> Float[Tensor, "sample output time *space"]:
        return solution.transpose(1, 2) if self.semilinear.channels else solution[:, None]


@dataclass(frozen=True)
class FromRandomFields(SemilinearRecipe):
    """Each initial field is Gaussian of mean zero, N(0, σ²(−Δ + τ²)^−α) with σ such that its variance, in the
    mean over the domain, is ``deviation``²."""

    measure = "u(·, 0) ~ N(0, σ²(−Δ + τ²)^−α) without its mean, σ for the deviation"

    alpha: float = 6.0
    tau: float = 10.0
    deviation: float = 1.0

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Inputs:
        grid = self.grid(self.solver_resolution)
        fields = [self._field(grid, streams) for _ in self.outputs]
        return evaluated(torch.stack(fields, dim=1), grid, self, resolution)

    def _field(
        self, grid: AbstractGrid, streams: Sequence[np.random.Generator]
    ) -> Float[Tensor, " stream *space"]:
        return smooth_fields(
            grid, streams, alpha=self.alpha, tau=self.tau, deviation=self.deviation
        )


@dataclass(frozen=True)
class FromSines(SemilinearRecipe):
    """The initial field on a circle is Σ_j A_j sin(2π l_j x / L + φ_j) of so many ``waves``, A_j between the
    ends of ``amplitudes``, l_j from 1 to ``largest`` and φ_j anywhere, all evenly."""

    domains: ClassVar = ("periodic",)
    dimensions: ClassVar = (1,)
    measure = "u(·, 0) = Σ_j A_j sin(2π l_j x / L + φ_j) with even A_j, l_j and φ_j"

    axes: int = 1
    waves: int = 10
    largest: int = 2
    amplitudes: tuple[float, float] = (-0.5, 0.5)

    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Inputs:
        (x,) = self.grid(resolution or self.solver_resolution).points()
        return torch.stack([self._sines(x, dice) for dice in streams])[:, None]

    def _sines(self, x: Float[Tensor, " x"], dice: np.random.Generator) -> Float[Tensor, " x"]:
        sizes = dice.uniform(*self.amplitudes, self.waves)
        numbers = dice.integers(1, self.largest + 1, self.waves)
        phases = dice.uniform(0, 2 * math.pi, self.waves)
        terms = [
            size * torch.sin(2 * math.pi * int(number) / self.length * x + phase)
            for size, number, phase in zip(sizes, numbers, phases, strict=True)
        ]
        return sum(terms[1:], terms[0])


def within(
    name: str,
    u: Float[Tensor, "sample ..."],
    low: float | Float[Tensor, " sample"],
    high: float | Float[Tensor, " sample"],
) -> Check:
    """Return that a field keeps to bounds, but for a thousandth of their distance."""
    above = u.flatten(1).amax(1) - high
    below = low - u.flatten(1).amin(1)
    return Check(f"{name} keeps to its bounds", torch.maximum(above, below) / (high - low), 1e-3)


def _norm_of_all(
    u: Float[Tensor, "sample output *space"], grid: AbstractGrid
) -> Float[Tensor, " sample"]:
    """Return the H⁻¹ norm of fields with channels."""
    return sobolev_norm(u, grid, -1.0).square().sum(1).sqrt()
