"""By how much a predicted trajectory misses its equation: the residual's negative Sobolev norm."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.datasets.recipes.base import Recipe
from sobolev.datasets.recipes.flows import NavierStokesRecipe
from sobolev.datasets.recipes.presets import is_known, recipe_from
from sobolev.grids import Grid, sobolev_norm
from sobolev.operators import Operator, SpatioTemporalFNO, Trajectory
from sobolev.solvers import NavierStokes
from sobolev.surrogates.surrogate import Surrogate


class TimeBasis(ABC):
    """Functions of time on [0, ``duration``]."""

    duration: float

    @abstractmethod
    def values(self, times: Tensor) -> Tensor:
        """Each function at each time, float64, ``(time, function)``."""

    @abstractmethod
    def rates(self, times: Tensor) -> Tensor:
        """Their exact time derivatives."""

    @abstractmethod
    def quadrature(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Times and weights, float64, for ∫_0^T of squares of products of the functions."""


@dataclass(frozen=True)
class FourierBasis(TimeBasis):
    """1, cos ω_1 t … cos ω_{M−1} t, sin ω_1 t … sin ω_{M−1} t with ω_m = 2πm / P and M ``modes``.

    The period P may exceed the duration T: the functions then need not be periodic on [0, T].
    """

    modes: int
    period: float
    duration: float

    def values(self, times: Tensor) -> Tensor:
        phase = times[:, None] * self._frequencies(times)
        return torch.cat([phase.cos(), phase[:, 1:].sin()], dim=1)

    def rates(self, times: Tensor) -> Tensor:
        omega = self._frequencies(times)
        phase = times[:, None] * omega
        return torch.cat([-omega * phase.sin(), (omega * phase.cos())[:, 1:]], dim=1)

    def quadrature(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Gauss' with ω_{M−1} T + 8 nodes or more, which integrate frequencies up to 4 ω_{M−1} to
        rounding: those of the square of a product."""
        highest = 2 * math.pi / self.period * (self.modes - 1)
        return gauss(math.ceil(highest * self.duration) + 8, self.duration, device)

    def coefficients(self, samples: Float[Tensor, "batch n y x"]) -> Float[Tensor, "batch m y x"]:
        """Of the series with these values at P/n, 2P/n, … P, for n of at least 2M."""
        n = samples.shape[1]
        times = self.period / n * torch.arange(1, n + 1, dtype=torch.float64, device=samples.device)
        functions = self.values(times)  # orthogonal on these times
        return combined((functions / functions.square().sum(0)).T, samples)

    def _frequencies(self, like: Tensor) -> Tensor:
        m = torch.arange(self.modes, dtype=torch.float64, device=like.device)
        return 2 * math.pi / self.period * m


@dataclass(frozen=True)
class HermiteBasis(TimeBasis):
    """The cubic Hermite interpolation of ``count`` frames h = ``interval`` apart, the first at 0: a
    function for each frame, then one for each frame's time derivative.

    A smooth trajectory is met up to O(h⁴), its time derivative up to O(h³).
    """

    count: int
    interval: float

    @property
    def duration(self) -> float:  # type: ignore[override]
        return (self.count - 1) * self.interval

    def values(self, times: Tensor) -> Tensor:
        s, left = self._place(times)
        here, there = (1 + 2 * s) * (1 - s) ** 2, s**2 * (3 - 2 * s)
        return self._spread(left, here, there, s * (1 - s) ** 2, s**2 * (s - 1))

    def rates(self, times: Tensor) -> Tensor:
        s, left = self._place(times)
        rise = 6 * s * (1 - s)
        basis = self._spread(left, -rise, rise, (1 - s) * (1 - 3 * s), s * (3 * s - 2))
        return basis / self.interval

    def quadrature(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Four points of Gauss between two frames, exact for the square of what the interpolant of a smooth
        trajectory misses, s (1 − s) (1 − 2s) h³ to leading order."""
        times, weights = gauss(4, self.interval, device)
        first = torch.arange(self.count - 1, dtype=torch.float64, device=device) * self.interval
        return (first[:, None] + times).flatten(), weights.repeat(self.count - 1)

    def _place(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Where between two frames, from 0 to 1, and after which."""
        left = (times / self.interval).floor().long().clamp(0, self.count - 2)
        return times / self.interval - left, left

    def _spread(self, left: Tensor, *weights: Tensor) -> Tensor:
        here, there, slope_here, slope_there = weights
        basis = here.new_zeros((len(left), 2 * self.count))
        row = torch.arange(len(left), device=left.device)
        basis[row, left], basis[row, left + 1] = here, there
        basis[row, self.count + left] = self.interval * slope_here
        basis[row, self.count + left + 1] = self.interval * slope_there
        return basis


@dataclass(frozen=True)
class Path:
    """A vorticity over time: ``coefficients`` ``(batch, function, y, x)`` of the functions of a
    ``basis``."""

    basis: TimeBasis
    coefficients: Tensor

    def at(self, times: Tensor) -> Tensor:
        """``(batch, time, y, x)``."""
        return combined(self.basis.values(times), self.coefficients)

    def rate(self, times: Tensor) -> Tensor:
        """The exact time derivative."""
        return combined(self.basis.rates(times), self.coefficients)

    def start(self) -> Tensor:
        """At t = 0, ``(batch, y, x)``."""
        zero = torch.zeros(1, dtype=torch.float64, device=self.coefficients.device)
        return self.at(zero)[:, 0]


def combined(matrix: Tensor, fields: Tensor) -> Tensor:
    """Linear combinations: ``matrix`` ``(out, in)`` applied to ``(batch, in, *modes or space)``, real or
    complex."""
    values = torch.view_as_real(fields) if fields.is_complex() else fields
    result = (matrix @ values.flatten(2)).unflatten(2, values.shape[2:])
    return torch.view_as_complex(result) if fields.is_complex() else result


def gauss(points: int, duration: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Gauss–Legendre nodes and weights on [0, ``duration``], float64."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    times = (nodes + 1) * duration / 2
    return torch.from_numpy(times).to(device), torch.from_numpy(weights * duration / 2).to(device)


@torch.no_grad()
def residual_norm(
    surrogate: Surrogate, inputs: Float[Tensor, "batch channels y x"], *, relative: bool = True
) -> Float[Tensor, " batch"]:
    """By how much the trajectories of one application miss Navier–Stokes, in float64::

        η² = ‖ω(·, 0) − ω_0‖²_{L²} + ν⁻¹ ∫_0^T ‖ω_t + u·∇ω − νΔω − f‖²_{H⁻¹} dt

    ω_0 is the last given frame, T the time of the last predicted one. ω(x, t) is the series in time
    that the output layer of a ``SpatioTemporalFNO`` is, whose derivative is exact. The frames of any
    other operator are joined by the cubic Hermite interpolant whose slopes the equation itself gives;
    it adds O(h³) of its own, h being the frames' distance, so that η says little about frames that
    are far apart.

    For a linear flow, u given, η bounds the error e of the trajectory: from e_t + u·∇e − νΔe = R follows
    ‖e(T)‖² + ν∫‖∇e‖² ≤ ‖e(0)‖² + ν⁻¹∫‖R‖²_{∗}, where ‖·‖_∗, the dual of ‖∇·‖, is at most
    (1 + 1/λ_1)^½ times the H⁻¹ norm. In a nonlinear one it is an estimate.

    The residual is that of the solver on the grid of ``inputs``, 2/3 rule included: zero for its own
    trajectories there. The mean of ω, which no flow changes, is left out.

    Args:
        surrogate: trained on windows of a Navier–Stokes data set; any operator.
        inputs: ``(batch, in_channels, y, x)`` in physical units, as ``surrogate`` takes them.
        relative: η over (T⁻¹∫‖ω‖² dt)^½ of the prediction, comparable with its relative L² error.

    Raises:
        ValueError: if the training data do not say which flow they are of.
    """
    flow, grid = flow_of(surrogate), flat_grid(surrogate, inputs)
    path, start = path_of(surrogate, inputs), latest(inputs)
    times, weights = path.basis.quadrature(start.device)
    fields, rates = centred(path.at(times)), centred(path.rate(times))
    residual = flow.residual(fields.flatten(0, 1), rates.flatten(0, 1), grid).view_as(fields)
    missed = (sobolev_norm(residual, grid, -1.0).square() * weights).sum(1) / flow.viscosity
    eta = (sobolev_norm(centred(path.start() - start), grid).square() + missed).sqrt()
    if not relative:
        return eta
    size = (sobolev_norm(fields, grid).square() * weights).sum(1) / path.basis.duration
    return eta / size.sqrt()


def path_of(surrogate: Surrogate, inputs: Float[Tensor, "batch channels y x"]) -> Path:
    """What one application predicts, as a function of time from the last given frame on, float64.

    Raises:
        ValueError: if the surrogate's equation or the times of its frames are not known.
    """
    inner = spectral_in_time(surrogate.operator)
    if inner is not None and not surrogate.symmetries:
        return _series(surrogate, inner, inputs)
    flow, grid = flow_of(surrogate), flat_grid(surrogate, inputs)
    frames = torch.cat([latest(inputs)[:, None], surrogate(inputs).double()], dim=1)
    flat = centred(frames).flatten(0, 1)
    slopes = -flow.residual(flat, torch.zeros_like(flat), grid).view_as(frames)
    basis = HermiteBasis(frames.shape[1], frame_interval(surrogate))
    return Path(basis, torch.cat([frames, slopes], dim=1))


def spectral_in_time(operator: Operator) -> SpatioTemporalFNO | None:
    """The operator whose output layer, a series in time, makes the frames; None if another one does."""
    inner = operator.operator if isinstance(operator, Trajectory) else None
    plain = isinstance(operator, Trajectory) and not operator.repeat and not operator.static
    return inner if plain and isinstance(inner, SpatioTemporalFNO) and inner.step == 1 else None


def _series(surrogate: Surrogate, inner: SpatioTemporalFNO, inputs: Tensor) -> Path:
    """The output layer, evaluated in float64 at as many times of a period as give its coefficients."""
    u = (inputs.to(surrogate.input_mean) - surrogate.input_mean) / surrogate.input_scale
    r = inner.latent(u[:, None].movedim(2, -1))  # frames are the last axis there
    output, modes = copy.deepcopy(inner.output).double(), inner.output.modes.counts[-1]
    times = {"size": (*u.shape[2:], 2 * modes), "step": output.period / (2 * modes)}
    samples = output(r.double(), **times)[:, 0].movedim(-1, 1)
    physical = samples * surrogate.output_scale[0] + surrogate.output_mean[0]
    interval, horizon = frame_interval(surrogate), surrogate.in_time.horizon
    basis = FourierBasis(modes, output.period * interval, horizon * interval)
    return Path(basis, basis.coefficients(physical))


def latest(inputs: Tensor) -> Tensor:
    """The last given frame, ``(batch, y, x)``, float64."""
    return inputs[:, -1].double()


def centred(u: Tensor) -> Tensor:
    """Fields without their mean."""
    return u - u.mean(dim=(-2, -1), keepdim=True)


def recipe_of(surrogate: Surrogate) -> Recipe:
    """The recipe of the data that a surrogate was trained on, which knows their equation.

    Raises:
        ValueError: if there is none, or none of this package's.
    """
    configuration = surrogate.provenance.get("data", {}).get("recipe")
    if configuration is None or not is_known(configuration):
        found = "nothing" if configuration is None else f"the class {configuration.get('class')!r}"
        raise ValueError(
            f"which equation the predictions should obey is not known: of the recipe of its data the surrogate's "
            f"provenance says {found}; it has to be trained on a data set of `sobolev generate`"
        )
    return recipe_from(configuration)


def flow_of(surrogate: Surrogate) -> NavierStokes:
    """The flow whose trajectories a surrogate continues.

    Raises:
        ValueError: if they are no viscous flow on the torus.
    """
    recipe = recipe_of(surrogate)
    if not isinstance(recipe, NavierStokesRecipe):
        raise ValueError(
            "the residual of a trajectory is known for Navier–Stokes on the torus; the surrogate was trained on data "
            f"of {type(recipe).__name__}"
        )
    if recipe.viscosity == 0:
        raise ValueError("the residual is measured against the viscosity, and this flow has none")
    return recipe.flow


def frame_interval(surrogate: Surrogate) -> float:
    """Time between two predicted frames.

    Raises:
        ValueError: if it is not known.
    """
    if surrogate.interval is None:
        raise ValueError(
            "the times of the predicted frames are not known: the surrogate was not trained on windows of evenly "
            "spaced frames"
        )
    return surrogate.interval


def flat_grid(surrogate: Surrogate, inputs: Tensor) -> Grid:
    """The grid of ``inputs``.

    Raises:
        ValueError: for fields on a sphere.
    """
    grid = surrogate.grid.resized(*inputs.shape[2:])
    if not isinstance(grid, Grid):
        raise ValueError(f"the equation is one on the plane, the fields live on {grid}")
    return grid
