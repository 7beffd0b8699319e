"""Multigrid against sparse LU, dense matrices and the scheme's exact solutions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from sobolev import GaussianRandomField, Grid
from sobolev.solvers import Darcy
from sobolev.solvers.elliptic.multigrid import Multigrid
from sobolev.solvers.elliptic.stiffness import Stiffness

SHAPES = [(21, 34), (50, 50), (5, 130), (130, 4), (3, 300), (33, 64), (3, 3)]


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(1, *shape, dtype=torch.float64)


def gaussian(grid: Grid) -> torch.Tensor:
    cells = Grid.neumann(*grid.shape, length=[axis.length for axis in grid.axes])
    psi = cells.resample(GaussianRandomField(cells, 2.0, 3.0).sample(1, seed=5), grid)
    return psi / psi.abs().max()


def two_phase(grid: Grid, contrast: float) -> torch.Tensor:
    return torch.where(gaussian(grid) >= 0, contrast, 1.0).double()


def log_normal(grid: Grid, contrast: float) -> torch.Tensor:
    psi = gaussian(grid)
    return contrast ** ((psi - psi.min()) / (psi.max() - psi.min()))


def grains(grid: Grid, contrast: float) -> torch.Tensor:
    """The hardest of media: every node draws its phase for itself."""
    coin = torch.rand(1, *grid.shape, generator=torch.Generator().manual_seed(0))
    return torch.where(coin > 0.5, contrast, 1.0).double()


MEDIA = {"two-phase": two_phase, "log-normal": log_normal, "grains": grains}


def units(*shape: int) -> torch.Tensor:
    """The fields that are one at a node and zero elsewhere, as a batch."""
    return torch.eye(shape[0] * shape[1], dtype=torch.float64).view(-1, *shape)


def stiffness(a: torch.Tensor, grid: Grid) -> torch.Tensor:
    """The five-point matrix."""
    return Stiffness(a, grid)(units(a.shape[1] - 2, a.shape[2] - 2)).flatten(1).T


@pytest.mark.parametrize("medium", MEDIA)
@pytest.mark.parametrize("contrast", [1.0, 10.0, 1e3, 1e6])
@pytest.mark.parametrize("shape", [(21, 34), (50, 50)])
def test_conjugate_gradients_with_it_agree_with_sparse_lu(medium, contrast, shape):
    grid = Grid.dirichlet(*shape, length=(1.0, 1.5))
    a = MEDIA[medium](grid, contrast)
    matrix = scipy.sparse.csc_array(stiffness(a, grid).numpy())
    truth = scipy.sparse.linalg.spsolve(matrix, np.ones(matrix.shape[0]))
    solver = Darcy(tolerance=1e-8, preconditioner="multigrid")
    solved = solver.solve(a, grid)[0, 1:-1, 1:-1].numpy().ravel()
    assert np.linalg.norm(solved - truth) < 3e-8 * np.linalg.norm(truth)


@pytest.mark.parametrize("shape", SHAPES)
def test_is_exact_on_the_polynomials_that_the_scheme_is_exact_on(shape):
    """u = x(1−x/l) y(1−y/m) is quadratic in each direction: second differences have no error."""
    m, l = 1.0, (shape[1] - 1) / (shape[0] - 1)
    grid = Grid.dirichlet(*shape, length=(m, l))
    y, x = grid.points()[0][:, None], grid.points()[1]
    u = x * (1 - x / l) * y * (1 - y / m)
    f = 2 / m * x * (1 - x / l) + 2 / l * y * (1 - y / m)
    solved = Multigrid(ones(*shape), grid).solve(f[None], tolerance=1e-12)
    assert (solved[0] - u).abs().max() < 1e-10 * u.max()


@pytest.mark.parametrize("medium", MEDIA)
@pytest.mark.parametrize("contrast", [1.0, 1e6])
@pytest.mark.parametrize("shape", [(21, 26), (3, 300), (40, 9)])
def test_is_symmetric_and_positive_definite_and_never_overshoots(medium, contrast, shape):
    """0 < λ(M A) ≤ 1 for a symmetric cycle with Galerkin matrices: e ↦ e − M A e is a contraction
    without change of sign (Hackbusch 1985)."""
    grid = Grid.dirichlet(*shape)
    a, columns = MEDIA[medium](grid, contrast), units(shape[0] - 2, shape[1] - 2)
    multigrid = Multigrid(a.expand(len(columns), *shape), grid)
    M, A = multigrid(columns).flatten(1).T, stiffness(a, grid)
    assert multigrid.levels
    assert (M - M.T).abs().max() < 1e-12 * M.abs().max()
    assert torch.linalg.eigvalsh(M).min() > 0
    root = torch.linalg.cholesky((A + A.T) / 2)
    spectrum = torch.linalg.eigvalsh(root.T @ (M + M.T) / 2 @ root)
    assert spectrum.min() > 0
    assert spectrum.max() < 1 + 1e-6


def contraction(n: int, medium: str, contrast: float) -> float:
    """By how much the slowest error of a cycle shrinks, from twelve of them."""
    grid = Grid.dirichlet(n, n)
    multigrid = Multigrid(MEDIA[medium](grid, contrast), grid)
    generator = torch.Generator().manual_seed(1)
    e = torch.rand(1, n, n, generator=generator, dtype=torch.float64) - 0.5
    e = grid.without_border(e)
    for _ in range(12):
        e, before = multigrid.cycle(e, torch.zeros_like(e)), e
    return (e.norm() / before.norm()).item()


@pytest.mark.parametrize("n", [17, 34, 65, 130])
def test_a_cycle_contracts_independently_of_the_grid(n):
    assert contraction(n, "two-phase", 1.0) < 0.27
    assert contraction(n, "two-phase", 10.0) < 0.32
    assert contraction(n, "log-normal", 1e6) < 0.32


@pytest.mark.filterwarnings("ignore::sobolev.solvers.elliptic.darcy.RoundingWarning")
@pytest.mark.parametrize(("contrast", "most"), [(1.0, 9), (1e3, 11), (1e6, 11)])
def test_iterations_do_not_grow_with_the_grid(contrast, most):
    """One smooth interface, resolved ever better."""

    def iterations(n: int) -> int:
        grid = Grid.dirichlet(n, n)
        y, x = grid.points()[0][:, None], grid.points()[1]
        a = torch.where((x - 0.4) ** 2 + (y - 0.45) ** 2 < 0.09, contrast, 1.0)[None].double()
        solver = Darcy(tolerance=1e-8, preconditioner="multigrid")
        return int(solver.solution(a, grid).iterations)

    counts = [iterations(n) for n in (43, 85, 170)]
    assert max(counts) <= most
    assert max(counts) - min(counts) <= 2


def test_a_sample_does_not_depend_on_its_batch():
    grid = Grid.dirichlet(50, 41)
    a = torch.cat([two_phase(grid, 1e6), log_normal(grid, 10.0)])
    r = torch.rand(2, 48, 39, dtype=torch.float64)
    together = Multigrid(a, grid)(r)
    for i in range(2):
        alone = Multigrid(a[i : i + 1], grid)(r[i : i + 1])
        assert torch.allclose(together[i], alone[0], rtol=1e-10, atol=1e-16)


def test_a_cycle_in_float32_is_the_one_in_float64_rounded():
    grid = Grid.dirichlet(50, 50)
    a, r = two_phase(grid, 1e3), 1e-60 * torch.rand(1, 48, 48, dtype=torch.float64)
    exact, rounded = Multigrid(a, grid)(r), Multigrid(a, grid, dtype=torch.float32)(r)
    assert (exact - rounded).norm() < 1e-4 * exact.norm()
    assert not Multigrid(a, grid, dtype=torch.float32)(0 * r).any()


def test_stays_on_the_device_of_its_input():
    grid = Grid.dirichlet(40, 40)
    a, f = two_phase(grid, 1e3), ones(40, 40)
    expected = Multigrid(a, grid).solve(f)
    with torch.device("meta"):
        assert torch.equal(Multigrid(a, grid).solve(f), expected)


def test_refuses_what_it_cannot_solve():
    grid = Grid.dirichlet(40, 40)
    with pytest.raises(ValueError, match=r"positive and finite; 1 of 1 fields"):
        Multigrid(-ones(40, 40), grid)
    with pytest.raises(
        ValueError, match=r"axes between walls.*on periodic ones Darcy\(preconditioner"
    ):
        Multigrid(ones(40, 40), Grid.periodic(40, 40))
    with pytest.raises(
        ValueError, match=r"torch\.float32 or torch\.float64, got dtype=torch\.float16"
    ):
        Multigrid(ones(40, 40), grid, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"inner nodes, \(1, 38, 38\), got \(2, 38, 38\)"):
        Multigrid(ones(40, 40), grid)(torch.ones(2, 38, 38, dtype=torch.float64))
    with pytest.raises(ArithmeticError, match=r"after 3 cycles, wanted 1\.0e-08: solve with Darcy"):
        Multigrid(grains(grid, 1e6), grid).solve(ones(40, 40), max_iterations=3)
