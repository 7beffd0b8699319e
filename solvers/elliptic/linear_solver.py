"""A⁻¹ b for batches of Darcy's systems, and its derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sobolev.grids.grid import Grid
from sobolev.solvers.elliptic.conjugate_gradients import conjugate_gradients
from sobolev.solvers.elliptic.fast_poisson import FastPoisson
from sobolev.solvers.elliptic.multigrid import Multigrid
from sobolev.solvers.elliptic.stiffness import Stiffness, axis_weights, contrast
from sobolev.solvers.inner_products import norm, without_mean

Preconditioner = Literal["poisson", "multigrid"]
# Multigrid is faster from this contrast on, or from this many nodes · contrast where there are few
# nodes, by the number of axes: small grids favour the few large operations of a fast Poisson solve
# (benchmarks/multigrid.py, benchmarks/darcy_3d.py)
_AUTO_CONTRAST = {1: 0.0, 2: 2.5, 3: 2.5}
_AUTO_NODES = {1: 0.0, 2: 2e5, 3: 2e6}
# … and from this one on a GPU, which waits for the launches of a cycle's many small operations
# (benchmarks/gpu.py)
_AUTO_CONTRAST_ON_GPU = 1e3
_CACHED_NODES = 2**18  # so many nodes are solved for together on a CPU, to stay in its cache
_SHARED_NODES = 2**19  # in 3-D cycles, whose many small operations are worth sharing
_SINGLE_CONTRAST = 1e3  # up to here cycles in float32 precondition as well; worth it in 3-D
_RESTARTS = 3
_ROUNDING = 4.0  # residuals up to so many times that of rounding the solution are its own


class Way(NamedTuple):
    """The way of one sample: its preconditioner, and whether cycles are in float32."""

    preconditioner: Preconditioner
    single: bool


@dataclass(frozen=True)
class Found:
    """x with A x ≈ b at the unknowns, and for each sample the iterations, ‖b − A x‖ / ‖b‖ (0 where b is 0)
    and the preconditioner."""

    x: Float[Tensor, " batch *inner"]
    iterations: Int[Tensor, " batch"]
    residual: Float[Tensor, " batch"]
    preconditioner: tuple[Preconditioner, ...]


@dataclass(frozen=True)
class LinearSolver:
    """Preconditioned conjugate gradients; ``Darcy`` says what its fields mean."""

    tolerance: float
    max_iterations: int
    preconditioner: str

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, got {self.tolerance}")
        if self.preconditioner not in ("auto", "poisson", "multigrid"):
            raise ValueError(
                f"preconditioner must be 'auto', 'poisson' or 'multigrid', got {self.preconditioner!r}"
            )

    def solve(
        self,
        a: Float[Tensor, " batch *axes_and_space"],
        b: Float[Tensor, " batch *inner"],
        grid: Grid,
    ) -> Found:
        """Return A(a)⁻¹ b in float64; where no wall holds the pressure, that of mean zero.

        Derivatives with respect to a and b, of any order, take one more solve each: λ = A⁻¹ x̄ has
        b̄ = λ and ā = −∂(λᵀ A(a) x)/∂a.

        Raises:
            ArithmeticError: if the iteration does not converge.
        """
        found = self._found(a.detach(), b.detach(), grid)
        if not (torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)):
            return found
        x: Float[Tensor, " batch *inner"] = _Differentiable.apply(a, b, found.x, self, grid)
        return Found(x, found.iterations, found.residual, found.preconditioner)

    @torch.no_grad()
    def _found(
        self,
        a: Float[Tensor, " batch *axes_and_space"],
        b: Float[Tensor, " batch *inner"],
        grid: Grid,
    ) -> Found:
        chosen = self._choose(a, grid)
        x = torch.zeros_like(b)
        iterations = torch.zeros(len(a), dtype=torch.int64, device=a.device)
        residual = a.new_zeros(len(a))
        for way in sorted(set(chosen)):
            members = [i for i, other in enumerate(chosen) if other == way]
            for part in _parts(members, way, b):
                found = self._solve_together(way, a[part], b[part], grid)
                x[part], iterations[part], residual[part] = found
        return Found(x, iterations, residual, tuple(way.preconditioner for way in chosen))

    def _choose(self, a: Float[Tensor, " batch *axes_and_space"], grid: Grid) -> tuple[Way, ...]:
        """Return the way of each sample by itself, so that its solution does not depend on the batch."""
        rough = contrast(a, grid)
        if self.preconditioner == "auto":
            cycles = (rough > _least_contrast(a, grid)).tolist()
        else:
            cycles = [self.preconditioner == "multigrid"] * len(a)
        single = (rough <= _SINGLE_CONTRAST).tolist()
        return tuple(
            Way("multigrid", grid.ndim == 3 and low) if cycle else Way("poisson", False)
            for cycle, low in zip(cycles, single, strict=True)
        )

    def _solve_together(
        self,
        way: Way,
        a: Float[Tensor, " batch *axes_and_space"],
        b: Float[Tensor, " batch *inner"],
        grid: Grid,
    ) -> tuple[Float[Tensor, " batch *inner"], Int[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Return unknowns, iterations and relative residuals.

        The residual that conjugate gradients carry along drifts from b − A x by rounding: they are
        restarted from the true one until that meets the tolerance or is rounding itself.
        """
        precondition: Callable[[Float[Tensor, " batch *inner"]], Float[Tensor, " batch *inner"]]
        kind = way.preconditioner
        if kind == "multigrid":
            precondition = Multigrid(a, grid, dtype=torch.float32 if way.single else torch.float64)
            A = precondition.stiffness
        else:
            A = Stiffness(a, grid)
            precondition = FastPoisson(grid, a.device, A.weights)
        if A.nodes.closed:
            b = without_mean(b)
        scale = norm(b)
        x = torch.zeros_like(b)
        r = b.clone()
        iterations = torch.zeros(len(b), dtype=torch.int64, device=b.device)
        for _ in range(_RESTARTS):
            target = self.tolerance * scale
            x += conjugate_gradients(
                A, r, precondition, target, iterations, most=self.max_iterations
            )
            r = b - A(x)
            left = norm(r)
            done = (left <= self.tolerance * scale) | (left <= _ROUNDING * norm(A.rounding(x)))
            if bool(done.all()):
                x = without_mean(x) if A.nodes.closed else x
                return x, iterations, torch.where(scale > 0, left / scale, 0.0)
            r[done] = 0
        worst = float((left / scale)[~done].max())
        remedy = "raise max_iterations"
        if kind == "poisson" and "periodic" not in (axis.boundary for axis in grid.axes):
            remedy += ", or use the multigrid"
        raise ArithmeticError(
            f"Darcy did not converge: {kind} preconditioning left {int((~done).sum())} of {len(a)} fields at a "
            f"relative residual of up to {worst:.1e} after {int(iterations.max())} of {self.max_iterations} iterations "
            f"(wanted {self.tolerance:.1e}); the contrast of the permeability is "
            f"{float(contrast(a, grid)[~done].max()):.1e}: {remedy}"
        )


class _Differentiable(torch.autograd.Function):
    """x = A(a)⁻¹ b, already found, with derivatives by the adjoint system, which is the same one."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Float[Tensor, " batch *axes_and_space"],
        b: Float[Tensor, " batch *inner"],
        x: Float[Tensor, " batch *inner"],
        solver: LinearSolver,
        grid: Grid,
    ) -> Float[Tensor, " batch *inner"]:
        x = x.clone()
        ctx.save_for_backward(a, x)
        ctx.solver = solver
        ctx.grid = grid
        return x

    @staticmethod
    def backward(
        ctx: Any, *gradients: Float[Tensor, " batch *inner"]
    ) -> tuple[
        Float[Tensor, " batch *axes_and_space"] | None,
        Float[Tensor, " batch *inner"],
        None,
        None,
        None,
    ]:
        (gradient,) = gradients
        a, x = ctx.saved_tensors
        adjoint = ctx.solver.solve(a, gradient, ctx.grid).x
        of_a = None
        if ctx.needs_input_grad[0]:
            pull = torch.func.vjp(lambda a: Stiffness(a, ctx.grid)(x), a)[1]
            (of_a,) = pull(-adjoint)
        return of_a, adjoint, None, None, None


def _least_contrast(
    a: Float[Tensor, " batch *axes_and_space"], grid: Grid
) -> Float[Tensor, " #batch"]:
    """Return the contrast from which multigrid is faster, for each sample or for all."""
    spacings = a.new_tensor([axis.spacing for axis in grid.axes])
    weights = axis_weights(a, grid)
    links = (torch.ones_like(spacings)[None] if weights is None else weights) / spacings**2
    flat = links.amax(1) / links.amin(1)  # flat cells slow multigrid down
    least = max(_AUTO_CONTRAST[grid.ndim], _AUTO_NODES[grid.ndim] / math.prod(grid.shape))
    if a.device.type != "cpu":
        least = max(least, _AUTO_CONTRAST_ON_GPU)
    if any(axis.boundary == "periodic" for axis in grid.axes):
        least = math.inf
    return least * flat


def _parts(members: list[int], way: Way, b: Float[Tensor, " batch *inner"]) -> list[list[int]]:
    """Return the samples that are solved for together: all on a GPU, a cache full on a CPU."""
    nodes = _SHARED_NODES if b.ndim == 4 and way.preconditioner == "multigrid" else _CACHED_NODES
    size = max(1, nodes // b[0].numel()) if b.device.type == "cpu" else len(members)
    return [members[i : i + size] for i in range(0, len(members), size)]
