"""Predictions made better without data: the last spectral layer minimises the residual of the equation
in a negative Sobolev norm (Cao et al., Spectral-Refiner, ICLR 2025, arXiv:2405.17211)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

import sobolev
from sobolev.certification.residuals import (
    FourierBasis,
    Path,
    centred,
    combined,
    flat_grid,
    flow_of,
    latest,
    path_of,
    recipe_of,
    spectral_in_time,
)
from sobolev.datasets.recipes.flows import NavierStokesRecipe
from sobolev.datasets.recipes.presets import DarcyRecipe, PublishedDarcyRecipe
from sobolev.grids import Grid
from sobolev.grids.checks import check_whole
from sobolev.grids.description import axis_coords
from sobolev.solvers.elliptic.fast_poisson import five_point_eigenvalues
from sobolev.solvers.elliptic.stiffness import Stiffness, check_permeability
from sobolev.solvers.inner_products import norm
from sobolev.solvers.least_squares import LeastSquares, minimised
from sobolev.surrogates.rollout import continued, frames_as_inputs
from sobolev.surrogates.surrogate import Surrogate, comfortable_batch
from sobolev.surrogates.tensors import fields_of

_INDEPENDENT = 1e-10  # functions of time count from this share of the largest singular value on
_MEANINGS = {
    "residual_before": "relative H^-1 residual of the prediction",
    "residual_after": "relative H^-1 residual after refinement",
    "iterations": "iterations of conjugate gradients",
}


@dataclass(frozen=True)
class Refinement:
    """Refined predictions, ``(batch, outputs, *space)`` in float64 and physical units.

    ``residual_before`` and ``residual_after`` are relative and measured alike, ``iterations`` are those
    of conjugate gradients, ``(batch,)`` each; ``seconds`` were spent on the batch, the prediction
    included.
    """

    fields: Tensor
    residual_before: Tensor
    residual_after: Tensor
    iterations: Tensor
    seconds: float


def refine(
    surrogate: Surrogate,
    dataset: xr.Dataset,
    *,
    modes: Sequence[int] | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
    batch_size: int | None = None,
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
    in_time = surrogate.window is not None
    coords = {}
    if in_time:
        coords["time"] = continued(dataset, surrogate, surrogate.in_time.horizon)
        dataset = frames_as_inputs(dataset, surrogate)
    fields, grid, samples = fields_of(dataset, surrogate.inputs, surrogate.grid)
    name, device = "sample" if samples is None else str(samples.name), surrogate.input_mean.device
    count = 32 if in_time else 1  # a trajectory is a field at each of about so many nodes in time
    size = batch_size or max(1, comfortable_batch(grid) // count)
    parts = [
        refined(
            surrogate, u.to(device), modes=modes, tolerance=tolerance, max_iterations=max_iterations
        )
        for u in fields.split(size)
    ]
    values = torch.cat([part.fields for part in parts]).cpu().numpy()
    found = {}
    for i, v in enumerate(surrogate.quantities):
        here = values[:, i :: len(surrogate.quantities)] if in_time else values[:, i]
        dims = (name, "time", *grid.dims) if in_time else (name, *grid.dims)
        found[v.name] = xr.Variable(dims, here, v.attributes)
    for key, meaning in _MEANINGS.items():
        scores = torch.cat([getattr(part, key) for part in parts]).cpu().numpy()
        found[key] = xr.Variable(name, scores, {"long_name": meaning, "units": "1"})
    result = xr.Dataset(
        found,
        {**coords, **axis_coords(grid)},
        {
            "Conventions": "CF-1.11",
            "source": f"sobolev {sobolev.__version__} refinement of {type(surrogate.operator).__name__}",
            "provenance": json.dumps(surrogate.provenance, sort_keys=True),
            "seconds": sum(part.seconds for part in parts),
        },
    )
    return result.isel(sample=0) if samples is None else result.assign_coords({name: samples})


@torch.no_grad()
def refined(
    surrogate: Surrogate,
    inputs: Float[Tensor, "batch channels y x"],
    *,
    modes: Sequence[int] | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
) -> Refinement:
    """``refine`` for tensors; ``inputs`` as the surrogate takes them, in physical units."""
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is a relative residual, from 0 to 1; got {tolerance}")
    check_whole(
        "refine", max_iterations=max_iterations, **({"modes": list(modes)} if modes else {})
    )
    clock, was_training = time.perf_counter(), surrogate.training
    surrogate.eval()
    try:
        problem = _problem(surrogate, inputs, modes)
    finally:
        surrogate.train(was_training)
    before = norm(problem.residual()) / problem.scale
    if not bool(before.isfinite().all()):
        raise ValueError(
            "the prediction is not finite: the input lies far outside the training data"
        )
    after, iterations = minimised(problem, tolerance, max_iterations)
    seconds = time.perf_counter() - clock
    return Refinement(problem.prediction(), before, after, iterations, seconds)


def _problem(surrogate: Surrogate, inputs: Tensor, modes: Sequence[int] | None) -> LeastSquares:
    recipe = recipe_of(surrogate)
    if isinstance(recipe, NavierStokesRecipe):
        return FlowProblem(surrogate, inputs, modes)
    if isinstance(recipe, DarcyRecipe) and not isinstance(recipe, PublishedDarcyRecipe):
        return PressureProblem(surrogate, inputs, recipe.forcing, modes)
    raise ValueError(
        "predictions of Navier–Stokes on the torus and of Darcy flow can be refined; the surrogate was trained on data "
        f"of {type(recipe).__name__}"
    )


class FlowProblem(LeastSquares):
    """η of ``residual_norm`` for a predicted trajectory plus a series in space and time.

    Computed in the modes that the 2/3 rule keeps, at the nodes of a Gauss quadrature in time, to which
    the initial condition is appended as one more.
    """

    gradient, inexact = 0.05, 0.03

    def __init__(self, surrogate: Surrogate, inputs: Tensor, modes: Sequence[int] | None) -> None:
        equation, grid, given = flow_of(surrogate), flat_grid(surrogate, inputs), latest(inputs)
        path, own = _spectral_path(surrogate, inputs)
        self.viscosity = equation.viscosity
        self.flow = flow = equation.in_modes(grid, centred(given))
        ky, kx, m = _flow_modes(modes, flow.eigenvalues.shape, own)
        times, weights = replace(own, modes=max(m, own.modes)).quadrature(given.device)
        horizon = surrogate.in_time.horizon
        frames = torch.arange(1, horizon + 1, dtype=torch.float64, device=given.device)
        frames = own.duration / horizon * frames
        self._functions(replace(own, modes=m), times, weights, frames)

        self.v, self.rate = flow.transform(path.at(times)), flow.transform(path.rate(times))
        self.missed_start = flow.transform(path.start() - given)[:, None]
        self.frames, self.z = flow.transform(path.at(frames)), flow.velocity(self.v)
        dual = flow.multiplicity / ((1 + flow.eigenvalues) * self.viscosity)
        self.weight = torch.cat([weights[:, None, None] * dual, flow.multiplicity[None]]).sqrt()
        squares = (self.v.abs().square() * flow.multiplicity).sum((2, 3))
        self.scale = (squares @ weights / own.duration).sqrt()
        row, column = flow.eigenvalues.shape
        low = (torch.arange(row, device=given.device) - row // 2).abs()[:, None] <= ky
        low = low & (torch.arange(column, device=given.device) <= kx)
        self.live = low & (flow.multiplicity > 0)
        self._preconditioner(weights)

    def residual(self) -> Tensor:
        missed = self.flow.residual(self.v, self.rate, self.z)
        return torch.cat([missed, self.missed_start], dim=1) * self.weight

    def tangent(self, d: Tensor) -> Tensor:
        v, rate = combined(self.values, d), combined(self.rates, d)
        missed = self.flow.tangent(v, rate, self.z)
        return torch.cat([missed, combined(self.start, d)], dim=1) * self.weight

    def transposed(self) -> Callable[[Tensor], Tensor]:
        """By automatic differentiation: ``tangent`` is linear, so that one graph serves for all."""
        shape = (len(self.v), self.values.shape[1], *self.v.shape[2:])
        with torch.enable_grad():
            d = self.v.new_zeros(shape).requires_grad_()
            image = self.tangent(d)

        def apply(r: Tensor) -> Tensor:
            return torch.autograd.grad(image, d, r, retain_graph=True)[0] * self.live

        return apply

    def precondition(self, s: Tensor) -> Tensor:
        """Q (D + sweeping)⁻¹ Qᵀ for each wavenumber, a matrix over the functions of time."""
        batch, count = s.shape[:2]
        columns = torch.view_as_real(s).movedim((2, 3), (0, 1)).flatten(0, 1)  # (k, batch, J, 2)
        columns = columns.movedim(1, 2).reshape(-1, count, 2 * batch)
        turned = (self.turn.mT @ columns).unflatten(2, (batch, 2)) / self.diagonal
        back = (self.turn @ turned.flatten(2)).unflatten(2, (batch, 2))
        result = back.movedim(2, 1).unflatten(0, s.shape[2:]).movedim((0, 1), (2, 3))
        return torch.view_as_complex(result.contiguous())

    def curvature(self, d: Tensor) -> Tensor:
        second = self.flow.advection(combined(self.values, d))
        return torch.cat([second, torch.zeros_like(second[:, :1])], dim=1) * self.weight

    def move(self, d: Tensor) -> None:
        step = combined(self.values, d)
        self.v, self.z = self.v + step, self.z + self.flow.velocity(step)
        self.rate = self.rate + combined(self.rates, d)
        self.missed_start = self.missed_start + combined(self.start, d)
        self.frames = self.frames + combined(self.at_frames, d)

    def prediction(self) -> Tensor:
        return self.flow.inverse(self.flow.completed(self.frames))

    def _functions(
        self, basis: FourierBasis, times: Tensor, weights: Tensor, frames: Tensor
    ) -> None:
        """Combinations of the functions of time that are orthonormal in L²(0, T)."""
        raw = basis.values(times)
        _, size, right = torch.linalg.svd(weights.sqrt()[:, None] * raw, full_matrices=False)
        mixture = (right.T / size)[:, size > _INDEPENDENT * size[0]]
        self.values, self.rates = raw @ mixture, basis.rates(times) @ mixture
        self.start = basis.values(torch.zeros_like(times[:1])) @ mixture
        self.at_frames = basis.values(frames) @ mixture

    def _preconditioner(self, weights: Tensor) -> None:
        """Of r'ᵀr' the part that is diagonal in space: the heat equation's, and for each sample
        ½⟨|u|²⟩k², the mean over directions of (u·∇)*(u·∇)."""
        k2, which = self.flow.eigenvalues.unique(return_inverse=True)
        damping = k2.new_zeros(len(k2))
        damping[which] = -self.flow.symbol.real
        heat = self.rates + damping[:, None, None] * self.values  # (k², time, function)
        heat = heat.mT @ (weights[:, None] * heat) / ((1 + k2) * self.viscosity)[:, None, None]
        diagonal, turn = torch.linalg.eigh(heat + self.start.mT @ self.start)
        energy = self.z.abs().square().mean((2, 3)) @ weights / weights.sum()
        sweeping = k2 / (2 * (1 + k2) * self.viscosity) * energy[:, None]  # (batch, k²)
        both = diagonal[:, :, None] + sweeping.T[:, None]  # (k², function, batch)
        counted = torch.where(self.live, self.flow.multiplicity, 1.0).flatten()
        self.diagonal = (both[which.flatten()] * counted[:, None, None])[..., None]
        self.turn = turn[which.flatten()]


class PressureProblem(LeastSquares):
    """‖f + ∇·(a∇u)‖_{H⁻¹} for a predicted pressure plus a sine series, on the solver's five points: the
    dual of ‖∇·‖, with its eigenvalues of −Δ."""

    inexact = 0.0

    def __init__(
        self, surrogate: Surrogate, inputs: Tensor, forcing: float, modes: Sequence[int] | None
    ) -> None:
        self.grid = grid = flat_grid(surrogate, inputs)
        a = inputs[:, 0].double()
        check_permeability(a, grid)
        self.pressure = grid.without_border(surrogate(inputs)[:, 0].double())
        self.stiffness = Stiffness(a, grid)
        self.forcing = torch.full_like(a[:, 1:-1, 1:-1], forcing)
        self.eigenvalues = five_point_eigenvalues(grid, a.device)
        self.block = _pressure_modes(modes, grid)
        self.scale = norm(self._dual(self.forcing))
        # ‖r'd‖ ≥ a_min ‖∇d‖: the residual is then within 10⁻⁶ of the least
        self.gradient = 1e-3 * self.stiffness.least_face()

    def residual(self) -> Tensor:
        return self._dual(self.forcing - self.stiffness(self.pressure[:, 1:-1, 1:-1]))

    def tangent(self, d: Tensor) -> Tensor:
        return -self._dual(self.stiffness(self._series(d)[:, 1:-1, 1:-1]))

    def transposed(self) -> Callable[[Tensor], Tensor]:
        ky, kx = self.block

        def apply(r: Tensor) -> Tensor:
            field = self.grid.from_modes(r / self.eigenvalues.sqrt())[:, 1:-1, 1:-1]
            return -self.grid.to_modes(pad(self.stiffness(field), (1, 1, 1, 1)))[:, :ky, :kx]

        return apply

    def precondition(self, s: Tensor) -> Tensor:
        ky, kx = self.block
        return s / self.eigenvalues[:ky, :kx]

    def curvature(self, d: Tensor) -> Tensor:
        return torch.zeros_like(self.eigenvalues).expand(len(d), -1, -1)

    def move(self, d: Tensor) -> None:
        self.pressure = self.pressure + self._series(d)

    def prediction(self) -> Tensor:
        return self.pressure[:, None]

    def _dual(self, inside: Tensor) -> Tensor:
        """Modes of a field on the inner nodes whose squares sum to its H⁻¹ norm's."""
        return self.grid.to_modes(pad(inside, (1, 1, 1, 1))) / self.eigenvalues.sqrt()

    def _series(self, d: Tensor) -> Tensor:
        (ky, kx), (my, mx) = self.block, self.grid.mode_shape
        return self.grid.from_modes(pad(d, (0, mx - kx, 0, my - ky)))


def _spectral_path(surrogate: Surrogate, inputs: Tensor) -> tuple[Path, FourierBasis]:
    """The predicted trajectory as the series that the output layer is."""
    if surrogate.symmetries:
        raise ValueError(
            "a flow is refined in the coefficients of one application's last layer, and this surrogate averages "
            "several; refine the one that was trained"
        )
    if spectral_in_time(surrogate.operator) is None:
        raise ValueError(
            "a flow is refined in the coefficients of a last layer that is linear and spectral in space and time; "
            "Trajectory(SpatioTemporalFNO(...)) has one, without static inputs and `repeat`; this surrogate is "
            f"{type(surrogate.operator).__name__}"
        )
    path = path_of(surrogate, inputs)
    if not isinstance(path.basis, FourierBasis):
        raise TypeError(f"expected a series in time, got {type(path.basis).__name__}")
    return path, path.basis


def _flow_modes(
    modes: Sequence[int] | None, kept: Sequence[int], basis: FourierBasis
) -> tuple[int, int, int]:
    """Modes of the series per sign; by default those of ``FlowInModes`` and twice those in time."""
    ky, kx = (kept[0] - 1) // 2, kept[1] - 1
    if modes is None:
        return ky, kx, 2 * basis.modes
    if len(modes) != 3 or modes[0] > ky or modes[1] > kx:
        raise ValueError(
            f"modes are (ky, kx, m), of which the 2/3 rule keeps {ky} and {kx} on this grid; got {tuple(modes)}"
        )
    return modes[0], modes[1], modes[2]


def _pressure_modes(modes: Sequence[int] | None, grid: Grid) -> tuple[int, int]:
    """Modes of the series; by default all that the grid has."""
    my, mx = grid.mode_shape
    if modes is None:
        return my, mx
    if len(modes) != 2 or modes[0] > my or modes[1] > mx:
        raise ValueError(
            f"modes are (ky, kx), of which this grid has {my} and {mx}; got {tuple(modes)}"
        )
    return modes[0], modes[1]
