"""Steady flow through a porous medium (Darcy's law)."""

from __future__ import annotations

import torch
from torch import Tensor

from sobolev.solvers.grids import Grid


class Darcy:
    """−∇·(a ∇u) = f in a rectangle, u = 0 on its border.

    Second-order finite volumes on the nodes of a Dirichlet grid, with arithmetic means of the
    coefficient on the faces – the discretisation behind the FNO data (Li et al. 2021), without
    their detour over cell centres and splines. Solved by conjugate gradients, preconditioned by a
    fast sine-transform solve of −Δ: the number of iterations grows with the square root of the
    contrast of ``a`` and not with the grid. All samples of a batch iterate together; each stops
    changing when it has converged, so that its solution does not depend on the others.

    Args:
        tolerance: stop at ‖f − A u‖ ≤ tolerance ‖f‖.
        max_iterations: more than this raise ``ArithmeticError``.

    >>> grid = Grid.dirichlet(33, 33)
    >>> Darcy().solve(torch.ones(1, 33, 33, dtype=torch.float64), grid).max().item() > 0.07
    True
    """

    def __init__(self, *, tolerance: float = 1e-10, max_iterations: int = 1000) -> None:
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, got {tolerance}")
        self.tolerance, self.max_iterations = tolerance, max_iterations

    @torch.no_grad()
    def solve(self, permeability: Tensor, grid: Grid, forcing: float | Tensor = 1.0) -> Tensor:
        """The pressure u.

        Args:
            permeability: a > 0 on the nodes, ``(batch, y, x)``.
            grid: two Dirichlet axes.
            forcing: f, a number or a tensor that broadcasts to ``(batch, y, x)``.

        Returns:
            ``(batch, y, x)``, zero on the border; computed in float64, returned in the dtype of
            ``permeability``.

        Raises:
            ValueError: for a coefficient that is not positive and finite, or a grid that does not
                fit.
            ArithmeticError: if the iteration does not converge.
        """
        self._check(permeability, grid)
        a = permeability.double()
        f = _forcing(forcing, a)
        if not bool(f.isfinite().all()):
            raise ValueError("the forcing holds values that are not finite")
        stiffness = _Stiffness(a, grid)
        inside = self._conjugate_gradients(
            stiffness, f[:, 1:-1, 1:-1], _FastPoisson(grid, a.device)
        )
        return torch.nn.functional.pad(inside, (1, 1, 1, 1)).to(permeability.dtype)

    def residual(
        self, pressure: Tensor, permeability: Tensor, grid: Grid, forcing: float | Tensor = 1.0
    ) -> Tensor:
        """f + ∇·(a ∇u) on the inner nodes and −u on the border, ``(batch, y, x)``;
        differentiable."""
        self._check(permeability, grid)
        grid.check(pressure)
        f = _forcing(forcing, pressure)
        left = _Stiffness(permeability, grid)(pressure[:, 1:-1, 1:-1])
        inside = torch.nn.functional.pad(f[:, 1:-1, 1:-1] - left, (1, 1, 1, 1))
        return inside - (pressure - grid.without_border(pressure))

    def _conjugate_gradients(self, A: _Stiffness, b: Tensor, precondition: _FastPoisson) -> Tensor:
        """Preconditioned conjugate gradients for a batch of systems (Saad 2003, algorithm 9.1)."""
        x, r = torch.zeros_like(b), b.clone()
        target = self.tolerance * b.flatten(1).norm(dim=1)
        z = precondition(r)
        p, rz = z.clone(), _dot(r, z)
        for iteration in range(self.max_iterations + 1):
            active = r.flatten(1).norm(dim=1) > target
            if not bool(active.any()):
                return x
            if iteration == self.max_iterations:
                break
            Ap = A(p)
            step = torch.where(active, rz / _dot(p, Ap), 0.0)[:, None, None]
            x += step * p
            r -= step * Ap
            z = precondition(r)
            rz, previous = _dot(r, z), rz
            p = z + torch.where(active, rz / previous, 0.0)[:, None, None] * p
        worst = float((r.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).max())
        raise ArithmeticError(
            f"Darcy did not converge in {self.max_iterations} iterations (relative residual {worst:.1e}, wanted "
            f"{self.tolerance:.1e}); the contrast of the permeability is {A.contrast:.1e}: raise max_iterations"
        )

    @staticmethod
    def _check(permeability: Tensor, grid: Grid) -> None:
        if grid.ndim != 2 or any(axis.boundary != "dirichlet" for axis in grid.axes):
            raise ValueError(
                f"Darcy is solved on two Dirichlet axes (Grid.dirichlet(ny, nx)), got {grid}"
            )
        grid.check(permeability)
        if permeability.ndim != 3 or not len(permeability):
            raise ValueError(
                f"expected permeabilities of shape (batch, y, x), got {tuple(permeability.shape)}"
            )
        good = permeability.isfinite().all() & (permeability > 0).all()
        if not bool(good):
            bad = ~(permeability.isfinite() & (permeability > 0)).flatten(1).all(dim=1)
            first = int(bad.nonzero()[0, 0])
            raise ValueError(
                f"the permeability must be positive and finite; {int(bad.sum())} of {len(bad)} fields are not, the "
                f"first is number {first} (least value {float(permeability[first].min()):.3g})"
            )


class _Stiffness:
    """The five-point matrix of −∇·(a ∇·) on the inner nodes, as an action on ``(batch, y, x)``."""

    def __init__(self, a: Tensor, grid: Grid) -> None:
        hy, hx = (axis.spacing for axis in grid.axes)
        self.north_south = (a[:, 1:, 1:-1] + a[:, :-1, 1:-1]) / (2 * hy**2)
        self.west_east = (a[:, 1:-1, 1:] + a[:, 1:-1, :-1]) / (2 * hx**2)
        self.diagonal = (
            self.north_south[:, 1:]
            + self.north_south[:, :-1]
            + self.west_east[..., 1:]
            + self.west_east[..., :-1]
        )
        self.a = a

    @property
    def contrast(self) -> float:
        return float((self.a.amax() / self.a.amin()).detach())

    def __call__(self, u: Tensor) -> Tensor:
        y = self.diagonal * u
        y[:, 1:] -= self.north_south[:, 1:-1] * u[:, :-1]
        y[:, :-1] -= self.north_south[:, 1:-1] * u[:, 1:]
        y[..., 1:] -= self.west_east[..., 1:-1] * u[..., :-1]
        y[..., :-1] -= self.west_east[..., 1:-1] * u[..., 1:]
        return y


class _FastPoisson:
    """(−Δ)⁻¹ on the inner nodes: sines diagonalise the five-point matrix, with eigenvalues (2
    sin(kh/2)/h)².

    The sine transforms are matrix products in float32, cheaper at 421² than FFTs of odd extensions
    in float64 (``benchmarks/darcy_solver.py`` times both). Conjugate gradients ask of a
    preconditioner that it be symmetric and fixed, not that it be precise.
    """

    def __init__(self, grid: Grid, device: torch.device) -> None:
        self.sines, squares = [], []
        for axis in grid.axes:
            values = axis.basis(axis.points(device))[:, 1:-1] * axis.spacing**0.5
            self.sines.append(values.float())
            squares.append(
                (2 / axis.spacing * (axis.wavenumbers(device) * axis.spacing / 2).sin()).square()
            )
        self.eigenvalues = (squares[0][:, None] + squares[1]).float()

    def __call__(self, f: Tensor) -> Tensor:
        Sy, Sx = self.sines
        # scaled, so that small residuals stay within float32's range; a residual of zero stays zero
        scale = f.abs().amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(f.dtype).tiny)
        modes = Sy @ (f / scale).float() @ Sx / self.eigenvalues
        return (Sy @ modes @ Sx).double() * scale


def _dot(u: Tensor, v: Tensor) -> Tensor:
    return (u * v).flatten(1).sum(dim=1)


def _forcing(forcing: float | Tensor, like: Tensor) -> Tensor:
    f = torch.as_tensor(forcing, dtype=like.dtype, device=like.device)
    try:
        return f.expand(like.shape)
    except RuntimeError:
        raise ValueError(
            f"the forcing of shape {tuple(f.shape)} does not broadcast to the fields' {tuple(like.shape)}"
        ) from None
