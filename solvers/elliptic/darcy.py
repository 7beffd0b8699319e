"""Steady flow through a porous medium (Darcy's law)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from sobolev.grids.grid import Grid
from sobolev.solvers.elliptic.fast_poisson import FastPoisson, five_point_eigenvalues
from sobolev.solvers.elliptic.multigrid import Multigrid
from sobolev.solvers.elliptic.stiffness import Stiffness, check_permeability
from sobolev.solvers.inner_products import dot, norm

Preconditioner = Literal["poisson", "multigrid"]
# Multigrid is faster from this contrast on, or from this many nodes · contrast where there are few
# nodes: small grids favour the few large operations of a fast Poisson solve (benchmarks/multigrid.py)
_AUTO_CONTRAST, _AUTO_NODES = 2.5, 2e5
_CACHED_NODES = 2**18  # so many nodes are solved for together on a CPU, to stay in its cache
_PATIENCE = 200  # iterations without a new least residual
_RESTARTS = 3
_ROUGHLY = 1e-5  # relative error of a fast Poisson solve in float32, generously
_ROUNDING = 4.0  # residuals up to so many times that of rounding the solution are its own


class RoundingWarning(UserWarning):
    """The tolerance lies below what a float64 solution can meet at this contrast and resolution."""


@dataclass(frozen=True)
class Solution:
    """What ``Darcy.solution`` found, one entry per sample.

    ``pressure`` is ``(batch, y, x)``, ``iterations`` counts those of conjugate gradients,
    ``residual`` is ‖f − A u‖ / ‖f‖ of the pressure in float64 (0 where f is 0), and
    ``preconditioner`` names what was used.
    """

    pressure: Tensor
    iterations: Tensor
    residual: Tensor
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
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.preconditioner = preconditioner

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

        Warns:
            RoundingWarning: if float64 cannot meet the tolerance.
        """
        return self._solved(permeability, grid, forcing).pressure

    def solution(self, permeability: Tensor, grid: Grid, forcing: float | Tensor = 1.0) -> Solution:
        """``solve`` with a record of how it went."""
        return self._solved(permeability, grid, forcing)

    @torch.no_grad()
    def _solved(self, permeability: Tensor, grid: Grid, forcing: float | Tensor) -> Solution:
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
        self._tell(residual)
        return Solution(u.to(permeability.dtype), iterations, residual, chosen)

    def residual(
        self, pressure: Tensor, permeability: Tensor, grid: Grid, forcing: float | Tensor = 1.0
    ) -> Tensor:
        """f + ∇·(a ∇u) on the inner nodes and −u on the border, ``(batch, y, x)``;
        differentiable."""
        check_permeability(permeability, grid)
        grid.check(pressure)
        f = _forcing(forcing, pressure)
        left = Stiffness(permeability, grid)(pressure[:, 1:-1, 1:-1])
        inside = pad(f[:, 1:-1, 1:-1] - left, (1, 1, 1, 1))
        return inside - (pressure - grid.without_border(pressure))

    def energy_norm(self, u: Tensor, permeability: Tensor, grid: Grid) -> Tensor:
        """‖u‖_a = (uᵀA u)^½ ≈ (∫ a |∇u|²)^½ of fields that vanish on the border, ``(batch,)``."""
        check_permeability(permeability, grid)
        grid.check(u)
        inner = u[:, 1:-1, 1:-1]
        cell = math.prod(axis.spacing for axis in grid.axes)
        return (cell * dot(Stiffness(permeability, grid)(inner), inner)).sqrt()

    def error_bound(
        self, pressure: Tensor, permeability: Tensor, grid: Grid, forcing: float | Tensor = 1.0
    ) -> Tensor:
        """A guaranteed upper bound of the energy norm ‖u − p‖_a of the error, ``(batch,)``.

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
        residual = self.residual(p, a, grid, f)
        psi = grid.from_modes(grid.to_modes(residual) / five_point_eigenvalues(grid, a.device))
        return _flux_norm(psi, Stiffness(a, grid))

    @torch.no_grad()
    def improved(
        self,
        pressure: Tensor,
        permeability: Tensor,
        grid: Grid,
        forcing: float | Tensor = 1.0,
        *,
        tolerance: float = 1e-3,
    ) -> tuple[Tensor, Tensor]:
        """An approximate pressure made good to a guaranteed ‖u − p‖_a ≤ tolerance · ‖u‖_a.

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

        def relative_bound(x: Tensor, r: Tensor, rz: Tensor) -> Tensor:
            bound = (rz / least).sqrt()  # rᵀ(−Δ_h)⁻¹r / a₀, not below error_bound
            return relative_to_solution(bound, dot(u + x, b - r).sqrt())

        iterations = torch.zeros(len(a), dtype=torch.int64, device=a.device)
        precondition, target = FastPoisson(grid, a.device), a.new_full((len(a),), tolerance)
        r = b - A(u)
        x = self._conjugate_gradients(A, r, precondition, target, iterations, relative_bound)
        found = pad(u + x, (1, 1, 1, 1))
        bound, size = self.error_bound(found, a, grid, f), self.energy_norm(found, a, grid)
        missed = relative_to_solution(bound, size)
        if bool((missed > tolerance).any()):
            raise ArithmeticError(
                f"after {int(iterations.max())} of {self.max_iterations} iterations the pressures are guaranteed "
                f"within {float(missed.max()):.1e} in energy, not {tolerance:.1e}; raise max_iterations, or the "
                "tolerance where float64 cannot meet it"
            )
        return found, iterations

    def _prediction(
        self, pressure: Tensor, permeability: Tensor, grid: Grid, forcing: float | Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pressure without its border, permeability and forcing in float64, checked."""
        check_permeability(permeability, grid)
        if pressure.shape != permeability.shape:
            raise ValueError(
                f"pressure {tuple(pressure.shape)} and permeability {tuple(permeability.shape)} differ in shape"
            )
        a, p = permeability.double(), grid.without_border(pressure).double()
        f = _forcing(forcing, a)
        for name, field in (("pressure", p), ("forcing", f)):
            if not bool(field.isfinite().all()):
                raise ValueError(f"the {name} holds values that are not finite")
        return p, a, f

    def _choose(self, a: Tensor, grid: Grid) -> tuple[Preconditioner, ...]:
        """For each sample by itself, so that its solution does not depend on the batch."""
        if self.preconditioner == "auto":
            short, long = sorted(axis.spacing for axis in grid.axes)
            least = max(_AUTO_CONTRAST, _AUTO_NODES / a[0].numel())
            high = _contrast(a) > least * (long / short) ** 2  # flat cells slow multigrid down
            return tuple("multigrid" if h else "poisson" for h in high.tolist())
        return ("multigrid" if self.preconditioner == "multigrid" else "poisson",) * len(a)

    def _solve_together(
        self, kind: Preconditioner, a: Tensor, b: Tensor, grid: Grid
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Inner pressures, iterations and relative residuals.

        The residual that conjugate gradients carry along drifts from f − A u by rounding: they are
        restarted from the true one until that meets the tolerance or is rounding itself.
        """
        precondition: Callable[[Tensor], Tensor]
        if kind == "multigrid":
            precondition = Multigrid(a, grid)
            A = precondition.stiffness
        else:
            precondition, A = FastPoisson(grid, a.device), Stiffness(a, grid)
        scale, u, r = norm(b), torch.zeros_like(b), b.clone()
        iterations = torch.zeros(len(b), dtype=torch.int64, device=b.device)
        for _ in range(_RESTARTS):
            u += self._conjugate_gradients(A, r, precondition, self.tolerance * scale, iterations)
            r = b - A(u)
            left = norm(r)
            done = (left <= self.tolerance * scale) | (left <= _ROUNDING * norm(A.rounding(u)))
            if bool(done.all()):
                return u, iterations, torch.where(scale > 0, left / scale, 0.0)
            r[done] = 0
        worst, contrast = float((left / scale)[~done].max()), float(_contrast(a)[~done].max())
        remedy = "raise max_iterations" + ", or use the multigrid" * (kind == "poisson")
        raise ArithmeticError(
            f"Darcy did not converge: {kind} preconditioning left {int((~done).sum())} of {len(a)} fields at a "
            f"relative residual of up to {worst:.1e} after {int(iterations.max())} of {self.max_iterations} iterations "
            f"(wanted {self.tolerance:.1e}); the contrast of the permeability is {contrast:.1e}: {remedy}"
        )

    def _conjugate_gradients(
        self,
        A: Stiffness,
        b: Tensor,
        precondition: Callable[[Tensor], Tensor],
        target: Tensor,
        iterations: Tensor,
        measure: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda x, r, rz: norm(r),
    ) -> Tensor:
        """Preconditioned conjugate gradients for a batch of systems (Saad 2003, algorithm 9.1).

        From zero until ``measure`` of x, r and r·z falls to the target, until there is no progress,
        or until ``iterations``, counted up in place, are used up.
        """
        x, r = torch.zeros_like(b), b.clone()
        idle = torch.zeros_like(iterations)
        z = precondition(r)
        p, rz = z.clone(), dot(r, z)
        size = least = measure(x, r, rz)
        while True:
            active = (size > target) & (iterations < self.max_iterations) & (idle < _PATIENCE)
            if not bool(active.any()):
                return x
            Ap = A(p)
            step = torch.where(active, rz / dot(p, Ap), 0.0)[:, None, None]
            x.addcmul_(step, p)
            r.addcmul_(step, Ap, value=-1)
            z = precondition(r)
            rz, previous = dot(r, z), rz
            p.mul_(torch.where(active, rz / previous, 0.0)[:, None, None]).add_(z)
            size = measure(x, r, rz)
            iterations += active
            idle = torch.where(size < least, 0, idle + 1)
            least = torch.minimum(least, size)

    def _tell(self, residual: Tensor) -> None:
        missed = residual > self.tolerance
        if bool(missed.any()):
            warnings.warn(
                f"{int(missed.sum())} of {len(missed)} pressures are exact to rounding, which leaves a relative "
                f"residual of up to {float(residual.max()):.1e}: the tolerance of {self.tolerance:.1e} is out of "
                "reach of float64 at this contrast and resolution; a larger one ends sooner",
                RoundingWarning,
                stacklevel=5,
            )


def relative_to_solution(bound: Tensor, size: Tensor) -> Tensor:
    """The largest ‖u − p‖ / ‖u‖ that ‖u − p‖ ≤ ``bound`` allows, where ``size`` is ‖p‖: ‖u‖ is at least
    size − bound. Infinite where that is not positive; 0 where there is no error."""
    return torch.where(
        bound == 0, 0.0, torch.where(bound < size, bound / (size - bound), torch.inf)
    )


def _flux_norm(psi: Tensor, A: Stiffness) -> Tensor:
    """(Σ_faces |∇ψ|²/a)^½ as an integral, for ψ that vanishes on the border, ``(batch,)``."""
    hy, hx = A.spacings
    south = (psi[:, 1:, 1:-1] - psi[:, :-1, 1:-1]).square() / (hy**4 * A.north_south)
    east = (psi[:, 1:-1, 1:] - psi[:, 1:-1, :-1]).square() / (hx**4 * A.west_east)
    return (hy * hx * (south.flatten(1).sum(1) + east.flatten(1).sum(1))).sqrt()


def _contrast(a: Tensor) -> Tensor:
    return a.amax(dim=(1, 2)) / a.amin(dim=(1, 2))


def _parts(members: list[int], a: Tensor) -> list[list[int]]:
    """The samples that are solved for together: all on a GPU, a cache full on a CPU."""
    size = max(1, _CACHED_NODES // a[0].numel()) if a.device.type == "cpu" else len(members)
    return [members[i : i + size] for i in range(0, len(members), size)]


def _forcing(forcing: float | Tensor, like: Tensor) -> Tensor:
    f = torch.as_tensor(forcing, dtype=like.dtype, device=like.device)
    try:
        return f.expand(like.shape)
    except RuntimeError:
        raise ValueError(
            f"the forcing of shape {tuple(f.shape)} does not broadcast to the fields' {tuple(like.shape)}"
        ) from None
