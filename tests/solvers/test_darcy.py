"""Darcy against sparse LU, a manufactured solution and the maximum principle."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch

from sobolev import GaussianRandomField, Grid, sobolev_norm
from sobolev.solvers import Darcy
from sobolev.solvers.elliptic.darcy import RoundingWarning
from sobolev.solvers.elliptic.fast_poisson import difference_eigenvalues
from sobolev.solvers.elliptic.stiffness import Stiffness


def sparse_lu(a: np.ndarray, grid: Grid, forcing: float = 1.0) -> np.ndarray:
    """The five-point system, assembled edge by edge and factorised."""
    (ny, nx), (hy, hx) = grid.shape, (axis.spacing for axis in grid.axes)
    number = -np.ones((ny, nx), dtype=int)
    number[1:-1, 1:-1] = np.arange((ny - 2) * (nx - 2)).reshape(ny - 2, nx - 2)
    matrix = scipy.sparse.lil_matrix((number.max() + 1,) * 2)
    for dy, dx, h in ((0, 1, hx), (1, 0, hy)):
        for y in range(ny - dy):
            for x in range(nx - dx):
                here, there = number[y, x], number[y + dy, x + dx]
                face = (a[y, x] + a[y + dy, x + dx]) / 2 / h**2
                for p, q in ((here, there), (there, here)):
                    if p >= 0:
                        matrix[p, p] += face
                        if q >= 0:
                            matrix[p, q] -= face
    inside = scipy.sparse.linalg.spsolve(matrix.tocsc(), np.full(matrix.shape[0], forcing))
    return np.pad(inside.reshape(ny - 2, nx - 2), 1)


def two_phase(grid: Grid, high: float, low: float, count: int = 1) -> torch.Tensor:
    cells = Grid.neumann(*grid.shape, length=[axis.length for axis in grid.axes])
    psi = cells.resample(GaussianRandomField(cells, 2.0, 3.0).sample(count, seed=5), grid)
    return torch.where(psi >= 0, high, low).double()


@pytest.mark.parametrize(("high", "low"), [(12.0, 3.0), (1000.0, 1.0)])
@pytest.mark.parametrize("shape", [(33, 33), (30, 41)])
def test_agrees_with_sparse_lu(high, low, shape):
    grid = Grid.dirichlet(*shape, length=(1.0, 1.5))
    a = two_phase(grid, high, low, count=2)
    solution = Darcy().solve(a, grid, 2.0)
    for i in range(2):
        truth = sparse_lu(a[i].numpy(), grid, 2.0)
        assert np.linalg.norm(solution[i].numpy() - truth) / np.linalg.norm(truth) < 1e-9


def test_second_order_for_a_smooth_coefficient():
    """u = sin(πx) sin(2πy), a = 1 + ½ cos(πx) y, f = −∇·(a∇u) by hand."""

    def error(n: int) -> float:
        grid = Grid.dirichlet(n, n)
        y, x = grid.points()[0][:, None], grid.points()[1]
        pi = math.pi
        a = 1 + 0.5 * torch.cos(pi * x) * y
        u = torch.sin(pi * x) * torch.sin(2 * pi * y)
        ux, uy = (
            pi * torch.cos(pi * x) * torch.sin(2 * pi * y),
            2 * pi * torch.sin(pi * x) * torch.cos(2 * pi * y),
        )
        ax, ay = -0.5 * pi * torch.sin(pi * x) * y, 0.5 * torch.cos(pi * x)
        f = -(ax * ux + ay * uy) + a * 5 * pi**2 * u
        solved = Darcy().solve(a[None], grid, f[None])
        return (sobolev_norm(solved - u, grid) / sobolev_norm(u, grid)).item()

    assert math.log2(error(17) / error(33)) == pytest.approx(2, abs=0.1)
    assert math.log2(error(33) / error(65)) == pytest.approx(2, abs=0.05)


def test_solution_obeys_border_and_maximum_principle():
    grid = Grid.dirichlet(41, 41)
    u = Darcy().solve(two_phase(grid, 12.0, 3.0, count=3), grid)
    assert torch.equal(u, grid.without_border(u))
    assert u.amin() >= 0
    bound = Darcy().solve(torch.full((1, 41, 41), 3.0, dtype=torch.float64), grid).amax()
    assert u.amax() <= bound  # more permeable means lower pressure


def test_residual_is_small_for_the_solution_and_is_the_forcing_for_zero():
    grid = Grid.dirichlet(33, 33)
    a = two_phase(grid, 12.0, 3.0)
    u = Darcy().solve(a, grid)
    assert Darcy().residual(u, a, grid).norm() < 1e-9 * 31
    assert torch.equal(
        Darcy().residual(0 * u, a, grid)[:, 1:-1, 1:-1], torch.ones(1, 31, 31, dtype=torch.float64)
    )


def test_the_residual_is_differentiable():
    grid = Grid.dirichlet(5, 6)
    a = (1 + torch.rand(1, 5, 6, dtype=torch.float64)).requires_grad_()
    u = torch.rand(1, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u, a: Darcy().residual(u, a, grid), (u, a))


def test_a_sample_does_not_depend_on_its_batch():
    grid = Grid.dirichlet(33, 33)
    easy, hard = torch.ones(1, 33, 33, dtype=torch.float64), two_phase(grid, 1000.0, 1.0)
    together = Darcy().solve(torch.cat([easy, hard]), grid)
    assert torch.allclose(together[:1], Darcy().solve(easy, grid), atol=1e-14)
    assert torch.allclose(together[1:], Darcy().solve(hard, grid), atol=1e-14)


def test_zero_forcing_gives_zero():
    grid = Grid.dirichlet(9, 9)
    assert not Darcy().solve(torch.ones(1, 9, 9), grid, 0.0).any()


@pytest.mark.parametrize(
    ("a", "message"),
    [
        (torch.full((2, 9, 9), -1.0), "must be positive and finite; 2 of 2 fields"),
        (torch.full((1, 9, 9), math.nan), "positive and finite"),
        (torch.ones(9, 9), r"\(batch, y, x\)"),
        (torch.ones(1, 8, 9), r"\(\.\.\., 9, 9\)"),
    ],
)
def test_bad_permeability_is_refused(a, message):
    with pytest.raises(ValueError, match=message):
        Darcy().solve(a, Grid.dirichlet(9, 9))


def test_a_forcing_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3, 9, 9\) does not broadcast"):
        Darcy().solve(torch.ones(1, 9, 9), Grid.dirichlet(9, 9), torch.ones(3, 9, 9))


def test_no_convergence_is_an_error():
    grid = Grid.dirichlet(33, 33)
    with pytest.raises(ArithmeticError, match=r"contrast of the permeability is 1\.0e\+04"):
        Darcy(max_iterations=3).solve(two_phase(grid, 1e4, 1.0), grid)


@pytest.mark.parametrize("preconditioner", ["poisson", "multigrid"])
@pytest.mark.parametrize("contrast", [1.0, 10.0, 1000.0])
def test_both_preconditioners_lead_to_the_solution_of_sparse_lu(preconditioner, contrast):
    grid = Grid.dirichlet(21, 34)
    a = two_phase(grid, contrast, 1.0)
    solution = Darcy(preconditioner=preconditioner).solve(a, grid)[0].numpy()
    truth = sparse_lu(a[0].numpy(), grid)
    assert np.linalg.norm(solution - truth) < 1e-9 * np.linalg.norm(truth)


def test_the_contrast_of_each_sample_decides_and_not_its_batch():
    grid = Grid.dirichlet(85, 85)
    media = [two_phase(grid, high, 1.0) for high in (1.0, 1e4, 2.0, 1e3)]
    together = Darcy().solution(torch.cat(media), grid)
    assert together.preconditioner == ("poisson", "multigrid", "poisson", "multigrid")
    for i, a in enumerate(media):
        alone = Darcy().solution(a, grid)
        assert together.iterations[i] == alone.iterations[0]
        assert torch.allclose(together.pressure[i], alone.pressure[0], rtol=1e-12, atol=0)


def test_flat_cells_and_few_nodes_are_left_to_the_fast_poisson_solve():
    flat, square, small = (
        Grid.dirichlet(41, 161),
        Grid.dirichlet(41, 161, length=(1.0, 4.0)),
        Grid.dirichlet(21, 21),
    )
    chosen = [
        Darcy().solution(two_phase(g, 100.0, 1.0), g).preconditioner for g in (flat, square, small)
    ]
    assert chosen == [("poisson",), ("multigrid",), ("poisson",)]


def test_the_solution_tells_its_true_residual():
    grid = Grid.dirichlet(50, 50)
    a = torch.cat([two_phase(grid, 1e3, 1.0), torch.ones(1, 50, 50, dtype=torch.float64)])
    f = torch.stack([torch.ones(50, 50), torch.zeros(50, 50)]).double()
    solution = Darcy(tolerance=1e-7).solution(a, grid, f)
    r = Darcy().residual(solution.pressure, a, grid, f)[0]
    assert solution.residual[0].item() == pytest.approx(r.norm().item() / 48, rel=1e-3)
    assert solution.residual[0] <= 1e-7
    assert solution.residual[1] == 0
    assert solution.iterations[1] == 0


def test_a_tolerance_beyond_float64_is_told_and_the_pressure_is_exact_to_rounding():
    grid = Grid.dirichlet(50, 50)
    a = two_phase(grid, 1e6, 1.0)
    with pytest.warns(RoundingWarning, match=r"1 of 1 pressures are exact to rounding.*1\.0e-13"):
        solution = Darcy(tolerance=1e-13).solution(a, grid)
    rounding = Stiffness(a, grid).rounding(solution.pressure[:, 1:-1, 1:-1]).norm().item() / 48
    assert solution.residual.item() < 4 * rounding
    truth = sparse_lu(a[0].numpy(), grid)
    assert np.linalg.norm(solution.pressure[0].numpy() - truth) < 1e-9 * np.linalg.norm(truth)


def test_an_iteration_that_stands_still_ends_before_the_last_one(monkeypatch):
    monkeypatch.setattr("sobolev.solvers.elliptic.conjugate_gradients._PATIENCE", 2)
    grid = Grid.dirichlet(33, 33)
    with pytest.raises(
        ArithmeticError, match=r"poisson.* of 1000 iterations.*or use the multigrid"
    ):
        Darcy(preconditioner="poisson").solve(two_phase(grid, 1e6, 1.0), grid)


def test_an_unknown_preconditioner_is_refused():
    with pytest.raises(ValueError, match=r"'auto', 'poisson' or 'multigrid', got 'jacobi'"):
        Darcy(preconditioner="jacobi")


@pytest.mark.parametrize(("high", "low"), [(12.0, 3.0), (1000.0, 1.0)])
def test_error_bound_holds_and_exceeds_the_error_by_at_most_the_root_of_the_contrast(high, low):
    grid = Grid.dirichlet(33, 41, length=(1.0, 1.5))
    a = two_phase(grid, high, low, count=6)
    darcy = Darcy(tolerance=1e-13)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RoundingWarning)
        u = darcy.solve(a, grid, 2.0)
    smooth = grid.from_modes(
        torch.randn(6, *grid.mode_shape, dtype=torch.float64) / grid.eigenvalues()
    )
    rough = grid.without_border(torch.randn_like(u))
    for error in (smooth, rough, u, 1e-6 * smooth):
        bound = darcy.error_bound(u + error, a, grid, 2.0)
        effectivity = bound / darcy.energy_norm(error, a, grid)
        assert effectivity.min() >= 1 - 1e-7
        assert effectivity.max() <= math.sqrt(high / low) + 1e-7


def test_error_bound_is_close_at_low_contrast_and_never_beyond_the_least_coefficients():
    """Of errors that are smooth, rough, or all of u; and of u = 0, beside rᵀ(−Δ_h)⁻¹r / a₀."""
    grid = Grid.dirichlet(65, 65)
    a = two_phase(grid, 12.0, 3.0, count=4)
    darcy, zero = Darcy(tolerance=1e-12), torch.zeros(4, 65, 65, dtype=torch.float64)
    u = darcy.solve(a, grid)
    y, x = (torch.sin(math.pi * t) for t in grid.points())
    for error in (0.1 * u * y[:, None] * x, grid.without_border(torch.randn_like(u)), u):
        effectivity = darcy.error_bound(u - error, a, grid) / darcy.energy_norm(error, a, grid)
        assert effectivity.min() >= 1 - 1e-9
        assert effectivity.max() <= 1.3
    modes = grid.to_modes(darcy.residual(zero, a, grid))
    crude = (modes.square() / difference_eigenvalues(grid, a.device)).sum((-2, -1)) / 3
    assert (darcy.error_bound(zero, a, grid) <= crude.sqrt()).all()


def test_energy_norm_is_the_integral_of_the_coefficient_times_the_gradient_squared():
    """u = sin πx sin πy: ∫ 3 |∇u|² = 3 π²/2, up to the second order of the differences."""
    grid = Grid.dirichlet(201, 201)
    y, x = (torch.sin(math.pi * p) for p in grid.points())
    a = torch.full((1, *grid.shape), 3.0, dtype=torch.float64)
    norm = Darcy().energy_norm((y[:, None] * x)[None], a, grid)
    assert norm.item() ** 2 == pytest.approx(1.5 * math.pi**2, rel=1e-4)


def test_a_prediction_is_made_good_to_a_guaranteed_error_in_few_iterations():
    """A smooth error of 5 % and one of 1e-5, which is good enough already; the exact solution judges."""
    grid = Grid.dirichlet(65, 65)
    a = two_phase(grid, 12.0, 3.0, count=4)
    darcy = Darcy(tolerance=1e-11)
    u = darcy.solve(a, grid)
    bump = torch.sin(math.pi * grid.points()[0])[:, None] * torch.sin(
        2 * math.pi * grid.points()[1]
    )
    start = u * (1 + 0.05 * bump)
    start[0] = u[0] * (1 + 1e-5 * bump)
    made_good, iterations = darcy.improved(start, a, grid, tolerance=1e-3)
    error = darcy.energy_norm(made_good - u, a, grid) / darcy.energy_norm(u, a, grid)
    assert error.max() <= 1e-3
    assert iterations[0] == 0
    assert torch.equal(made_good[0], start[0])
    _, cold = darcy.improved(torch.zeros_like(u), a, grid, tolerance=1e-3)
    assert 0 < iterations[1:].max() < cold[1:].min()


def test_making_good_refuses_what_it_cannot_do():
    grid = Grid.dirichlet(9, 9)
    a = torch.ones(1, 9, 9, dtype=torch.float64)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Darcy().improved(a, a, grid, tolerance=0.0)
    with pytest.raises(ValueError, match="differ in shape"):
        Darcy().improved(a, a.expand(3, -1, -1), grid)
    with pytest.raises(ValueError, match="the pressure holds values that are not finite"):
        Darcy().improved(torch.full_like(a, math.nan), a, grid)
    with pytest.raises(ValueError, match="the forcing holds values that are not finite"):
        Darcy().error_bound(a, a, grid, math.nan)
    a[0, 4, 4] = 1e4
    with pytest.raises(ArithmeticError, match="after 1 of 1 iterations"):
        Darcy(max_iterations=1).improved(a, a, grid, tolerance=1e-8)
    with pytest.raises(ArithmeticError, match="where float64 cannot meet it"):
        Darcy().improved(a, a, grid, tolerance=1e-20)


def test_the_guarantee_holds_for_fields_in_single_precision():
    grid = Grid.dirichlet(85, 85)
    a = two_phase(grid, 1e4, 1.0, count=2).float()
    good, _ = Darcy().improved(torch.zeros_like(a), a, grid, tolerance=1e-7)
    bound, size = Darcy().error_bound(good, a, grid), Darcy().energy_norm(good, a.double(), grid)
    assert (bound / size).max() <= 1e-7


def test_a_single_iteration_may_be_enough_and_nothing_comes_of_no_forcing():
    grid, a = Grid.dirichlet(9, 9), torch.ones(1, 9, 9, dtype=torch.float64)
    _, iterations = Darcy(max_iterations=1).improved(0 * a, a, grid)
    assert iterations.tolist() == [1]
    pressure, iterations = Darcy().improved(0 * a, a, grid, 0.0)
    assert not pressure.any()
    assert iterations.tolist() == [0]
