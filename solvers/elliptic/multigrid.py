"""Multigrid for flow through porous media of any contrast."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import pad

from sobolev.grids.grid import Grid
from sobolev.solvers.elliptic.level import MultigridLevel
from sobolev.solvers.elliptic.stencils import Stencil, neighbours, summed
from sobolev.solvers.elliptic.stiffness import Stiffness, check_permeability
from sobolev.solvers.inner_products import norm, without_mean

_COARSEST = {1: 200, 2: 200, 3: 400}  # so many unknowns go to a dense matrix


class Multigrid:
    """A symmetric positive definite approximation of A⁻¹ for A = −∇·(a ∇·).

    One V-cycle of black-box multigrid (Alcouffe, Brandt, Dendy & Painter 1981; Dendy 1982,
    doi:10.1016/0021-9991(82)90057-2): interpolation that keeps the flux continuous where a jumps,
    its transpose as restriction, Galerkin matrices that link neighbours (nine points in two dimensions,
    27 in three), a sweep of Gauss–Seidel in four or eight colours on the way down and one in the
    opposite order on the way up, dense Cholesky on the coarsest grid. In one dimension it is exact. Grids
    of any size are halved, odd or even; cells should be about square, and the permeability about the
    same along all axes, since relaxing nodes one by one does little across a weak link.

    Args:
        permeability: a > 0 on the nodes, ``(batch, *space)``, or ``(batch, axes, *space)``.
        grid: a box with Dirichlet and Neumann walls. Without a Dirichlet wall the pressure has mean zero.
        dtype: of the cycle and its matrices. float32 takes half the memory and preconditions as well
            up to contrasts of about 1e3.

    Raises:
        ValueError: for a coefficient that is not positive and finite, or a grid that does not fit.
        ArithmeticError: if the contrast is beyond what float64 tells apart.

    >>> grid = Grid.dirichlet(50, 34)
    >>> a = torch.ones(1, 50, 34, dtype=torch.float64)
    >>> u = Multigrid(a, grid).solve(torch.ones_like(a))
    >>> (Stiffness(a, grid)(u[:, 1:-1, 1:-1]) - 1).abs().max().item() < 1e-6
    True
    """

    def __init__(
        self,
        permeability: Shaped[Tensor, " ..."],
        grid: Grid,
        *,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        check_permeability(permeability, grid)
        if any(axis.boundary == "periodic" for axis in grid.axes):
            raise ValueError(
                f"multigrid needs axes between walls (dirichlet or neumann), got {grid}; on periodic ones "
                "Darcy(preconditioner='poisson') solves"
            )
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"a cycle runs in torch.float32 or torch.float64, got dtype={dtype}")
        self.grid = grid
        self.dtype = dtype
        self.stiffness = Stiffness(permeability.detach().double(), grid)
        links, excess = self.stiffness.links(dtype)
        self.shape = excess.shape
        self.levels: list[MultigridLevel] = []
        while excess[0].numel() > _COARSEST[grid.ndim]:
            self.levels.append(MultigridLevel(links, excess, dtype))
            links, excess = self.levels[-1].coarser
        self.inverse = _dense_inverse(
            links, excess, scaled=bool(self.levels), closed=self.stiffness.nodes.closed
        ).to(dtype)

    @torch.no_grad()
    def __call__(self, residual: Float[Tensor, " ..."]) -> Float[Tensor, " batch *inner"]:
        """Return the cycle of a residual on the inner nodes ``(batch, *inner)``, from zero, in its dtype.

        Raises:
            ValueError: for a residual of another shape.
        """
        if residual.shape != self.shape:
            raise ValueError(
                f"expected residuals on the inner nodes, {tuple(self.shape)}, got {tuple(residual.shape)}"
            )
        if self.dtype == residual.dtype:
            return self._descend(residual, 0)
        # scaled, so that small residuals stay within float32's range; a residual of zero stays zero
        space = tuple(range(1, residual.ndim))
        scale = residual.abs().amax(dim=space, keepdim=True)
        scale = scale.clamp(min=torch.finfo(residual.dtype).tiny)
        scaled = torch.div(residual, scale, out=torch.empty_like(residual, dtype=self.dtype))
        return self._descend(scaled, 0) * scale

    @torch.no_grad()
    def cycle(
        self, pressure: Float[Tensor, " batch *space"], forcing: Float[Tensor, " batch *space"]
    ) -> Float[Tensor, " batch *space"]:
        """Return the pressure after one more cycle, all fields on all nodes, in float64."""
        nodes = self.stiffness.nodes
        u, f = (nodes.inside(t).double() for t in (pressure, forcing))
        return nodes.with_walls(u + self(f - self.stiffness(u)))

    @torch.no_grad()
    def solve(
        self,
        forcing: Float[Tensor, " batch *space"],
        *,
        tolerance: float = 1e-8,
        max_iterations: int = 100,
    ) -> Float[Tensor, " batch *space"]:
        """Return the pressure, in float64, after cycles until ‖f − A u‖ ≤ tolerance ‖f‖ for every sample.

        Raises:
            ArithmeticError: if ``max_iterations`` cycles do not reach it, as at contrasts where
                only conjugate gradients converge fast.
        """
        self.grid.check(forcing)
        nodes = self.stiffness.nodes
        f = forcing.double()
        u = torch.zeros_like(f)
        inner = nodes.inside(f)
        for _ in range(max_iterations + 1):
            left = norm(inner - self.stiffness(nodes.inside(u)))
            if bool((left <= tolerance * norm(inner)).all()):
                return without_mean(u) if nodes.closed else u
            u = self.cycle(u, f)
        raise ArithmeticError(
            f"multigrid alone left a relative residual of {float((left / norm(inner)).max()):.1e} after "
            f"{max_iterations} cycles, wanted {tolerance:.1e}: solve with Darcy(preconditioner='multigrid'), "
            "which accelerates the cycles by conjugate gradients"
        )

    def _descend(
        self, f: Float[Tensor, " batch *space"], depth: int
    ) -> Float[Tensor, " batch *space"]:
        if depth == len(self.levels):
            return (self.inverse @ f.flatten(1)[..., None]).view(f.shape)
        level = self.levels[depth]
        return level.cycle(f, lambda g: self._descend(g, depth + 1), natural=depth == 0)


def _dense_inverse(
    links: Stencil, excess: Float[Tensor, " batch *space"], *, scaled: bool, closed: bool
) -> Float[Tensor, "batch unknown unknown"]:
    """Return the inverse of the coarsest matrix; where it is ``closed``, and constants have no image, the
    inverse on fields of mean zero, made definite."""
    diagonal = summed(excess, *links.values())
    count = diagonal[0].numel()
    number = torch.arange(count, device=excess.device).view(diagonal.shape[1:])
    numbered = pad(number[None], (1, 1) * number.ndim, value=-1)
    matrix = torch.diag_embed(diagonal.flatten(1))
    for d, link in links.items():
        neighbour = neighbours(numbered, d)[0]
        there = neighbour >= 0
        matrix[:, number[there], neighbour[there]] = -link[:, there]
    if closed:
        matrix += diagonal.flatten(1).mean(1).view(-1, 1, 1) / count
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if bool(failed.any()) or not bool(factor.isfinite().all()):
        raise ArithmeticError(
            "the coarse matrices of the multigrid are not positive definite in float64: the contrast of the "
            "permeability is too high; bound it below, or solve by a sparse direct method"
        )
    inverse = torch.cholesky_inverse(factor)
    if scaled:
        root = diagonal.flatten(1).sqrt()
        inverse = inverse * root[:, :, None] * root[:, None, :]
    return inverse
