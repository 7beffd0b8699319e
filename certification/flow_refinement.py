"""Trajectories of a flow, refined in the coefficients of the output layer's series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from sobolev.certification.paths import (
    Path,
    centred,
    flat_grid,
    flow_of,
    latest,
    path_of,
    spectral_in_time,
)
from sobolev.certification.time_bases import FourierBasis, combined
from sobolev.datasets.recipes.base import Recipe
from sobolev.solvers.least_squares import LeastSquares
from sobolev.surrogates import Surrogate

Inputs = Float[Tensor, "batch channels y x"]
"""Given frames, in physical units."""
Residuals = Inexact[Tensor, " batch *residual"]
"""Complex, ``(batch, node, ky, kx)``: at the nodes in time, the last of which is the initial condition."""
Coefficients = Inexact[Tensor, " batch *coefficient"]
"""Complex, ``(batch, function, ky, kx)``: of the functions of time."""

_INDEPENDENT = 1e-10  # functions of time count from this share of the largest singular value on


class FlowProblem(LeastSquares):
    """η of ``residual_norm`` for a predicted trajectory plus a series in space and time.

    Computed in the modes that the 2/3 rule keeps, at the nodes of a Gauss quadrature in time, to which
    the initial condition is appended as one more.
    """

    gradient = 0.05
    inexact = 0.03

    def __init__(
        self,
        surrogate: Surrogate,
        inputs: Inputs,
        modes: Sequence[int] | None,
        recipes: Sequence[type[Recipe]] = (),
    ) -> None:
        equation = flow_of(surrogate, recipes)
        grid = flat_grid(surrogate, inputs)
        given = latest(inputs)
        path, own = _spectral_path(surrogate, inputs, recipes)
        self.viscosity = equation.viscosity
        self.flow = flow = equation.in_modes(grid, centred(given))
        ky, kx, m = _flow_modes(modes, flow.eigenvalues.shape, own)
        times, weights = replace(own, modes=max(m, own.modes)).quadrature(given.device)
        horizon = surrogate.meaning.in_time.horizon
        frames = torch.arange(1, horizon + 1, dtype=torch.float64, device=given.device)
        frames = own.duration / horizon * frames
        self._functions(replace(own, modes=m), times, weights, frames)

        self.v = flow.transform(path.at(times))
        self.rate = flow.transform(path.rate(times))
        self.missed_start = flow.transform(path.start() - given)[:, None]
        self.frames = flow.transform(path.at(frames))
        self.z = flow.velocity(self.v)
        dual = flow.multiplicity / ((1 + flow.eigenvalues) * self.viscosity)
        self.weight = torch.cat([weights[:, None, None] * dual, flow.multiplicity[None]]).sqrt()
        squares = (self.v.abs().square() * flow.multiplicity).sum((2, 3))
        self.scale = (squares @ weights / own.duration).sqrt()
        row, column = flow.eigenvalues.shape
        low = (torch.arange(row, device=given.device) - row // 2).abs()[:, None] <= ky
        low = low & (torch.arange(column, device=given.device) <= kx)
        self.live = low & (flow.multiplicity > 0)
        self._preconditioner(weights)

    def residual(self) -> Residuals:
        missed = self.flow.residual(self.v, self.rate, self.z)
        return torch.cat([missed, self.missed_start], dim=1) * self.weight

    def tangent(self, d: Coefficients) -> Residuals:
        v = combined(self.values, d)
        rate = combined(self.rates, d)
        missed = self.flow.tangent(v, rate, self.z)
        return torch.cat([missed, combined(self.start, d)], dim=1) * self.weight

    def transposed(self) -> Callable[[Residuals], Coefficients]:
        """Return the adjoint of ``tangent`` by automatic differentiation.

        ``tangent`` is linear, so that one graph serves for all.
        """
        shape = (len(self.v), self.values.shape[1], *self.v.shape[2:])
        with torch.enable_grad():
            d = self.v.new_zeros(shape).requires_grad_()
            image = self.tangent(d)

        def apply(r: Residuals) -> Coefficients:
            return torch.autograd.grad(image, d, r, retain_graph=True)[0] * self.live

        return apply

    def precondition(self, s: Coefficients) -> Coefficients:
        """Return Q (D + sweeping)⁻¹ Qᵀ s; for each wavenumber this is a matrix over the functions of time."""
        batch, count = s.shape[:2]
        columns = torch.view_as_real(s).movedim((2, 3), (0, 1)).flatten(0, 1)  # (k, batch, J, 2)
        columns = columns.movedim(1, 2).reshape(-1, count, 2 * batch)
        turned = (self.turn.mT @ columns).unflatten(2, (batch, 2)) / self.diagonal
        back = (self.turn @ turned.flatten(2)).unflatten(2, (batch, 2))
        result = back.movedim(2, 1).unflatten(0, s.shape[2:]).movedim((0, 1), (2, 3))
        return torch.view_as_complex(result.contiguous())

    def curvature(self, d: Coefficients) -> Residuals:
        second = self.flow.advection(combined(self.values, d))
        return torch.cat([second, torch.zeros_like(second[:, :1])], dim=1) * self.weight

    def move(self, d: Coefficients) -> None:
        step = combined(self.values, d)
        self.v = self.v + step
        self.z = self.z + self.flow.velocity(step)
        self.rate = self.rate + combined(self.rates, d)
        self.missed_start = self.missed_start + combined(self.start, d)
        self.frames = self.frames + combined(self.at_frames, d)

    def prediction(self) -> Float[Tensor, "batch outputs *space"]:
        return self.flow.inverse(self.flow.completed(self.frames))

    def _functions(
        self,
        basis: FourierBasis,
        times: Float[Tensor, " time"],
        weights: Float[Tensor, " time"],
        frames: Float[Tensor, " frame"],
    ) -> None:
        """Set ``values``, ``rates``, ``start`` and ``at_frames``, ``(time, function)`` each, of
        combinations of the functions of time that are orthonormal in L²(0, T)."""
        raw = basis.values(times)
        _, size, right = torch.linalg.svd(weights.sqrt()[:, None] * raw, full_matrices=False)
        mixture = (right.T / size)[:, size > _INDEPENDENT * size[0]]
        self.values = raw @ mixture
        self.rates = basis.rates(times) @ mixture
        self.start = basis.values(torch.zeros_like(times[:1])) @ mixture
        self.at_frames = basis.values(frames) @ mixture

    def _preconditioner(self, weights: Float[Tensor, " time"]) -> None:
        """Set ``diagonal`` and ``turn``, D + sweeping and Q: the part of r'ᵀr' that is diagonal in space.

        It is the heat equation's, and for each sample ½⟨|u|²⟩k², the mean over directions of
        (u·∇)*(u·∇).
        """
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


def _spectral_path(
    surrogate: Surrogate, inputs: Inputs, recipes: Sequence[type[Recipe]]
) -> tuple[Path, FourierBasis]:
    """Return the predicted trajectory as the series that the output layer is, and its functions of
    time."""
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
    path = path_of(surrogate, inputs, recipes)
    if not isinstance(path.basis, FourierBasis):
        raise TypeError(f"expected a series in time, got {type(path.basis).__name__}")
    return path, path.basis


def _flow_modes(
    modes: Sequence[int] | None, kept: Sequence[int], basis: FourierBasis
) -> tuple[int, int, int]:
    """Return the modes of the series per sign; by default those of ``FlowInModes``, and twice those in
    time."""
    ky = (kept[0] - 1) // 2
    kx = kept[1] - 1
    if modes is None:
        return ky, kx, 2 * basis.modes
    if len(modes) != 3 or modes[0] > ky or modes[1] > kx:
        raise ValueError(
            f"modes are (ky, kx, m), of which the 2/3 rule keeps {ky} and {kx} on this grid; got {tuple(modes)}"
        )
    return modes[0], modes[1], modes[2]
