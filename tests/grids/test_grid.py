"""The eigenbasis of each boundary kind, against its closed form."""

from __future__ import annotations

import math

import pytest
import torch

from sobolev import Axis, Grid
from sobolev.grids.axis import BOUNDARIES

SIZES = (4, 5, 8, 9, 16, 31)


def field_on(grid: Grid) -> torch.Tensor:
    return grid.without_border(torch.randn(3, *grid.shape, dtype=torch.float64))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("size", SIZES)
def test_coefficients_are_inner_products_with_the_eigenfunctions(boundary, size):
    axis = Axis("x", size, length=2.3, origin=-0.4, boundary=boundary)
    u = field_on(Grid(axis))
    eigenfunctions = axis.basis(axis.points())
    by_quadrature = u @ (eigenfunctions * axis.spacing).T
    assert torch.allclose(axis.to_modes(u), by_quadrature, atol=1e-13)
    assert torch.allclose(axis.to_modes(u) @ eigenfunctions, u, atol=1e-12)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_eigenfunctions_solve_the_eigenvalue_problem(boundary):
    axis = Axis("x", 9, length=1.7, origin=0.3, boundary=boundary)
    x = torch.linspace(0.5, 1.6, 7, dtype=torch.float64)
    h = 1e-4
    second = (axis.basis(x + h) - 2 * axis.basis(x) + axis.basis(x - h)) / h**2
    assert torch.allclose(
        -second, Grid(axis).eigenvalues()[:, None] * axis.basis(x), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(("boundary", "ends"), [("dirichlet", "values"), ("neumann", "slopes")])
def test_eigenfunctions_obey_the_boundary_condition(boundary, ends):
    axis = Axis("x", 7, length=1.7, origin=0.3, boundary=boundary)
    x = torch.tensor([0.3, 2.0], dtype=torch.float64)
    values = (
        axis.basis(x) if ends == "values" else (axis.basis(x + 1e-6) - axis.basis(x - 1e-6)) / 2e-6
    )
    assert values.abs().max() < 1e-6


@pytest.mark.parametrize(
    "kinds", [("periodic",), ("dirichlet", "neumann"), ("neumann", "periodic", "dirichlet")]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_modes_come_back_and_carry_the_energy(kinds, dtype):
    grid = Grid(
        *(
            Axis(n, 7 + i, 1.5, boundary=b)
            for i, (n, b) in enumerate(zip("zyx", kinds, strict=False))
        )
    )
    u = field_on(grid).to(dtype)
    c = grid.to_modes(u)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert c.dtype == dtype
    assert c.shape[1:] == grid.eigenvalues().shape
    assert torch.allclose(grid.from_modes(c), u, atol=tolerance)
    cell = math.prod(axis.spacing for axis in grid.axes)
    assert torch.allclose(c.square().sum(), u.square().sum() * cell, rtol=tolerance)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_shells_of_a_grid_with_one_mode(boundary):
    """The mean alone, or sin πx sin πy with wavenumber √2 π in the shell of π."""
    n = 3 if boundary == "dirichlet" else 1
    wavenumbers, shell = Grid(*(Axis(name, n, boundary=boundary) for name in "yx")).shells()
    nodal = boundary == "dirichlet"
    assert wavenumbers.tolist() == pytest.approx([0.0, math.pi] if nodal else [0.0])
    assert shell.tolist() == [int(nodal)]


def test_eigenvalues_of_a_product_grid_add_up():
    grid = Grid(Axis("y", 5, 2.0, boundary="dirichlet"), Axis("x", 4, 3.0))
    y = [(k * math.pi / 2.0) ** 2 for k in (1, 2, 3)]
    x = [(k * 2 * math.pi / 3.0) ** 2 for k in (0, 1, 2, 1)]
    expected = torch.tensor([[a + b for b in x] for a in y], dtype=torch.float64)
    assert torch.allclose(grid.eigenvalues(), expected)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_transforms_are_differentiable(boundary):
    grid = Grid(Axis("y", 5, boundary=boundary), Axis("x", 6, boundary=boundary))
    u = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    c = torch.randn(2, *grid.mode_shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(grid.to_modes, (u,))
    assert torch.autograd.gradcheck(grid.from_modes, (c,))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("finer", [9, 10, 17, 24])
def test_resampling_evaluates_the_expansion_and_comes_back(boundary, size, finer):
    grid = Grid(Axis("x", size, 2.0, 0.5, boundary))
    u, target = field_on(grid), grid.resized(finer)
    expansion = grid.to_modes(u) @ grid.axes[0].basis(target.points()[0])
    fine = grid.resample(u, target)
    assert torch.allclose(fine, expansion, atol=1e-12)
    assert torch.allclose(target.resample(fine, grid), u, atol=1e-12)


def test_cell_centres_are_resampled_to_nodes_exactly():
    cells, nodes = Grid.neumann(12, 10), Grid.dirichlet(13, 9)

    def field(grid):
        y, x = grid.points()
        return torch.cos(3 * math.pi * y)[:, None] * torch.cos(5 * math.pi * x) + 0.3

    assert torch.allclose(cells.resample(field(cells), nodes), field(nodes), atol=1e-13)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_subsampling_picks_the_values_at_shared_nodes(boundary):
    fine = Grid(Axis("x", 46 if boundary == "dirichlet" else 45, boundary=boundary))
    coarse = fine.resized(16 if boundary == "dirichlet" else 15)
    assert torch.allclose(fine.subsample(fine.points()[0], coarse), coarse.points()[0])
    with pytest.raises(ValueError, match="can be subsampled to"):
        fine.subsample(fine.points()[0], fine.resized(7))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Axis("x", 8, boundary="free"), "must be one of periodic, dirichlet, neumann"),
        (lambda: Axis("x", 8, length=-1.0), "positive length"),
        (lambda: Axis("x", 2, boundary="dirichlet"), "at least 3 nodes"),
        (lambda: Axis("x", 0), "at least 1 nodes"),
        (lambda: Grid(Axis("x", 4), Axis("x", 4)), "different names"),
        (
            lambda: Grid.periodic(4, 4).to_modes(torch.zeros(2, 4, 5)),
            r"shape \(\.\.\., 4, 4\), got \(2, 4, 5\)",
        ),
        (
            lambda: Grid.periodic(4).to_modes(torch.zeros(4, dtype=torch.int64)),
            "float32 or float64",
        ),
        (
            lambda: Grid.periodic(4).resample(torch.zeros(4), Grid.periodic(8, length=2.0)),
            "one domain",
        ),
        (lambda: Grid.periodic(4, 4).resized(8), "2 axes"),
    ],
)
def test_bad_grids_and_fields_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_border_fades_over_a_cell_of_a_coarser_grid():
    """On the coarser grid's nodes nothing else changes; a field that is linear across its border cells is
    left without a kink there."""
    coarse, fine = Grid.dirichlet(5, 9), Grid.dirichlet(17, 33)
    u = torch.randn(2, *fine.shape, dtype=torch.float64)
    v = fine.without_border(u, cells=coarse)
    assert torch.equal(v, fine.without_border(v))
    nodes = fine.subsample(v, coarse)
    assert torch.allclose(nodes, coarse.without_border(fine.subsample(u, coarse)), atol=1e-15)
    ones = fine.without_border(torch.ones_like(u), cells=coarse)
    ramps = [
        (axis.points() / 0.25 / scale).clamp(max=1)
        for axis, scale in zip(fine.axes, (1, 0.5), strict=True)
    ]
    y, x = (torch.minimum(ramp, ramp.flip(0)) for ramp in ramps)
    assert torch.allclose(ones, (y[:, None] * x).expand_as(u), atol=1e-14)
