"""The linear V-cycle: its ghosts, its symmetry, and the textbook multigrid it contains."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.sparse as sparse
import torch
from torch import Tensor, nn

from sobolev import Axis
from sobolev.operators.layers.vcycle import CycleOptions, Level, VCycle, extended

BOUNDARIES = ("dirichlet", "neumann", "periodic")
each_boundary = pytest.mark.parametrize("boundary", BOUNDARIES)
each_restriction = pytest.mark.parametrize("restrict", ["data", "residual"])


def free(boundary, *, data=2, unknown=3, smoothings=((2, 1), (1, 1), (2, 0)), **options) -> VCycle:
    return VCycle(data, unknown, smoothings, CycleOptions(tuple(boundary), **options)).double()


@pytest.mark.parametrize("kinds", [(b,) for b in BOUNDARIES] + [("dirichlet", "dirichlet"),
                                   ("periodic", "neumann", "dirichlet")])  # fmt: skip
def test_ghosts_continue_the_eigenfunctions_of_the_laplacian(kinds):
    axes = [Axis("", 6 + i, boundary=b) for i, b in enumerate(kinds)]

    def samples(beyond: bool) -> Tensor:
        field = torch.ones((), dtype=torch.float64)
        for axis in axes:
            x = axis.points()
            if beyond:
                x = torch.cat([x[:1] - axis.spacing, x, x[-1:] + axis.spacing])
            field = field[..., None] * axis.basis(x)[axis.mode_count // 2]
        return field[None, None]

    assert torch.allclose(extended(samples(False), kinds), samples(True), atol=1e-13)


@each_boundary
@each_restriction
@pytest.mark.parametrize("space", [(17, 17), (12, 15)])
def test_is_linear(boundary, restrict, space):
    cycle = free((boundary, boundary), restrict=restrict)
    f, g = torch.randn(2, 3, 2, *space, dtype=torch.float64)
    assert torch.allclose(cycle(2 * f - 3 * g), 2 * cycle(f) - 3 * cycle(g), atol=1e-13)
    assert not cycle(0 * f).any()


@each_restriction
def test_commutes_with_shifts_by_one_cell_of_the_coarsest_periodic_grid_and_no_less(restrict):
    cycle = free(("periodic", "neumann"), restrict=restrict)
    f = torch.randn(2, 2, 24, 10, dtype=torch.float64)
    assert torch.allclose(cycle(f.roll(4, -2)), cycle(f).roll(4, -2), atol=1e-13)
    assert (cycle(f.roll(2, -2)) - cycle(f).roll(2, -2)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("restrict", "expected"), [("data", [3.5, 5.5, 9.5, 11.5]), ("residual", [2.0, 4, 7, 9])]
)
def test_two_levels_by_hand(restrict, expected):
    """u = S f = f; u′ = (1, 5); f′ is (2, 6) of the data, 0 of the residual; u′ goes half the way to
    f′ – to (1.5, 5.5) or (0.5, 2.5) – and is interpolated with weights ¾ and ¼."""
    cycle = free(["periodic"], data=1, unknown=1, smoothings=[(1, 0), (1, 0)], restrict=restrict)
    correction = cycle.finest.correction
    coarse = correction.coarser.before[0]
    for stencil, weights in (
        (cycle.start, [0, 1, 0]), (correction.A, [0, 1, 0]), (correction.Pi, [0, 1, 0]),
        (correction.R, [0, 0.5, 0.5]), (correction.P, [0.25, 0.75, 0.75, 0.25]),
        (coarse.A, [0, 1, 0]), (coarse.S, [0, 0.5, 0]),
    ):  # fmt: skip
        if stencil is not None:
            fill(stencil, torch.tensor(weights))
    u = cycle(torch.tensor([[[1.0, 3, 5, 7]]], dtype=torch.float64))
    assert u.flatten().tolist() == expected


def fill(stencil: nn.Module, weights: Tensor) -> None:
    with torch.no_grad():
        stencil.weight.copy_(weights.expand_as(stencil.weight))


def textbook(n: int, boundary: str) -> VCycle:
    """V(2, 2) for −Δ on five points: Jacobi damped by 0.8, transfers by linear interpolation, exact
    on the coarsest grid, where one sweep per eigenvalue of A is a direct solver."""
    levels = int(math.log2(n))
    direct = {"dirichlet": [1 / 4], "neumann": [1 / 2, 1 / 4], "periodic": [1 / 4, 1 / 8]}[boundary]
    cells = boundary == "neumann"
    restriction = torch.tensor([0, 0.5, 0.5] if cells else [0.25, 0.5, 0.25])
    interpolation = torch.tensor([0.25, 0.75, 0.75, 0.25] if cells else [0.5, 1, 0.5, 0])
    laplacian = torch.tensor([[0, -1, 0], [-1, 4, -1], [0, -1, 0.0]])
    centre = torch.zeros(3, 3)
    centre[1, 1] = 1.0
    cycle = free(
        (boundary, boundary), data=1, unknown=1, restrict="residual",
        smoothings=[(2, 2)] * (levels - 1) + [(len(direct), 0)],
    )  # fmt: skip
    h = Axis("", n, boundary=boundary).spacing
    fill(cycle.start, 0.2 * h**2 * centre)
    level: Level = cycle.finest
    while True:
        correction = level.correction
        sweeps = [*level.before, *level.after]
        weights = [0.2] * len(sweeps) if correction is not None else direct
        for sweep, weight in zip(sweeps, weights, strict=True):
            fill(sweep.A, laplacian / h**2)
            fill(sweep.S, weight * h**2 * centre)
        if correction is None:
            return cycle.requires_grad_(False)
        fill(correction.A, laplacian / h**2)
        fill(correction.Pi, torch.zeros(3, 3))
        fill(correction.R, torch.outer(restriction, restriction))
        fill(correction.P, torch.outer(interpolation, interpolation))
        level, h = correction.coarser, 2 * h


class Poisson:
    """The sparse five-point matrix of −Δ on the unknowns, and its factorisation by SuperLU."""

    def __init__(self, n: int, boundary: str) -> None:
        self.inner = slice(1, -1) if boundary == "dirichlet" else slice(None)
        m = n - 2 if boundary == "dirichlet" else n
        line = sparse.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(m, m)).tolil()
        if boundary == "periodic":
            line[0, -1] = line[-1, 0] = -1.0
        if boundary == "neumann":
            line[0, 0] = line[-1, -1] = 1.0
        one = sparse.identity(m)
        h = Axis("", n, boundary=boundary).spacing
        self.matrix = sparse.csc_matrix((sparse.kron(line, one) + sparse.kron(one, line)) / h**2)
        self.shape, self.singular = (m, m), boundary != "dirichlet"

    def residual(self, u: Tensor, f: Tensor) -> Tensor:
        inner = u[..., self.inner, self.inner]
        product = torch.from_numpy(self.matrix @ inner.flatten().numpy()).view(self.shape)
        residual = torch.zeros_like(f)
        residual[..., self.inner, self.inner] = f[..., self.inner, self.inner] - product
        return residual

    def solve(self, f: Tensor) -> Tensor:
        """Where constants are in the kernel one value is fixed, then the mean taken off."""
        right = f[..., self.inner, self.inner].flatten().numpy()
        inner, free = np.zeros_like(right), slice(int(self.singular), None)
        inner[free] = sparse.linalg.splu(self.matrix[free, free]).solve(right[free])
        u = torch.zeros_like(f)
        u[..., self.inner, self.inner] = torch.from_numpy(inner).view(self.shape)
        return u - u.mean() if self.singular else u


@each_boundary
@pytest.mark.parametrize("cells", [32, 64, pytest.param(128, marks=pytest.mark.slow)])
def test_contains_multigrid_whose_rate_does_not_depend_on_the_grid(boundary, cells):
    n = cells + 1 if boundary == "dirichlet" else cells
    problem, cycle = Poisson(n, boundary), textbook(n, boundary)
    f = problem.residual(torch.zeros(1, 1, n, n, dtype=torch.float64),
                         torch.randn(1, 1, n, n, dtype=torch.float64))  # fmt: skip
    f = f - f.mean() if problem.singular else f
    truth = problem.solve(f)
    u, errors = torch.zeros_like(f), [truth.norm()]
    for _ in range(8):
        u = u + cycle(problem.residual(u, f))
        errors.append(((u - u.mean() if problem.singular else u) - truth).norm())
    assert all(after < 0.2 * before for before, after in itertools.pairwise(errors))


def test_the_norm_is_that_of_the_corrected_field_over_all_its_channels_and_nodes():
    correction = free(("periodic", "dirichlet"), norm="layer").finest.correction
    u, f = 3 + torch.randn(2, 3, 8, 9, dtype=torch.float64), torch.randn(2, 2, 8, 9).double()
    v = correction(u, f).flatten(1)
    assert v.mean(1).abs().max() < 1e-12
    assert torch.allclose(v.square().mean(1), torch.ones(2, dtype=torch.float64), atol=1e-4)


@pytest.mark.parametrize("kinds", [("periodic", "dirichlet"), ("neumann", "neumann")])
def test_gradients_are_those_of_the_map(kinds):
    cycle = free(kinds, smoothings=[(1, 1), (1, 0)], restrict="residual")
    f = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(cycle, (f,), fast_mode=True)
