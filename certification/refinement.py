"""Predictions made better without data: the last spectral layer minimises the residual of the equation
in a negative Sobolev norm (Cao et al., Spectral-Refiner, ICLR 2025, arXiv:2405.17211)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from sobolev.certification.flow_refinement import FlowProblem
from sobolev.certification.pressure_refinement import PressureProblem
from sobolev.datasets.recipes.base import Recipe
from sobolev.datasets.recipes.capabilities import PressureEquation, VorticityEquation
from sobolev.grids.checks import check_whole
from sobolev.solvers.inner_products import norm
from sobolev.solvers.least_squares import LeastSquares, minimised
from sobolev.surrogates import Surrogate
from sobolev.surrogates.applying import apply, comfortable_batch, evaluating
from sobolev.surrogates.datasets import dataset_of
from sobolev.surrogates.origin import recipe_of
from sobolev.surrogates.tensors import given_fields, given_frames
from sobolev.surrogates.times import times_after

_MEANINGS = {
    "residual_before": "relative H^-1 residual of the prediction",
    "residual_after": "relative H^-1 residual after refinement",
    "iterations": "iterations of conjugate gradients",
}


@dataclass(frozen=True)
class Refinement:
    """Refined predictions, in float64 and physical units.

    ``residual_before`` and ``residual_after`` are relative and measured alike. ``iterations`` are those
    of conjugate gradients. ``seconds`` were spent on the batch, the prediction included.
    """

    fields: Float[Tensor, "batch outputs *space"]
    residual_before: Float[Tensor, " batch"]
    residual_after: Float[Tensor, " batch"]
    iterations: Int[Tensor, " batch"]
    seconds: float


def refine(
    surrogate: Surrogate,
    dataset: xr.Dataset,
    *,
    modes: Sequence[int] | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
    batch_size: int | None = None,
    recipes: Sequence[type[Recipe]] = (),
) -> xr.Dataset:
    """Predict, then let the last spectral layer of the surrogate minimise the residual of the PDE,
    sample by sample, the layers before it as they are. No other data are used.

    For one sample the layer's bias spans all that its weights do, and the prediction is linear in it:
    what is found are the coefficients of a series that is added to the prediction.

    Navier–Stokes, ``Trajectory(SpatioTemporalFNO(...))``:
        ω(x, t) + Σ_{k,m} c_{k,m} e^{2πi(k·x + mt/P)} minimises the functional η² of ``residual_norm``,
        initial condition and all. Gauss–Newton; each linear least-squares problem is solved by
        conjugate gradients on the normal equations, preconditioned by the heat equation and the mean
        sweeping, (∂_t − νΔ)*(∂_t − νΔ) + ½⟨|u|²⟩k², which is a small matrix over the functions of time
        for each wavenumber. The period P exceeds the horizon, so that the functions of time depend on
        each other up to rounding: combinations that are less than 10⁻¹⁰ of the largest in L²(0, T) are
        left out.
    Darcy, any operator:
        u(x) + Σ_k c_k sin(πk_y y) sin(πk_x x) minimises ‖f + ∇·(a∇u)‖_{H⁻¹}, which is linear least
        squares and takes about as many iterations as the contrast of a says, whatever the grid. Over
        √a_min it bounds the error in the energy norm. With all modes ``Darcy.improved`` solves the
        same problem in fewer and cheaper iterations, and is the better choice; refining corrects few
        modes, and leaves the others as they are predicted.

    Args:
        surrogate: trained on a data set of ``sobolev generate``.
        dataset: for Darcy as for ``Surrogate.predict``, for flows as for ``Surrogate.rollout``.
        modes: of the series, per sign: ``(ky, kx, m)`` for flows, ``(ky, kx)`` for Darcy. By default all
            that the grid resolves (for flows by the 2/3 rule) and, in time, twice as many as the
            operator's output layer has.
        tolerance: stop at this relative residual: of flows that of ``residual_norm``, about the
            relative error in L²; of Darcy ‖f + ∇·(a∇u)‖ / ‖f‖ in H⁻¹.
        max_iterations: of conjugate gradients, for each sample. A sample also stops where the series
            cannot make its residual smaller.
        batch_size: samples at a time.
        recipes: classes from outside the package that may have drawn the training data.

    Returns:
        The outputs, for flows along ``time``, in float64, with ``residual_before``,
        ``residual_after`` and ``iterations`` of each sample; the attribute ``seconds`` is the time
        spent in all.

    Raises:
        ValueError: for a surrogate whose equation is not known or has no refinement, an operator for
            flows without a linear spectral last layer, modes that do not fit, and inputs that
            ``predict`` or ``rollout`` refuses.

    >>> given = open_dataset("data/ns", "test").isel(time=slice(0, 10))       # doctest: +SKIP
    >>> refine(Surrogate.load("runs/ns/surrogate"), given).residual_after     # doctest: +SKIP
    """
    meaning = surrogate.meaning
    times = None
    if meaning.window is None:
        given = given_fields(dataset, meaning)
    else:
        times = times_after(dataset, meaning, meaning.in_time.horizon)
        given = given_frames(dataset, meaning)
    names = [*_MEANINGS, *(v.name for v in surrogate.quantities)]
    given.refuse_names(names, "a variable of the refinement")
    # a trajectory is a field at each of about so many nodes in time
    count = 1 if times is None else 32
    options: dict[str, Any] = {
        "modes": modes,
        "tolerance": tolerance,
        "max_iterations": max_iterations,
    }
    parts = apply(
        surrogate,
        lambda u: refined(surrogate, u, **options, recipes=recipes),
        given.fields,
        batch_size=batch_size or max(1, comfortable_batch(given.grid) // count),
    )
    values = torch.cat([part.fields for part in parts]).cpu()
    if times is not None:
        values = values.unflatten(1, (-1, len(surrogate.quantities))).transpose(1, 2)
    extra = {}
    for key, words in _MEANINGS.items():
        scores = torch.cat([getattr(part, key) for part in parts]).cpu().numpy()
        extra[key] = xr.Variable(given.sample_dim, scores, {"long_name": words, "units": "1"})
    return dataset_of(
        dict(zip(surrogate.quantities, values.unbind(1), strict=True)), given,
        source=f"refinement of {type(surrogate.operator).__name__}",
        provenance=surrogate.provenance, times=times, extra=extra,
        attributes={"seconds": sum(part.seconds for part in parts)},
    )  # fmt: skip


@torch.no_grad()
def refined(
    surrogate: Surrogate,
    inputs: Float[Tensor, "batch channels y x"],
    *,
    modes: Sequence[int] | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
    recipes: Sequence[type[Recipe]] = (),
) -> Refinement:
    """Refine tensors as ``refine`` does datasets; ``inputs`` as the surrogate takes them, in physical units."""
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is a relative residual, from 0 to 1; got {tolerance}")
    check_whole(
        "refine", max_iterations=max_iterations, **({"modes": list(modes)} if modes else {})
    )
    clock = time.perf_counter()
    with evaluating(surrogate):
        problem = _problem(surrogate, inputs, modes, recipes)
    before = norm(problem.residual()) / problem.scale
    if not bool(before.isfinite().all()):
        raise ValueError(
            "the prediction is not finite: the input lies far outside the training data"
        )
    after, iterations = minimised(problem, tolerance, max_iterations)
    seconds = time.perf_counter() - clock
    return Refinement(problem.prediction(), before, after, iterations, seconds)


def _problem(
    surrogate: Surrogate,
    inputs: Float[Tensor, "batch channels y x"],
    modes: Sequence[int] | None,
    recipes: Sequence[type[Recipe]],
) -> LeastSquares:
    """Return the least-squares problem of the surrogate's equation; refuse equations that have none."""
    recipe = recipe_of(surrogate.provenance.data, recipes)
    if isinstance(recipe, VorticityEquation):
        return FlowProblem(surrogate, inputs, modes, recipes)
    if isinstance(recipe, PressureEquation):
        return PressureProblem(surrogate, inputs, recipe.load, modes)
    raise ValueError(
        "predictions of Navier–Stokes on the torus and of Darcy flow can be refined; the surrogate was trained on data "
        f"of {type(recipe).__name__}"
    )
