"""Darcy in boxes of one to three dimensions, with walls of all kinds and a permeability for each axis,
against sparse LU and manufactured solutions; its derivatives against differences."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch

from sobolev import Axis, GaussianRandomField, Grid
from sobolev.solvers import Darcy
from sobolev.solvers.elliptic.multigrid import Multigrid
from sobolev.solvers.elliptic.stiffness import Stiffness
from sobolev.solvers.elliptic.unknowns import Unknowns

KINDS = {"d": "dirichlet", "n": "neumann", "p": "periodic"}
SIZES = {1: (60,), 2: (23, 30), 3: (10, 9, 12)}
BOXES = ["d", "n", "p", "dn", "nd", "nn", "pd", "ddd", "ndn", "nnn", "dpn"]


def box(walls: str, *sizes: int, lengths: tuple[float, ...] = (1.0, 1.3, 0.9)) -> Grid:
    """A box with these walls along its axes."""
    names = ("z", "y", "x")[-len(walls) :]
    sizes = sizes or SIZES[len(walls)]
    parts = zip(names, walls, sizes, lengths, strict=False)
    return Grid(*(Axis(name, n, length, boundary=KINDS[w]) for name, w, n, length in parts))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def medium(grid: Grid, contrast: float, *lead: int) -> torch.Tensor:
    """A smooth random field stretched to the contrast."""
    psi = noise(*lead, *grid.shape, seed=3)
    for dim in range(-grid.ndim, 0):
        for _ in range(3):
            psi = psi + psi.roll(1, dim) + psi.roll(-1, dim)
    flat = psi.flatten(-grid.ndim)
    low, high = (t.view(*lead, *[1] * grid.ndim) for t in (flat.amin(-1), flat.amax(-1)))
    return contrast ** ((psi - low) / (high - low))


def given(grid: Grid, count: int = 2) -> dict:
    """A forcing, values on Dirichlet walls and a flux through Neumann walls, such that a solution exists."""
    forcing = noise(count, *grid.shape, seed=1)
    rest = {}
    flux = {}
    for i, axis in enumerate(grid.axes):
        if axis.boundary == "neumann":
            wall = [n for j, n in enumerate(grid.shape) if j != i]
            flux[axis.name] = (noise(count, *wall, seed=4 + i), 0.7)
    if Unknowns(grid).closed:
        zero = torch.zeros_like(forcing)
        inflow = Darcy().residual(zero, 1 + zero, grid, zero, flux=flux)
        total = (forcing + inflow).flatten(1).mean(1)
        forcing = forcing - total.view(-1, *[1] * grid.ndim)
    else:
        rest["boundary"] = noise(count, *grid.shape, seed=2)
    return {"forcing": forcing, "flux": flux, **rest}


def sparse_lu(a, grid, forcing, boundary=None, flux=None) -> np.ndarray:
    """One sample, edge by edge between all nodes; those on Dirichlet walls are then taken out, and without
    any the mean is asked to be zero."""
    number = np.arange(math.prod(grid.shape)).reshape(grid.shape)
    matrix = scipy.sparse.csr_array((number.size, number.size))
    f = forcing.numpy().copy()
    fixed = np.zeros(grid.shape, dtype=bool)
    for i, axis in enumerate(grid.axes):
        own = (a[i] if a.ndim > grid.ndim else a).numpy()
        here, there = number, np.roll(number, -1, i)
        if axis.boundary != "periodic":
            here, there = (np.take(t, range(axis.size - 1), i) for t in (here, there))
        here, there = here.ravel(), there.ravel()
        face = (own.ravel()[here] + own.ravel()[there]) / 2 / axis.spacing**2
        for p, q, sign in (
            (here, here, 1),
            (there, there, 1),
            (here, there, -1),
            (there, here, -1),
        ):
            matrix += scipy.sparse.coo_array((sign * face, (p, q)), shape=matrix.shape).tocsr()
        ends = [tuple([slice(None)] * i + [end]) for end in (0, -1)]
        if axis.boundary == "dirichlet":
            for end in ends:
                fixed[end] = True
        elif axis.boundary == "neumann" and flux:
            for end, inflow in zip(ends, flux[axis.name], strict=True):
                f[end] += np.asarray(inflow) / axis.spacing
    if not fixed.any():
        ones = np.ones((number.size, 1))
        bordered = scipy.sparse.block_array([[matrix, ones], [ones.T, None]]).tocsc()
        solved = scipy.sparse.linalg.spsolve(bordered, np.append(f.ravel(), 0.0))
        return solved[:-1].reshape(grid.shape)
    u = np.where(fixed, 0.0 if boundary is None else boundary.numpy(), 0.0).ravel()
    free = ~fixed.ravel()
    right = f.ravel() - matrix @ u
    u[free] = scipy.sparse.linalg.spsolve(matrix[free][:, free].tocsc(), right[free])
    return u.reshape(grid.shape)


def preconditioners(walls: str) -> list[str]:
    return ["poisson"] if "p" in walls else ["poisson", "multigrid"]


@pytest.mark.parametrize(
    ("walls", "preconditioner"), [(w, p) for w in BOXES for p in preconditioners(w)]
)
@pytest.mark.parametrize("per_axis", [False, True], ids=["isotropic", "diagonal"])
def test_agrees_with_sparse_lu(walls, preconditioner, per_axis):
    grid = box(walls)
    a = medium(grid, 20.0, 2, grid.ndim) if per_axis else medium(grid, 20.0, 2)
    data = given(grid)
    darcy = Darcy(tolerance=1e-12, preconditioner=preconditioner)
    solution = darcy.solution(a, grid, **data)
    for i, u in enumerate(solution.pressure):
        one = {
            "forcing": data["forcing"][i],
            "flux": {k: (low[i], high) for k, (low, high) in data["flux"].items()},
        }
        if "boundary" in data:
            one["boundary"] = data["boundary"][i]
        truth = sparse_lu(a[i], grid, **one)
        assert np.linalg.norm(u.numpy() - truth) < 1e-9 * np.linalg.norm(truth)
    left = darcy.residual(solution.pressure, a, grid, **data)
    assert left.norm() < 1e-7 * solution.pressure.norm()


def exact(kind: str, x: list[torch.Tensor]) -> torch.Tensor:
    """A pressure without symmetry, and positive permeabilities, one for each axis."""
    total = sum((i + 1.0) * t for i, t in enumerate(x))
    if kind == "pressure":
        return torch.sin(total + 0.3) + 0.4 * torch.cos(2 * x[-1])
    return 1.5 + torch.sin(total + float(kind))


def manufactured(walls: str, cells: int, per_axis: bool) -> float:
    """The largest error for a given pressure, whose forcing and flux automatic differentiation finds."""
    sizes = [cells + (w == "d") for w in walls]
    grid = box(walls, *sizes)
    mesh = torch.meshgrid(*grid.points(), indexing="ij")

    def flows(points: list[torch.Tensor]) -> list[torch.Tensor]:
        u = exact("pressure", points)
        slopes = torch.autograd.grad(u.sum(), points, create_graph=True)
        return [exact(str(i * per_axis), points) * slope for i, slope in enumerate(slopes)]

    points = [t.clone().requires_grad_() for t in mesh]
    forcing = 0
    for flow, x in zip(flows(points), points, strict=True):
        forcing = forcing - torch.autograd.grad(flow.sum(), x, retain_graph=True)[0]
    flux = {}
    for i, axis in enumerate(grid.axes):
        if axis.boundary == "neumann":
            at = []
            for end, place in ((0, axis.origin), (-1, axis.origin + axis.length)):
                wall = [t.select(i, end).clone() for t in mesh]
                wall[i] = torch.full_like(wall[i], place)
                out = flows([t.requires_grad_() for t in wall])[i].detach()
                at.append((-out if end == 0 else out)[None])
            flux[axis.name] = tuple(at)
    a = torch.stack([exact(str(i * per_axis), list(mesh)) for i in range(grid.ndim)])
    u = exact("pressure", list(mesh))
    if "d" in walls:
        solved = Darcy().solve(a[None], grid, forcing[None], boundary=u[None], flux=flux)[0]
    else:  # the discrete problem is balanced up to its own error
        zero = torch.zeros(1, *grid.shape, dtype=torch.float64)
        balance = Darcy().residual(zero, 1 + zero, grid, forcing[None], flux=flux).mean()
        solved = Darcy().solve(a[None], grid, (forcing - balance)[None], flux=flux)[0]
        u = u - u.mean()
    return (solved - u).abs().max().item()


@pytest.mark.parametrize("walls", ["d", "n", "dd", "dn", "nn", "dnd", "nnn"])
def test_second_order_with_given_pressures_and_fluxes(walls):
    errors = [manufactured(walls, cells, per_axis=len(walls) > 1) for cells in (8, 16, 32)]
    first, second = (math.log2(coarse / fine) for coarse, fine in pairwise(errors))
    assert first > 1.6
    assert second == pytest.approx(2.0, abs=0.2)


def test_a_flow_that_is_given_is_found_exactly():
    """u = g y is linear: the flow g goes in through one wall and out through the other."""
    grid = box("np", 9, 4)
    a = torch.full((1, *grid.shape), 2.0, dtype=torch.float64)
    u = Darcy().solve(a, grid, 0.0, flux={"y": (-3.0, 3.0)})
    y = grid.points()[0] - grid.points()[0].mean()
    assert torch.allclose(u, (1.5 * y)[:, None].expand(a.shape), atol=1e-9)


@pytest.mark.parametrize("walls", ["n", "dn", "nn", "pd", "ddd", "ndn", "nnn"])
@pytest.mark.parametrize("per_axis", [False, True], ids=["isotropic", "diagonal"])
def test_error_bound_holds_and_is_at_most_the_root_of_the_contrast_above_the_error(walls, per_axis):
    grid = box(walls)
    contrast = 30.0
    a = medium(grid, contrast, 2, grid.ndim) if per_axis else medium(grid, contrast, 2)
    data = given(grid)
    darcy = Darcy(tolerance=1e-12)
    u = darcy.solve(a, grid, **data)
    rough = grid.without_border(noise(*u.shape, seed=8))
    smooth = grid.from_modes(noise(2, *grid.mode_shape, seed=9) / (1 + grid.eigenvalues()))
    for error in (rough, smooth, 1e-5 * smooth):
        bound = darcy.error_bound(u + error, a, grid, **data)
        effectivity = bound / darcy.energy_norm(error, a, grid)
        assert effectivity.min() >= 1 - 1e-6
        assert effectivity.max() <= math.sqrt(contrast) + 1e-6


@pytest.mark.parametrize("walls", ["dn", "nn", "ddd", "ndn"])
def test_a_prediction_is_made_good_to_a_guaranteed_error(walls):
    grid = box(walls)
    a, data = medium(grid, 30.0, 2, grid.ndim), given(grid)
    u = Darcy(tolerance=1e-12).solve(a, grid, **data)
    start = u + 0.1 * noise(*u.shape, seed=5)
    start[0] = u[0] * (1 + 1e-9)
    good, iterations = Darcy().improved(start, a, grid, **data, tolerance=1e-3)
    error = Darcy().energy_norm(good - u, a, grid) / Darcy().energy_norm(u, a, grid)
    assert error.max() <= 1e-3
    assert iterations[0] == 0 < iterations[1]
    if "boundary" in data:
        border = good - grid.without_border(good)
        assert torch.equal(border, data["boundary"] - grid.without_border(data["boundary"]))


def scalar_fields(grid: Grid) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    a, forcing, boundary = (noise(1, *grid.shape, seed=s) for s in (0, 1, 2))
    return tuple(t.requires_grad_() for t in (a.exp(), forcing, boundary))


@pytest.mark.parametrize(
    ("walls", "preconditioner", "second"), [("dn", "multigrid", True), ("npd", "poisson", False)]
)
def test_derivatives_in_permeability_forcing_boundary_and_flux(walls, preconditioner, second):
    grid = box(walls, *(4, 5, 3)[: len(walls)])
    darcy = Darcy(tolerance=1e-12, preconditioner=preconditioner)
    name = grid.dims[walls.index("n")]
    wall = [n for n, kind in zip(grid.shape, walls, strict=True) if kind != "n"]
    flux = noise(1, *wall, seed=3).requires_grad_()

    def solve(a, forcing, boundary, flux):
        return darcy.solve(a, grid, forcing, boundary=boundary, flux={name: (flux, 2 * flux)})

    arguments = (*scalar_fields(grid), flux)
    assert torch.autograd.gradcheck(solve, arguments, atol=1e-6, fast_mode=True)
    if second:
        assert torch.autograd.gradgradcheck(solve, arguments, atol=1e-6, fast_mode=True)


def test_derivatives_without_a_dirichlet_wall_and_with_a_permeability_for_each_axis():
    grid = box("nn", 4, 5)
    a = noise(1, 2, *grid.shape).exp().requires_grad_()
    source = noise(1, *grid.shape, seed=1).requires_grad_()

    def solve(a, source):
        return Darcy(tolerance=1e-12).solve(a, grid, source - source.mean())

    assert torch.autograd.gradcheck(solve, (a, source), atol=1e-6, fast_mode=True)


def test_a_gradient_takes_one_more_solve(monkeypatch):
    grid = box("dd", 9, 9)
    a, *_ = scalar_fields(grid)
    counted = []
    found = Darcy()._solver.__class__._found

    def counting(self, *args):
        counted.append(1)
        return found(self, *args)

    monkeypatch.setattr(Darcy()._solver.__class__, "_found", counting)
    Darcy().solve(a, grid).square().sum().backward()
    assert len(counted) == 2
    assert a.grad.isfinite().all()
    assert not Darcy().solve(a.detach(), grid).requires_grad


def two_phase(n: int, contrast: float, seed: int = 5) -> torch.Tensor:
    cells = Grid.neumann(n, n, n)
    psi = cells.resample(
        GaussianRandomField(cells, 2.0, 3.0).sample(1, seed), Grid.dirichlet(n, n, n)
    )
    return torch.where(psi >= 0, contrast, 1.0).double()


@pytest.mark.slow
def test_iterations_in_three_dimensions_do_not_grow_with_the_grid():
    """Of a two-phase medium of contrast 10, its interfaces as rough as the grid."""
    for kind, sizes, most in (("poisson", (17, 33), 36), ("multigrid", (33, 65), 13)):
        solver = Darcy(tolerance=1e-8, preconditioner=kind)
        counts = [
            int(solver.solution(two_phase(n, 10.0), Grid.dirichlet(n, n, n)).iterations)
            for n in sizes
        ]
        assert max(counts) - min(counts) <= 3
        assert max(counts) <= most


@pytest.mark.parametrize("walls", ["ddd", "ndn"])
def test_a_cycle_in_three_dimensions_is_symmetric_definite_and_never_overshoots(walls):
    """0 < λ(M A) ≤ 1, as in two dimensions."""
    grid = box(walls, 8, 9, 8) if walls == "ndn" else box(walls, 9, 9, 11)
    a, nodes = medium(grid, 1e3, 1), Unknowns(grid)
    columns = torch.eye(math.prod(nodes.shape), dtype=torch.float64).view(-1, *nodes.shape)
    multigrid = Multigrid(a.expand(len(columns), *grid.shape), grid)
    M, A = multigrid(columns).flatten(1).T, Stiffness(a, grid)(columns).flatten(1).T
    assert multigrid.levels
    assert (M - M.T).abs().max() < 1e-12 * M.abs().max()
    root = torch.linalg.cholesky((A + A.T) / 2)
    spectrum = torch.linalg.eigvalsh(root.T @ (M + M.T) / 2 @ root)
    assert spectrum.min() > 0
    assert spectrum.max() < 1 + 1e-6


def test_multigrid_is_exact_in_one_dimension():
    grid = box("d", 1000)
    a = medium(grid, 1e4, 1)
    solution = Darcy(tolerance=1e-8).solution(a, grid)
    assert solution.preconditioner == ("multigrid",)
    assert solution.iterations.item() == 1


def test_a_sample_in_three_dimensions_does_not_depend_on_its_batch():
    media = [two_phase(11, contrast, seed) for seed, contrast in enumerate((1.0, 1e3, 30.0, 2e3))]
    grid = Grid.dirichlet(11, 11, 11)
    solver = Darcy(preconditioner="multigrid")
    together = solver.solution(torch.cat(media), grid)
    for i, a in enumerate(media):
        alone = solver.solution(a, grid)
        assert together.iterations[i] == alone.iterations[0]
        assert torch.allclose(together.pressure[i], alone.pressure[0], rtol=1e-10, atol=1e-16)


def test_what_flows_in_must_flow_out_where_no_wall_holds_the_pressure():
    grid = box("nn", 8, 8)
    a = torch.ones(3, 8, 8, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"must have mean zero. 3 of 3 samples.*of mean 1 and"):
        Darcy().solve(a, grid)
    with pytest.raises(ValueError, match="what flows in must flow out"):
        Darcy().solve(a, grid, 0.0, flux={"y": (1.0, 1.0)})
    u = Darcy().solve(a, grid, -2.0 / 1.3, flux={"x": (1.0, 1.0)})
    assert u.mean((1, 2)).abs().max() < 1e-12


def test_what_does_not_fit_is_refused():
    flat = box("dn", 8, 9)
    a = torch.ones(2, 8, 9, dtype=torch.float64)
    with pytest.raises(ValueError, match="walls of Neumann axes, 'x'; got 'y'"):
        Darcy().solve(a, flat, flux={"y": (0.0, 0.0)})
    with pytest.raises(ValueError, match="the flux along 'x' is a pair"):
        Darcy().solve(a, flat, flux={"x": (1.0,)})
    with pytest.raises(ValueError, match=r"flux along 'x' of shape \(9,\) does not broadcast"):
        Darcy().solve(a, flat, flux={"x": (torch.ones(9), 0.0)})
    with pytest.raises(ValueError, match=r"boundary of shape \(3, 3\) does not broadcast"):
        Darcy().solve(a, flat, boundary=torch.ones(3, 3))
    with pytest.raises(ValueError, match="the boundary holds values that are not finite"):
        Darcy().solve(a, flat, boundary=math.nan)
    with pytest.raises(ValueError, match="those of Dirichlet axes, and there is none"):
        Darcy().solve(a, box("nn", 8, 9), boundary=1.0)
    with pytest.raises(
        ValueError, match=r"\(batch, y, x\), or \(batch, 2, y, x\).*got \(2, 3, 8, 9\)"
    ):
        Darcy().solve(a[:, None].expand(-1, 3, -1, -1), flat)
    with pytest.raises(ValueError, match="one to three axes"):
        Darcy().solve(a, Grid(*(Axis(name, 4) for name in "wzyx")))
    with pytest.raises(ValueError, match="on periodic ones Darcy"):
        Darcy(preconditioner="multigrid").solve(a, box("dp", 8, 9))
