"""Steady flow through a porous medium (Darcy's law)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import pad

from sobolev.grids.grid import Grid
from sobolev.solvers.elliptic.conjugate_gradients import conjugate_gradients
from sobolev.solvers.elliptic.error_bounds import (
    energy_norm,
    relative_to_solution,
    residual_bound,
)
from sobolev.solvers.elliptic.fast_poisson import FastPoisson
from sobolev.solvers.elliptic.multigrid import Multigrid
from sobolev.solvers.elliptic.stiffness import Stiffness, check_permeability
from sobolev.solvers.inner_products import dot, norm

Preconditioner = Literal["poisson", "multigrid"]
# Multigrid is faster from this contrast on, or from this many nodes · contrast where there are few
# nodes: small grids favour the few large operations of a fast Poisson solve (benchmarks/multigrid.py)
_AUTO_CONTRAST = 2.5
_AUTO_NODES = 2e5
_CACHED_NODES = 2**18  # so many nodes are solved for together on a CPU, to stay in its cache
_RESTARTS = 3
_ROUGHLY = 1e-5  # relative error of a fast Poisson solve in float32, generously
_ROUNDING = 4.0  # residuals up to so many times that of rounding the solution are its own


class RoundingWarning(UserWarning):
    """The tolerance lies below what a float64 solution can meet at this contrast and resolution."""


@dataclass(frozen=True)
class Solution:
    """The result of ``Darcy.solution``, one entry per sample.

    ``pressure`` is ``(batch, y, x)``, ``iterations`` counts those of conjugate gradients,
    ``residual`` is ‖f − A u‖ / ‖f‖ of the pressure in float64 (0 where f is 0), and
    ``preconditioner`` names the one that was used.
    """

    pressure: Float[Tensor, "batch y x"]
    iterations: Int[Tensor, " batch"]
    residual: Float[Tensor, " batch"]
    preconditioner: tuple[Preconditioner, ...]


class Darcy:
    """−∇·(a ∇u) = f in a rectangle, u = 0 on its border.

    Second-order finite volumes on the nodes of a Dirichlet grid, with arithmetic means of the
    coefficient on the faces – the discretisation behind the FNO data (Li et al. 2021), without
    their detour over cell centres and splines (that is ``PublishedDarcy``). Solved by conjugate
    gradients with one of two preconditioners:

    ``"poisson"``
        a fast sine-transform solve of −Δ; iterations grow with the square root of the contrast
        max a / min a of a sample and not with the grid.
    ``"multigrid"``
        a cycle of ``Multigrid``; about ten iterations on any grid with square cells and at any
        contrast, as long as the phases are wider than a few nodes; several times that where they
        are not.

    ``"auto"`` takes for each sample the one that its contrast and the grid make faster. Samples
    stop changing when they have converged: none depends on the others of its batch.

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
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, got {tolerance}")
        if preconditioner not in ("auto", "poisson", "multigrid"):
            raise ValueError(
                f"preconditioner must be 'auto', 'poisson' or 'multigrid', got {preconditioner!r}"
            )
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.preconditioner = preconditioner

    def solve(
        self,
        permeability: Shaped[Tensor, " ..."],
        grid: Grid,
        forcing: float | Shaped[Tensor, " ..."] = 1.0,
    ) -> Float[Tensor, "batch y x"]:
        """Return the pressure u.

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

        Warns:
            RoundingWarning: if float64 cannot meet the tolerance.
        """
        return self._solved(permeability, grid, forcing).pressure

    def solution(
        self,
        permeability: Shaped[Tensor, " ..."],
        grid: Grid,
        forcing: float | Shaped[Tensor, " ..."] = 1.0,
    ) -> Solution:
        """Solve, and return a record of how it went."""
        return self._solved(permeability, grid, forcing)

    @torch.no_grad()
    def _solved(
        self,
        permeability: Shaped[Tensor, " ..."],
        grid: Grid,
        forcing: float | Shaped[Tensor, " ..."],
    ) -> Solution:
        check_permeability(permeability, grid)
        a = permeability.double()
        f = _forcing(forcing, a)
        if not bool(f.isfinite().all()):
            raise ValueError("the forcing holds values that are not finite")
        chosen = self._choose(a, grid)
        u = torch.zeros_like(a)
        iterations = torch.zeros(len(a), dtype=torch.int64, device=a.device)
        residual = a.new_zeros(len(a))
        for kind in sorted(set(chosen)):
            members = [i for i, name in enumerate(chosen) if name == kind]
            for part in _parts(members, a):
                found = self._solve_together(kind, a[part], f[part, 1:-1, 1:-1], grid)
                u[part, 1:-1, 1:-1], iterations[part], residual[part] = found
        self._warn_of_rounding(residual)
        return Solution(u.to(permeability.dtype), iterations, residual, chosen)

    def residual(
        self,
        pressure: Float[Tensor, "batch y x"],
        permeability: Float[Tensor, "batch y x"],
        grid: Grid,
        forcing: float | Shaped[Tensor, " ..."] = 1.0,
    ) -> Float[Tensor, "batch y x"]:
        """Return f + ∇·(a ∇u) on the inner nodes and −u on the border; differentiable."""
        check_permeability(permeability, grid)
        grid.check(pressure)
        f = _forcing(forcing, pressure)
        left = Stiffness(permeability, grid)(pressure[:, 1:-1, 1:-1])
        inside = pad(f[:, 1:-1, 1:-1] - left, (1, 1, 1, 1))
        return inside - (pressure - grid.without_border(pressure))

    def energy_norm(
        self, u: Float[Tensor, "#batch y x"], permeability: Float[Tensor, "batch y x"], grid: Grid
    ) -> Float[Tensor, " batch"]:
        """Return ‖u‖_a = (uᵀA u)^½ ≈ (∫ a |∇u|²)^½ of fields that vanish on the border."""
        check_permeability(permeability, grid)
        grid.check(u)
        return energy_norm(u, Stiffness(permeability, grid), grid)

    def error_bound(
        self,
        pressure: Shaped[Tensor, " ..."],
        permeability: Shaped[Tensor, " ..."],
        grid: Grid,
        forcing: float | Shaped[Tensor, " ..."] = 1.0,
    ) -> Float[Tensor, " batch"]:
        """Return a guaranteed upper bound of the energy norm ‖u − p‖_a of the error.

        The error e solves A e = r with the residual r. Every flux τ on the faces whose divergence is
        −r has ‖e‖_a² ≤ Σ τ²/a, with equality for τ = a ∇e (the hypercircle of Prager & Synge 1947,
        doi:10.1090/qam/25902). Here τ = ∇ψ with −Δ_h ψ = r, which sines solve exactly. The bound
        exceeds the error by a factor between 1 and the square root of the contrast of the faces,
        whatever the prediction; by a few per cent for those of neural operators at contrast 4. Both
        are meant against the discrete solution u on this grid, of which the discretisation error is
        another matter. Border values of ``pressure`` are taken to be 0. In float64, up to rounding.

        >>> grid, a = Grid.dirichlet(17, 17), torch.ones(1, 17, 17, dtype=torch.float64)
        >>> bound = Darcy().error_bound(0 * a, a, grid)  # the error of p = 0 is u, and contrast 1 is sharp
        >>> truth = Darcy().energy_norm(Darcy().solve(a, grid), a, grid)
        >>> round((bound / truth).item(), 9)
        1.0
        """
        p, a, f = self._prediction(pressure, permeability, grid, forcing)
        return residual_bound(self.residual(p, a, grid, f), Stiffness(a, grid), grid)

    @torch.no_grad()
    def improved(
        self,
        pressure: Shaped[Tensor, " ..."],
        permeability: Shaped[Tensor, " ..."],
        grid: Grid,
        forcing: float | Shaped[Tensor, " ..."] = 1.0,
        *,
        tolerance: float = 1e-3,
    ) -> tuple[Float[Tensor, "batch y x"], Int[Tensor, " batch"]]:
        """Return an approximate pressure made good to a guaranteed ‖u − p‖_a ≤ tolerance · ‖u‖_a.

        Conjugate gradients with the fast Poisson solve start from ``pressure`` and stop at a bound
        that costs nothing there, ‖e‖_a² ≤ rᵀ(−Δ_h)⁻¹r / a₀ with the least coefficient a₀ of a face:
        the H⁻¹ norm of the residual is what they compute anyway. A prediction that is good enough
        comes back as it is (its border set to 0).

        Returns:
            The pressure ``(batch, y, x)`` in float64, since rounding it to float32 may break the
            guarantee, and the iterations that each sample took, ``(batch,)``.

        Raises:
            ValueError: for a tolerance that is not between 0 and 1, fields that do not go together
                or are not finite.
            ArithmeticError: if the tolerance is not met within ``max_iterations``, or is out of
                reach of float64.
        """
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, got {tolerance}")
        start, a, f = self._prediction(pressure, permeability, grid, forcing)
        b, u = (t[:, 1:-1, 1:-1] for t in (f, start))
        A = Stiffness(a, grid)
        least = A.least_face() * (1 - _ROUGHLY)  # the fast Poisson solve works in float32

        def relative_bound(
            x: Float[Tensor, "batch y x"],
            r: Float[Tensor, "batch y x"],
            rz: Float[Tensor, " batch"],
        ) -> Float[Tensor, " batch"]:
            bound = (rz / least).sqrt()  # rᵀ(−Δ_h)⁻¹r / a₀, not below error_bound
            return relative_to_solution(bound, dot(u + x, b - r).sqrt())

        iterations = torch.zeros(len(a), dtype=torch.int64, device=a.device)
        x = conjugate_gradients(
            A,
            b - A(u),
            FastPoisson(grid, a.device),
            a.new_full((len(a),), tolerance),
            iterations,
            most=self.max_iterations,
            measure=relative_bound,
        )
        found = pad(u + x, (1, 1, 1, 1))
        bound = self.error_bound(found, a, grid, f)
        missed = relative_to_solution(bound, self.energy_norm(found, a, grid))
        if bool((missed > tolerance).any()):
            raise ArithmeticError(
                f"after {int(iterations.max())} of {self.max_iterations} iterations the pressures are guaranteed "
                f"within {float(missed.max()):.1e} in energy, not {tolerance:.1e}; raise max_iterations, or the "
                "tolerance where float64 cannot meet it"
            )
        return found, iterations

    def _prediction(
        self,
        pressure: Shaped[Tensor, " ..."],
        permeability: Shaped[Tensor, " ..."],
        grid: Grid,
        forcing: float | Shaped[Tensor, " ..."],
    ) -> tuple[Float[Tensor, "batch y x"], Float[Tensor, "batch y x"], Float[Tensor, "batch y x"]]:
        """Return pressure without its border, permeability and forcing in float64, checked."""
        check_permeability(permeability, grid)
        if pressure.shape != permeability.shape:
            raise ValueError(
                f"pressure {tuple(pressure.shape)} and permeability {tuple(permeability.shape)} differ in shape"
            )
        a = permeability.double()
        p = grid.without_border(pressure).double()
        f = _forcing(forcing, a)
        for name, field in (("pressure", p), ("forcing", f)):
            if not bool(field.isfinite().all()):
                raise ValueError(f"the {name} holds values that are not finite")
        return p, a, f

    def _choose(self, a: Float[Tensor, "batch y x"], grid: Grid) -> tuple[Preconditioner, ...]:
        """Return the preconditioner for each sample by itself, so that its solution does not depend on the batch."""
        if self.preconditioner == "auto":
            short, long = sorted(axis.spacing for axis in grid.axes)
            least = max(_AUTO_CONTRAST, _AUTO_NODES / a[0].numel())
            high = _contrast(a) > least * (long / short) ** 2  # flat cells slow multigrid down
            return tuple("multigrid" if h else "poisson" for h in high.tolist())
        return ("multigrid" if self.preconditioner == "multigrid" else "poisson",) * len(a)

    def _solve_together(
        self,
        kind: Preconditioner,
        a: Float[Tensor, "batch y x"],
        b: Float[Tensor, "batch inner_y inner_x"],
        grid: Grid,
    ) -> tuple[
        Float[Tensor, "batch inner_y inner_x"], Int[Tensor, " batch"], Float[Tensor, " batch"]
    ]:
        """Return inner pressures, iterations and relative residuals.

        The residual that conjugate gradients carry along drifts from f − A u by rounding: they are
        restarted from the true one until that meets the tolerance or is rounding itself.
        """
        precondition: Callable[[Float[Tensor, "batch y x"]], Float[Tensor, "batch y x"]]
        if kind == "multigrid":
            precondition = Multigrid(a, grid)
            A = precondition.stiffness
        else:
            precondition = FastPoisson(grid, a.device)
            A = Stiffness(a, grid)
        scale = norm(b)
        u = torch.zeros_like(b)
        r = b.clone()
        iterations = torch.zeros(len(b), dtype=torch.int64, device=b.device)
        for _ in range(_RESTARTS):
            target = self.tolerance * scale
            u += conjugate_gradients(
                A, r, precondition, target, iterations, most=self.max_iterations
            )
            r = b - A(u)
            left = norm(r)
            done = (left <= self.tolerance * scale) | (left <= _ROUNDING * norm(A.rounding(u)))
            if bool(done.all()):
                return u, iterations, torch.where(scale > 0, left / scale, 0.0)
            r[done] = 0
        worst = float((left / scale)[~done].max())
        contrast = float(_contrast(a)[~done].max())
        remedy = "raise max_iterations" + ", or use the multigrid" * (kind == "poisson")
        raise ArithmeticError(
            f"Darcy did not converge: {kind} preconditioning left {int((~done).sum())} of {len(a)} fields at a "
            f"relative residual of up to {worst:.1e} after {int(iterations.max())} of {self.max_iterations} iterations "
            f"(wanted {self.tolerance:.1e}); the contrast of the permeability is {contrast:.1e}: {remedy}"
        )

    def _warn_of_rounding(self, residual: Float[Tensor, " batch"]) -> None:
        missed = residual > self.tolerance
        if bool(missed.any()):
            warnings.warn(
                f"{int(missed.sum())} of {len(missed)} pressures are exact to rounding, which leaves a relative "
                f"residual of up to {float(residual.max()):.1e}: the tolerance of {self.tolerance:.1e} is out of "
                "reach of float64 at this contrast and resolution; a larger one ends sooner",
                RoundingWarning,
                stacklevel=5,
            )


def _contrast(a: Float[Tensor, "batch y x"]) -> Float[Tensor, " batch"]:
    return a.amax(dim=(1, 2)) / a.amin(dim=(1, 2))


def _parts(members: list[int], a: Float[Tensor, "batch y x"]) -> list[list[int]]:
    """Return the samples that are solved for together: all on a GPU, a cache full on a CPU."""
    size = max(1, _CACHED_NODES // a[0].numel()) if a.device.type == "cpu" else len(members)
    return [members[i : i + size] for i in range(0, len(members), size)]


def _forcing(
    forcing: float | Shaped[Tensor, " ..."], like: Float[Tensor, "batch y x"]
) -> Float[Tensor, "batch y x"]:
    """Return the forcing on every node of every sample."""
    f = torch.as_tensor(forcing, dtype=like.dtype, device=like.device)
    try:
        return f.expand(like.shape)
    except RuntimeError:
        raise ValueError(
            f"the forcing of shape {tuple(f.shape)} does not broadcast to the fields' {tuple(like.shape)}"
        ) from None
