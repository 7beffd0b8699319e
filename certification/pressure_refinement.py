"""Pressures refined by a sine series."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Inexact
from torch import Tensor
from torch.nn.functional import pad

from sobolev.certification.paths import flat_grid
from sobolev.grids import Grid
from sobolev.solvers.elliptic.fast_poisson import difference_eigenvalues
from sobolev.solvers.elliptic.stiffness import (
    Stiffness,
    check_permeability,
    check_plane_of_zeros,
)
from sobolev.solvers.inner_products import norm
from sobolev.solvers.least_squares import LeastSquares
from sobolev.surrogates import Surrogate

Residuals = Inexact[Tensor, " batch *residual"]
"""Real, ``(batch, my, mx)``: all modes of the grid."""
Coefficients = Inexact[Tensor, " batch *coefficient"]
"""Real, ``(batch, ky, kx)``: the lowest modes."""


class PressureProblem(LeastSquares):
    """‖f + ∇·(a∇u)‖_{H⁻¹} for a predicted pressure plus a sine series, on the solver's five points: the
    dual of ‖∇·‖, with its eigenvalues of −Δ."""

    inexact = 0.0

    def __init__(
        self,
        surrogate: Surrogate,
        inputs: Float[Tensor, "batch channels y x"],
        forcing: float,
        modes: Sequence[int] | None,
    ) -> None:
        self.grid = grid = flat_grid(surrogate, inputs)
        a = inputs[:, 0].double()
        check_plane_of_zeros(grid)
        check_permeability(a, grid)
        self.pressure = grid.without_border(surrogate(inputs)[:, 0].double())
        self.stiffness = Stiffness(a, grid)
        self.forcing = torch.full_like(a[:, 1:-1, 1:-1], forcing)
        self.eigenvalues = difference_eigenvalues(grid, a.device)
        self.block = _pressure_modes(modes, grid)
        self.scale = norm(self._dual(self.forcing))
        # ‖r'd‖ ≥ a_min ‖∇d‖: the residual is then within 10⁻⁶ of the least
        self.gradient = 1e-3 * self.stiffness.least_face()

    def residual(self) -> Residuals:
        return self._dual(self.forcing - self.stiffness(self.pressure[:, 1:-1, 1:-1]))

    def tangent(self, d: Coefficients) -> Residuals:
        return -self._dual(self.stiffness(self._series(d)[:, 1:-1, 1:-1]))

    def transposed(self) -> Callable[[Residuals], Coefficients]:
        ky, kx = self.block

        def apply(r: Residuals) -> Coefficients:
            field = self.grid.from_modes(r / self.eigenvalues.sqrt())[:, 1:-1, 1:-1]
            return -self.grid.to_modes(pad(self.stiffness(field), (1, 1, 1, 1)))[:, :ky, :kx]

        return apply

    def precondition(self, s: Coefficients) -> Coefficients:
        ky, kx = self.block
        return s / self.eigenvalues[:ky, :kx]

    def curvature(self, d: Coefficients) -> Residuals:
        return torch.zeros_like(self.eigenvalues).expand(len(d), -1, -1)

    def move(self, d: Coefficients) -> None:
        self.pressure = self.pressure + self._series(d)

    def prediction(self) -> Float[Tensor, "batch outputs *space"]:
        return self.pressure[:, None]

    def _dual(self, inside: Float[Tensor, "batch inner_y inner_x"]) -> Float[Tensor, "batch my mx"]:
        """Return modes of a field on the inner nodes, weighted so that their squares sum to the square of
        its H⁻¹ norm."""
        return self.grid.to_modes(pad(inside, (1, 1, 1, 1))) / self.eigenvalues.sqrt()

    def _series(self, d: Float[Tensor, "batch ky kx"]) -> Float[Tensor, "batch y x"]:
        """Return the sine series with these coefficients."""
        ky, kx = self.block
        my, mx = self.grid.mode_shape
        return self.grid.from_modes(pad(d, (0, mx - kx, 0, my - ky)))


def _pressure_modes(modes: Sequence[int] | None, grid: Grid) -> tuple[int, int]:
    """Return the modes of the series; by default all that the grid has."""
    my, mx = grid.mode_shape
    if modes is None:
        return my, mx
    if len(modes) != 2 or modes[0] > my or modes[1] > mx:
        raise ValueError(
            f"modes are (ky, kx), of which this grid has {my} and {mx}; got {tuple(modes)}"
        )
    return modes[0], modes[1]
