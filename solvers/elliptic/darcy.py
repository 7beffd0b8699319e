"""Steady flow through a porous medium (Darcy's law)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from sobolev.grids.grid import Grid
from sobolev.solvers.elliptic.conjugate_gradients import conjugate_gradients
from sobolev.solvers.elliptic.error_bounds import relative_to_solution, residual_bound
from sobolev.solvers.elliptic.fast_poisson import FastPoisson
from sobolev.solvers.elliptic.linear_solver import LinearSolver, Preconditioner
from sobolev.solvers.elliptic.right_side import (
    Flux,
    Given,
    balanced,
    lifting,
    on_nodes,
    with_inflow,
)
from sobolev.solvers.elliptic.stiffness import Stiffness, check_permeability
from sobolev.solvers.elliptic.unknowns import Unknowns
from sobolev.solvers.inner_products import dot, without_mean

_ROUGHLY = 1e-5  # relative error of a fast Poisson solve in float32, generously


class RoundingWarning(UserWarning):
    """The tolerance lies below what a float64 solution can meet at this contrast and resolution."""


@dataclass(frozen=True)
class Solution:
    """The result of ``Darcy.solution``, one entry per sample.

    ``pressure`` is ``(batch, *space)``, ``iterations`` counts those of conjugate gradients,
    ``residual`` is ‖f − A u‖ / ‖f‖ of the pressure in float64 (0 where f is 0; boundary values are part of
    this f), and ``preconditioner`` names the one that was used.
    """

    pressure: Float[Tensor, " batch *space"]
    iterations: Int[Tensor, " batch"]
    residual: Float[Tensor, " batch"]
    preconditioner: tuple[Preconditioner, ...]


@dataclass(frozen=True)
class _Problem:
    """A x = b at the unknowns, where the pressure is x plus the ``lift`` of its boundary values, if any."""

    nodes: Unknowns
    a: Float[Tensor, " batch *axes_and_space"]
    f: Float[Tensor, " batch *inner"]
    lift: Float[Tensor, " batch *space"] | None

    def lifted(self, x: Float[Tensor, " batch *inner"]) -> Float[Tensor, " batch *space"]:
        """Return the pressure on all nodes."""
        u = self.nodes.with_walls(x)
        return u if self.lift is None else u + self.lift

    def right_side(self, A: Stiffness | None = None) -> Float[Tensor, " batch *inner"]:
        if self.lift is None:
            return self.f
        return self.f - (A or Stiffness(self.a, self.nodes.grid)).of_all(self.lift)


class Darcy:
    """−∇·(a ∇u) = f in a box of one to three dimensions.

    The axes of the grid say what stands in its walls: a given pressure u on Dirichlet axes, 0 unless
    ``boundary`` says otherwise; a given flow a ∂u/∂n into the box on Neumann axes, 0 unless ``flux`` says
    otherwise; nothing on periodic ones. Each axis has walls of one kind. Without a Dirichlet axis f must
    have mean zero, and so has u.

    Second-order finite volumes on the nodes of the grid, with arithmetic means of the
    coefficient on the faces – the discretisation behind the FNO data (Li et al. 2021), without
    their detour over cell centres and splines (that is ``PublishedDarcy``). Solved by conjugate
    gradients with one of two preconditioners:

    ``"poisson"``
        a fast solve of −Δ by the modes of the grid; iterations grow with the square root of the contrast
        max a / min a of a sample (the largest of its axes) and not with the grid.
    ``"multigrid"``
        a cycle of ``Multigrid``; about ten iterations on any grid with square cells and at any
        contrast, as long as the phases are wider than a few nodes; several times that where they
        are not. Not for periodic axes.

    ``"auto"`` takes for each sample the one that its contrast and the grid make faster. Samples
    stop changing when they have converged: none depends on the others of its batch.

    ``solve`` has derivatives of any order with respect to permeability, forcing, boundary values and
    flux, each by one more solve to the same tolerance.

    Args:
        tolerance: stop at ‖f − A u‖ ≤ tolerance ‖f‖. Rounding u to float64 alone makes a residual
            of up to about 10⁻¹⁶ · contrast · nodes; where the tolerance is less than that, the
            iteration ends there and a ``RoundingWarning`` tells what was reached.
        max_iterations: more than this raise ``ArithmeticError``.
        preconditioner: ``"auto"``, ``"poisson"`` or ``"multigrid"``.

    >>> grid = Grid.dirichlet(33, 33)
    >>> Darcy().solve(torch.ones(1, 33, 33, dtype=torch.float64), grid).max().item() > 0.07
    True
    """

    def __init__(
        self,
        *,
        tolerance: float = 1e-10,
        max_iterations: int = 1000,
        preconditioner: str = "auto",
    ) -> None:
        self._solver = LinearSolver(tolerance, max_iterations, preconditioner)
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.preconditioner = preconditioner

    def solve(
        self,
        permeability: Shaped[Tensor, " ..."],
        grid: Grid,
        forcing: Given = 1.0,
        *,
        boundary: Given = 0.0,
        flux: Flux | None = None,
    ) -> Float[Tensor, " batch *space"]:
        """Return the pressure u.

        Args:
            permeability: a > 0 on the nodes, ``(batch, *space)``, or ``(batch, axes, *space)`` with a value
                for each axis.
            grid: a box, whose axes say what stands in its walls.
            forcing: f, a number or a tensor that broadcasts to ``(batch, *space)``.
            boundary: u on Dirichlet walls, likewise: a field of which only the nodes on them count.
            flux: the flow a ∂u/∂n into the box through the lower and the upper wall of Neumann axes, by
                the name of the axis: ``{"x": (1.0, -1.0)}`` for a flow along x. Numbers, or tensors that
                broadcast to ``(batch, *wall)``, without the axis.

        Returns:
            ``(batch, *space)``, computed in float64, returned in the dtype of ``permeability``.

        Raises:
            ValueError: for a coefficient that is not positive and finite, a grid that does not
                fit, or a forcing without mean zero where there is no Dirichlet wall.
            ArithmeticError: if the iteration does not converge.

        Warns:
            RoundingWarning: if float64 cannot meet the tolerance.
        """
        return self._solved(permeability, grid, forcing, boundary, flux).pressure

    def solution(
        self,
        permeability: Shaped[Tensor, " ..."],
        grid: Grid,
        forcing: Given = 1.0,
        *,
        boundary: Given = 0.0,
        flux: Flux | None = None,
    ) -> Solution:
        """Solve, and return a record of how it went."""
        return self._solved(permeability, grid, forcing, boundary, flux)

    def _solved(
        self,
        permeability: Shaped[Tensor, " ..."],
        grid: Grid,
        forcing: Given,
        boundary: Given,
        flux: Flux | None,
    ) -> Solution:
        problem = _problem(permeability, grid, forcing, boundary, flux)
        found = self._solver.solve(problem.a, problem.right_side(), grid)
        self._warn_of_rounding(found.residual)
        u = problem.lifted(found.x).to(permeability.dtype)
        return Solution(u, found.iterations, found.residual, found.preconditioner)

    def residual(
        self,
        pressure: Float[Tensor, " batch *space"],
        permeability: Float[Tensor, " batch *axes_and_space"],
        grid: Grid,
        forcing: Given = 1.0,
        *,
        boundary: Given = 0.0,
        flux: Flux | None = None,
    ) -> Float[Tensor, " batch *space"]:
        """Return f + ∇·(a ∇u) at the unknowns and ``boundary`` − u on Dirichlet walls; differentiable."""
        check_permeability(permeability, grid)
        grid.check(pressure)
        nodes = Unknowns(grid)
        f = with_inflow(on_nodes(forcing, pressure, "forcing"), flux, grid)
        lift = lifting(boundary, grid, pressure)
        x = nodes.inside(pressure)
        A = Stiffness(permeability, grid)
        left = A(x) if lift is None else A(x) + A.of_all(lift)
        missing = nodes.with_walls(nodes.inside(f) - left) - (pressure - nodes.with_walls(x))
        return missing if lift is None else missing + lift

    def energy_norm(
        self,
        u: Float[Tensor, "#batch *space"],
        permeability: Float[Tensor, " batch *axes_and_space"],
        grid: Grid,
    ) -> Float[Tensor, " batch"]:
        """Return ‖u‖_a ≈ (∫ a |∇u|²)^½, which is (uᵀA u)^½ of fields that vanish on Dirichlet walls."""
        check_permeability(permeability, grid)
        grid.check(u)
        return Stiffness(permeability, grid).energy(u).sqrt()

    def error_bound(
        self,
        pressure: Shaped[Tensor, " ..."],
        permeability: Shaped[Tensor, " ..."],
        grid: Grid,
        forcing: Given = 1.0,
        *,
        boundary: Given = 0.0,
        flux: Flux | None = None,
    ) -> Float[Tensor, " batch"]:
        """Return a guaranteed upper bound of the energy norm ‖u − p‖_a of the error.

        The error e solves A e = r with the residual r. Every flux τ on the faces whose divergence is
        −r has ‖e‖_a² ≤ Σ τ²/a, with equality for τ = a ∇e (the hypercircle of Prager & Synge 1947,
        doi:10.1090/qam/25902). Here τ = ∇ψ with −Δ_h ψ = r, which the modes of the grid solve exactly; with
        a weight for each axis where the permeability has a value for each. The bound
        exceeds the error by a factor between 1 and the square root of the contrast of the faces,
        whatever the prediction; by a few per cent for those of neural operators at contrast 4. Both
        are meant against the discrete solution u on this grid, of which the discretisation error is
        another matter. Values of ``pressure`` on Dirichlet walls are taken to be ``boundary``. In float64,
        up to rounding.

        >>> grid, a = Grid.dirichlet(17, 17), torch.ones(1, 17, 17, dtype=torch.float64)
        >>> bound = Darcy().error_bound(0 * a, a, grid)  # the error of p = 0 is u, and contrast 1 is sharp
        >>> truth = Darcy().energy_norm(Darcy().solve(a, grid), a, grid)
        >>> round((bound / truth).item(), 9)
        1.0
        """
        problem = _problem(permeability, grid, forcing, boundary, flux)
        A = Stiffness(problem.a, grid)
        x = _prediction(pressure, problem)
        return residual_bound(problem.right_side(A) - A(x), A)

    @torch.no_grad()
    def improved(
        self,
        pressure: Shaped[Tensor, " ..."],
        permeability: Shaped[Tensor, " ..."],
        grid: Grid,
        forcing: Given = 1.0,
        *,
        boundary: Given = 0.0,
        flux: Flux | None = None,
        tolerance: float = 1e-3,
    ) -> tuple[Float[Tensor, " batch *space"], Int[Tensor, " batch"]]:
        """Return an approximate pressure made good to a guaranteed ‖u − p‖_a ≤ tolerance · ‖u‖_a.

        Conjugate gradients with the fast Poisson solve start from ``pressure`` and stop at a bound
        that costs nothing there, ‖e‖_a² ≤ rᵀ(−Δ_h)⁻¹r / a₀ with the least coefficient a₀ of a face:
        the H⁻¹ norm of the residual is what they compute anyway. A prediction that is good enough
        comes back as it is (its values on Dirichlet walls set to ``boundary``, its mean to 0 where
        there are none).

        Returns:
            The pressure ``(batch, *space)`` in float64, since rounding it to float32 may break the
            guarantee, and the iterations that each sample took, ``(batch,)``.

        Raises:
            ValueError: for a tolerance that is not between 0 and 1, fields that do not go together
                or are not finite.
            ArithmeticError: if the tolerance is not met within ``max_iterations``, or is out of
                reach of float64.
        """
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, got {tolerance}")
        problem = _problem(permeability, grid, forcing, boundary, flux)
        A = Stiffness(problem.a, grid)
        start = _prediction(pressure, problem)
        b = problem.right_side(A)
        least = A.least_face() * (1 - _ROUGHLY)  # the fast Poisson solve works in float32
        # ‖x + w‖² of the lift w is x·(A x + 2 A w) + ‖w‖², and A x is b − r
        doubled = b
        own: float | Float[Tensor, " batch"] = 0.0
        if problem.lift is not None:
            doubled = 2 * problem.f - b
            own = A.energy(problem.lift) / A.nodes.cell

        def relative_bound(
            x: Float[Tensor, " batch *space"],
            r: Float[Tensor, " batch *space"],
            rz: Float[Tensor, " batch"],
        ) -> Float[Tensor, " batch"]:
            bound = (rz / least).sqrt()  # rᵀ(−Δ_h)⁻¹r / a₀, not below error_bound
            return relative_to_solution(bound, (dot(start + x, doubled - r) + own).sqrt())

        iterations = torch.zeros(len(b), dtype=torch.int64, device=b.device)
        x = conjugate_gradients(
            A,
            b - A(start),
            FastPoisson(grid, b.device, A.weights),
            b.new_full((len(b),), tolerance),
            iterations,
            most=self.max_iterations,
            measure=relative_bound,
        )
        found = start + x
        bound = residual_bound(b - A(found), A)
        pressures = problem.lifted(found)
        missed = relative_to_solution(bound, A.energy(pressures).sqrt())
        if bool((missed > tolerance).any()):
            raise ArithmeticError(
                f"after {int(iterations.max())} of {self.max_iterations} iterations the pressures are guaranteed "
                f"within {float(missed.max()):.1e} in energy, not {tolerance:.1e}; raise max_iterations, or the "
                "tolerance where float64 cannot meet it"
            )
        return pressures, iterations

    def _warn_of_rounding(self, residual: Float[Tensor, " batch"]) -> None:
        missed = residual > self.tolerance
        if bool(missed.any()):
            warnings.warn(
                f"{int(missed.sum())} of {len(missed)} pressures are exact to rounding, which leaves a relative "
                f"residual of up to {float(residual.max()):.1e}: the tolerance of {self.tolerance:.1e} is out of "
                "reach of float64 at this contrast and resolution; a larger one ends sooner",
                RoundingWarning,
                stacklevel=4,
            )


def _problem(
    permeability: Shaped[Tensor, " ..."],
    grid: Grid,
    forcing: Given,
    boundary: Given,
    flux: Flux | None,
) -> _Problem:
    """Return what is to be solved, in float64, checked."""
    check_permeability(permeability, grid)
    a = permeability.double()
    nodes = Unknowns(grid)
    like = a if a.ndim == grid.ndim + 1 else a[:, 0]
    f = nodes.inside(with_inflow(on_nodes(forcing, like, "forcing"), flux, grid))
    lift = lifting(boundary, grid, like)
    for name, field in (("forcing", f), ("boundary", lift)):
        if field is not None and not bool(field.isfinite().all()):
            raise ValueError(f"the {name} holds values that are not finite")
    return _Problem(nodes, a, balanced(f) if nodes.closed else f, lift)


def _prediction(
    pressure: Shaped[Tensor, " ..."], problem: _Problem
) -> Float[Tensor, " batch *inner"]:
    """Return a predicted pressure at the unknowns, in float64, checked."""
    nodes = problem.nodes
    if pressure.shape != (len(problem.a), *nodes.grid.shape):
        raise ValueError(
            f"pressure {tuple(pressure.shape)} and permeability {tuple(problem.a.shape)} differ in shape"
        )
    x = nodes.inside(pressure).double()
    if not bool(x.isfinite().all()):
        raise ValueError("the pressure holds values that are not finite")
    return without_mean(x) if nodes.closed else x
