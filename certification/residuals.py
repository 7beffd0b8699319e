"""The residual of a predicted trajectory in its equation, in a negative Sobolev norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.certification.paths import centred, flat_grid, flow_of, latest, path_of
from sobolev.datasets.recipes.base import Recipe
from sobolev.grids import sobolev_norm
from sobolev.surrogates import Surrogate


@torch.no_grad()
def residual_norm(
    surrogate: Surrogate,
    inputs: Float[Tensor, "batch channels y x"],
    *,
    relative: bool = True,
    recipes: Sequence[type[Recipe]] = (),
) -> Float[Tensor, " batch"]:
    """Return the norm η by which the trajectories of one application miss Navier–Stokes, float64::

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
        recipes: classes from outside the package that may have drawn the data.

    Raises:
        ValueError: if the training data do not say which flow they are of.
    """
    flow = flow_of(surrogate, recipes)
    grid = flat_grid(surrogate, inputs)
    path = path_of(surrogate, inputs, recipes)
    start = latest(inputs)
    times, weights = path.basis.quadrature(start.device)
    fields = centred(path.at(times))
    rates = centred(path.rate(times))
    residual = flow.residual(fields.flatten(0, 1), rates.flatten(0, 1), grid).view_as(fields)
    missed = (sobolev_norm(residual, grid, -1.0).square() * weights).sum(1) / flow.viscosity
    eta = (sobolev_norm(centred(path.start() - start), grid).square() + missed).sqrt()
    if not relative:
        return eta
    size = (sobolev_norm(fields, grid).square() * weights).sum(1) / path.basis.duration
    return eta / size.sqrt()
