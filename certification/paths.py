"""Predicted trajectories as functions of time, and the flow that they should be."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.certification.time_bases import FourierBasis, HermiteBasis, TimeBasis, combined
from sobolev.datasets.recipes.base import Recipe
from sobolev.datasets.recipes.capabilities import VorticityEquation
from sobolev.grids import Grid
from sobolev.operators import Operator, SpatioTemporalFNO, Trajectory
from sobolev.solvers import NavierStokes
from sobolev.surrogates import Surrogate
from sobolev.surrogates.origin import recipe_of


@dataclass(frozen=True)
class Path:
    """A vorticity over time: ``coefficients`` of the functions of a ``basis``."""

    basis: TimeBasis
    coefficients: Float[Tensor, "batch function y x"]

    def at(self, times: Float[Tensor, " time"]) -> Float[Tensor, "batch time y x"]:
        """Return the vorticity at ``times``."""
        return combined(self.basis.values(times), self.coefficients)

    def rate(self, times: Float[Tensor, " time"]) -> Float[Tensor, "batch time y x"]:
        """Return the exact time derivative at ``times``."""
        return combined(self.basis.rates(times), self.coefficients)

    def start(self) -> Float[Tensor, "batch y x"]:
        """Return the vorticity at t = 0."""
        zero = torch.zeros(1, dtype=torch.float64, device=self.coefficients.device)
        return self.at(zero)[:, 0]


def path_of(
    surrogate: Surrogate,
    inputs: Float[Tensor, "batch channels y x"],
    recipes: Sequence[type[Recipe]] = (),
) -> Path:
    """Return what one application predicts, as a function of time from the last given frame on, float64.

    Raises:
        ValueError: if the surrogate's equation or the times of its frames are not known.
    """
    inner = spectral_in_time(surrogate.operator)
    if inner is not None and not surrogate.symmetries:
        return _series(surrogate, inner, inputs)
    flow = flow_of(surrogate, recipes)
    grid = flat_grid(surrogate, inputs)
    frames = torch.cat([latest(inputs)[:, None], surrogate(inputs).double()], dim=1)
    flat = centred(frames).flatten(0, 1)
    slopes = -flow.residual(flat, torch.zeros_like(flat), grid).view_as(frames)
    basis = HermiteBasis(frames.shape[1], frame_interval(surrogate))
    return Path(basis, torch.cat([frames, slopes], dim=1))


def spectral_in_time(operator: Operator) -> SpatioTemporalFNO | None:
    """Return the operator whose output layer, a series in time, makes the frames; None if another one
    does."""
    inner = operator.operator if isinstance(operator, Trajectory) else None
    plain = isinstance(operator, Trajectory) and not operator.repeat and not operator.static
    return inner if plain and isinstance(inner, SpatioTemporalFNO) and inner.step == 1 else None


def _series(
    surrogate: Surrogate, inner: SpatioTemporalFNO, inputs: Float[Tensor, "batch channels y x"]
) -> Path:
    """Return the series that the output layer is.

    The layer is evaluated in float64 at as many times of a period as give its coefficients.
    """
    u = (inputs.to(surrogate.input_mean) - surrogate.input_mean) / surrogate.input_scale
    r = inner.latent(u[:, None].movedim(2, -1))  # frames are the last axis there
    output = copy.deepcopy(inner.output).double()
    modes = inner.output.modes.counts[-1]
    times = {"size": (*u.shape[2:], 2 * modes), "step": output.period / (2 * modes)}
    samples = output(r.double(), **times)[:, 0].movedim(-1, 1)
    physical = samples * surrogate.output_scale[0] + surrogate.output_mean[0]
    interval = frame_interval(surrogate)
    horizon = surrogate.meaning.in_time.horizon
    basis = FourierBasis(modes, output.period * interval, horizon * interval)
    return Path(basis, basis.coefficients(physical))


def latest(inputs: Float[Tensor, "batch channels y x"]) -> Float[Tensor, "batch y x"]:
    """Return the last given frame, float64."""
    return inputs[:, -1].double()


def centred(u: Float[Tensor, "*batch y x"]) -> Float[Tensor, "*batch y x"]:
    """Return fields without their mean."""
    return u - u.mean(dim=(-2, -1), keepdim=True)


def flow_of(surrogate: Surrogate, recipes: Sequence[type[Recipe]] = ()) -> NavierStokes:
    """Return the flow whose trajectories a surrogate continues.

    Raises:
        ValueError: if they are no viscous flow on the torus.
    """
    recipe = recipe_of(surrogate.provenance.data, recipes)
    if not isinstance(recipe, VorticityEquation):
        raise ValueError(
            "the residual of a trajectory is known for Navier–Stokes on the torus; the surrogate was trained on data "
            f"of {type(recipe).__name__}"
        )
    if recipe.flow.viscosity == 0:
        raise ValueError("the residual is measured against the viscosity, and this flow has none")
    return recipe.flow


def frame_interval(surrogate: Surrogate) -> float:
    """Return the time between two predicted frames.

    Raises:
        ValueError: if it is not known.
    """
    if surrogate.interval is None:
        raise ValueError(
            "the times of the predicted frames are not known: the surrogate was not trained on windows of evenly "
            "spaced frames"
        )
    return surrogate.interval


def flat_grid(surrogate: Surrogate, inputs: Float[Tensor, "batch channels *space"]) -> Grid:
    """Return the grid of ``inputs``.

    Raises:
        ValueError: for fields on a sphere.
    """
    grid = surrogate.grid.resized(*inputs.shape[2:])
    if not isinstance(grid, Grid):
        raise ValueError(f"the equation is one on the plane, the fields live on {grid}")
    return grid
