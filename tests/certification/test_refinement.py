"""Refinement against exact flows, dense least squares and the solver."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
import xarray as xr

from sobolev import Surrogate, sobolev_norm
from sobolev.__main__ import main
from sobolev.certification import refine, residual_norm
from sobolev.certification.flow_refinement import FlowProblem
from sobolev.certification.refinement import refined
from sobolev.datasets import DarcyRecipe, NavierStokesRecipe
from sobolev.datasets.loading.windows import Window
from sobolev.grids.description import axis_coords
from sobolev.grids.variables import Variable
from sobolev.operators import FNO, SpatioTemporalFNO, Trajectory
from sobolev.solvers import Darcy
from sobolev.solvers.least_squares import least_squares

N, INTERVAL = 16, 0.1
VORTICITY = Variable("vorticity", "vorticity", "1")
WINDOW = Window(2, 4)


def flow_surrogate(forcing="fno", viscosity=0.01, bias=0.0, operator=None):
    """An ST-FNO whose output layer is its bias alone, of this size; 0 predicts that nothing moves."""
    recipe = NavierStokesRecipe(
        viscosity=viscosity, forcing=forcing, solver_resolution=N, interval=INTERVAL, time=1.0
    )
    inner = SpatioTemporalFNO(1, 1, modes=(3, 3, 3), width=4, depth=2, latent_steps=4)
    torch.nn.init.zeros_(inner.output.weight)
    torch.nn.init.normal_(inner.output.bias, std=bias)
    operator = operator or Trajectory(inner, history=2, horizon=4)
    inputs, outputs = WINDOW.inputs([VORTICITY]), WINDOW.outputs([VORTICITY])
    scales = {v.name: (0.0, 1.0) for v in [*inputs, *outputs]}
    record = {"recipe": recipe.configuration(), "window": [2, 4, 1], "interval": INTERVAL}
    return Surrogate(operator, recipe.grid(N), inputs, outputs, scales, {"data": record}).eval()


def turbulence(surrogate, batch=2, frames=6):
    """Trajectories of the solver, in steps so small that they count as exact."""
    generator = torch.Generator().manual_seed(1)
    grid, flow = surrogate.grid, NavierStokesRecipe(**_arguments(surrogate)).flow
    flow.step = 0.01
    kept = (grid.eigenvalues() < (2 * math.pi * 4) ** 2) & (grid.eigenvalues() > 0)
    modes = torch.randn(batch, *grid.mode_shape, dtype=torch.float64, generator=generator)
    start = grid.from_modes(5 * modes * kept / (1 + grid.eigenvalues()).sqrt())
    return flow.solve(start, grid, [INTERVAL * i for i in range(frames)])


def _arguments(surrogate):
    configuration = dict(surrogate.provenance["data"]["recipe"])
    configuration.pop("class")
    return configuration


def error(fields, exact, grid, order):
    missed = sobolev_norm(fields - exact, grid, order).square().sum(1)
    return (missed / sobolev_norm(exact, grid, order).square().sum(1)).sqrt()


def test_forced_flows_become_as_accurate_as_asked_for_in_both_norms():
    surrogate = flow_surrogate(bias=0.02)
    exact = turbulence(surrogate)
    given, wanted = exact[:, :2], exact[:, 2:]
    with torch.no_grad():
        prediction = surrogate(given).double()
    for tolerance, factor in ((1e-2, 5), (1e-4, 1000)):
        found = refined(surrogate, given, tolerance=tolerance)
        assert (found.residual_after <= tolerance).all()
        for order in (0.0, -1.0):
            before = error(prediction, wanted, surrogate.grid, order)
            after = error(found.fields, wanted, surrogate.grid, order)
            assert (factor * after < before).all()
        assert (error(found.fields, wanted, surrogate.grid, 0.0) < 2 * found.residual_after).all()
    assert torch.allclose(found.residual_before, residual_norm(surrogate, given), rtol=1e-5)


def test_a_steady_flow_is_found_exactly_and_left_alone_once_it_is_predicted():
    """ω = f / (ν|k|²) on one shell of |k| does not advect itself."""
    surrogate = flow_surrogate(forcing="symmetric", viscosity=0.02)
    y, x = torch.meshgrid(*surrogate.grid.points(), indexing="ij")
    force = 0.1 * ((4 * math.pi * x).cos() + (4 * math.pi * y).cos())
    steady = (force / (0.02 * 16 * math.pi**2)).expand(1, 2, N, N)
    untouched = refined(surrogate, steady, tolerance=1e-6)
    assert untouched.iterations.tolist() == [0]
    assert torch.allclose(untouched.fields, steady[:, :1].expand(-1, 4, -1, -1), atol=1e-7)
    wrong = flow_surrogate(forcing="symmetric", viscosity=0.02, bias=0.01)
    found = refined(wrong, steady, tolerance=0.0, max_iterations=300)
    assert found.residual_before.item() > 0.1
    assert torch.allclose(found.fields, steady[:, :1].expand(-1, 4, -1, -1), atol=1e-9)


@pytest.mark.slow
def test_newton_converges_quadratically_and_the_residual_never_grows():
    surrogate = flow_surrogate(bias=0.02)
    with torch.no_grad():
        problem = FlowProblem(surrogate, turbulence(surrogate, 1)[:, :2], None)
        sizes = [problem.residual().norm().item()]
        for _ in range(3):
            step, _, _ = least_squares(
                problem.tangent, problem.transposed(), problem.precondition, -problem.residual(),
                target=torch.zeros(1), gradient=1e-5, allowed=torch.tensor([100]),
            )  # fmt: skip
            problem.move(step)
            sizes.append(problem.residual().norm().item())
    a, b, c = sizes[:3]
    assert c < 10 * b * (b / a)
    given = turbulence(surrogate, 1)[:, :2]
    after = [
        refined(surrogate, given, tolerance=0.0, max_iterations=n).residual_after.item()
        for n in (1, 3, 6, 12, 24)
    ]
    assert after == sorted(after, reverse=True)


def test_the_adjoint_is_that_of_the_tangent_and_this_the_derivative_of_the_residual():
    surrogate = flow_surrogate(bias=0.02)
    with torch.no_grad():
        problem = FlowProblem(surrogate, turbulence(surrogate, 1)[:, :2], (4, 3, 4))
        transposed, r = problem.transposed(), problem.residual()
        d, e = (transposed(torch.randn_like(r)) for _ in range(2))
        image = problem.tangent(d)
        inner = torch.view_as_real(image).mul(torch.view_as_real(r)).sum()
        other = torch.view_as_real(d).mul(torch.view_as_real(transposed(r))).sum()
        assert torch.allclose(inner, other, rtol=1e-10)
        small = torch.view_as_real(problem.precondition(d)).mul(torch.view_as_real(e)).sum()
        swapped = torch.view_as_real(problem.precondition(e)).mul(torch.view_as_real(d)).sum()
        assert torch.allclose(small, swapped, rtol=1e-10)
        problem.move(d)
        assert torch.allclose(problem.residual(), r + image + problem.curvature(d), atol=1e-9)


def test_the_refined_trajectory_is_one_that_an_enlarged_output_layer_gives():
    """Its series lies in the span of the bias of ``enlarged``: nothing is left to fit."""
    surrogate = flow_surrogate(bias=0.02)
    given = turbulence(surrogate, 1)[:, :2]
    found = refined(surrogate, given, modes=(4, 4, 5), tolerance=1e-3)
    inner = surrogate.operator.operator
    enlarged = inner.enlarged((5, 5, 5)).output.double()
    torch.nn.init.zeros_(enlarged.bias)
    r = inner.latent(given.float()[:, None].movedim(2, -1)).double()
    columns = []
    with torch.no_grad():
        fields = surrogate(given).double()
        missed = (found.fields - fields)[0]
        missed = torch.fft.fft2(missed)[:, 1, 2] / N**2  # one wavenumber, all frames
        for m in range(5):
            for part in range(2):
                enlarged.bias[5 + 1, 5 + 2, m, 0, part] = 1.0
                w = enlarged(r, (N, N, 4))[0, 0].movedim(-1, 0) - r[0, 0, ..., :1].movedim(-1, 0)
                columns.append(torch.fft.fft2(w)[:, 1, 2] / N**2)
                enlarged.bias[5 + 1, 5 + 2, m, 0, part] = 0.0
    A = torch.stack(columns, 1)
    A, b = torch.view_as_real(A).movedim(1, 2).flatten(0, 1), torch.view_as_real(missed).flatten()
    x = torch.linalg.lstsq(A, b[:, None], driver="gelsd").solution[:, 0]
    assert (A @ x - b).norm() < 1e-6 * b.norm()


@pytest.mark.slow
def test_a_sample_does_not_depend_on_its_batch():
    surrogate = flow_surrogate(bias=0.02)
    given = turbulence(surrogate, 3)[:, :2] * torch.tensor([1.0, 0.1, 2.0])[:, None, None, None]
    together = refined(surrogate, given, tolerance=1e-3)
    for i in range(3):
        alone = refined(surrogate, given[i : i + 1], tolerance=1e-3)
        assert alone.iterations.tolist() == together.iterations[i : i + 1].tolist()
        assert torch.allclose(alone.fields, together.fields[i : i + 1], atol=1e-6)


# Darcy ------------------------------------------------------------------------------------------


def darcy_surrogate(n):
    recipe = DarcyRecipe(solver_resolution=n)
    operator = FNO(1, 1, modes=(3, 3), width=4, depth=1, boundary="dirichlet")
    scales = {"permeability": (7.0, 4.0), "pressure": (0.01, 0.005)}
    record = {"data": {"recipe": recipe.configuration()}}
    return Surrogate(operator, recipe.grid(n), recipe.inputs, recipe.outputs, scales, record).eval()


def permeabilities(n):
    return torch.where(torch.rand(2, 1, n, n) > 0.5, 12.0, 3.0).double()


def test_darcy_is_refined_to_the_least_squares_solution_of_scipy():
    n, K = 9, 3
    surrogate, a = darcy_surrogate(n), permeabilities(n)
    with torch.no_grad():
        prediction = surrogate(a)[:, 0].double().numpy()
    found = refined(surrogate, a, modes=(K, K), tolerance=0.0)
    h, inner = 1 / (n - 1), (n - 2) ** 2
    x = np.arange(1, n - 1) * h

    def five_points(a):  # fluxes through the four faces of a node, border pressure 0
        matrix = np.zeros((inner, inner))
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                row = (i - 1) * (n - 2) + j - 1
                for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                    face = (a[i, j] + a[i + di, j + dj]) / 2 / h**2
                    matrix[row, row] += face
                    if 0 < i + di < n - 1 and 0 < j + dj < n - 1:
                        matrix[row, (i + di - 1) * (n - 2) + j + dj - 1] -= face
        return matrix

    whiten = np.linalg.inv(scipy.linalg.cholesky(five_points(np.ones((n, n))), lower=True))
    waves = [
        np.outer(np.sin(np.pi * ky * x), np.sin(np.pi * kx * x)).ravel()
        for ky in range(1, K + 1)
        for kx in range(1, K + 1)
    ]
    series, forcing = np.stack(waves, 1), np.ones(inner)
    for i in range(2):
        A = five_points(a[i, 0].numpy())
        p = prediction[i, 1:-1, 1:-1].ravel()
        c, *_ = scipy.linalg.lstsq(whiten @ A @ series, whiten @ (forcing - A @ p))
        u = p + series @ c
        assert np.allclose(found.fields[i, 0, 1:-1, 1:-1].numpy().ravel(), u, rtol=1e-3, atol=1e-6)
        least = np.linalg.norm(whiten @ (forcing - A @ u)) / np.linalg.norm(whiten @ forcing)
        assert found.residual_after[i].item() == pytest.approx(least, rel=1e-5)


def test_with_all_modes_darcy_is_solved_and_its_residual_bounds_the_error():
    n = 17
    surrogate, a, darcy = darcy_surrogate(n), permeabilities(n), Darcy(tolerance=1e-13)
    grid, ones = surrogate.grid, torch.ones(2, n, n, dtype=torch.float64)
    found, exact = refined(surrogate, a, tolerance=1e-9), darcy.solve(a[:, 0], grid)
    assert torch.allclose(found.fields[:, 0], exact, atol=1e-8 * exact.abs().max().item())
    loose = refined(surrogate, a, tolerance=0.1)
    missed = darcy.energy_norm(loose.fields[:, 0] - exact, a[:, 0], grid)
    forcing = darcy.energy_norm(darcy.solve(ones, grid), ones, grid)  # ‖f‖ in H⁻¹
    bound = loose.residual_after * forcing / 3**0.5  # the least permeability is 3
    assert (missed <= bound).all()
    assert (bound <= 2.1 * missed).all()  # √contrast
    assert (loose.iterations > 0).all()
    assert (loose.iterations < found.iterations).all()


# Data sets, command line, bad input -------------------------------------------------------------


def stored(fields, grid, start=0.0):
    times = start + INTERVAL * np.arange(fields.shape[1])
    variable = (("sample", "time", *grid.dims), fields.numpy(), {"units": "1"})
    return xr.Dataset({"vorticity": variable}, {"time": times, **axis_coords(grid)})


@pytest.mark.slow
def test_a_dataset_is_refined_with_its_coordinates_by_call_and_by_command(tmp_path):
    surrogate = flow_surrogate(bias=0.02)
    given = turbulence(surrogate)[:, :2]
    dataset = stored(given, surrogate.grid, start=3.0).assign_coords(sample=[7, 8])
    found = refine(surrogate, dataset, modes=(4, 4, 5), tolerance=0.01, batch_size=1)
    expected = refined(surrogate, given, modes=(4, 4, 5), tolerance=0.01)
    assert found.vorticity.dims == ("sample", "time", "y", "x")
    assert found.sample.values.tolist() == [7, 8]
    assert np.allclose(found.time, 3.1 + INTERVAL * np.arange(1, 5))
    assert np.allclose(found.vorticity, expected.fields, atol=1e-9)
    assert np.allclose(found.residual_after, expected.residual_after)
    assert found.attrs["seconds"] > 0
    surrogate.save(tmp_path / "surrogate")
    dataset.to_netcdf(tmp_path / "given.nc", engine="h5netcdf")
    files = [str(tmp_path / name) for name in ("surrogate", "given.nc", "out.nc")]
    assert main(["refine", *files, "--modes", "4", "4", "5", "--tolerance", "0.01"]) == 0
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf") as written:
        assert np.allclose(written.vorticity, found.vorticity, atol=1e-9)
        assert written.residual_after.attrs["long_name"].startswith("relative H^-1")


def test_one_field_without_samples_stays_one_field():
    n = 9
    surrogate, a = darcy_surrogate(n), permeabilities(n)
    one = xr.Dataset({"permeability": (("y", "x"), a[0, 0].numpy())}, axis_coords(surrogate.grid))
    found = refine(surrogate, one, tolerance=1e-6)
    assert found.pressure.dims == ("y", "x")
    assert found.residual_after.item() <= 1e-6 < found.residual_before.item()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes": (9, 4, 5)}, "the 2/3 rule keeps 5 and 5 on this grid"),
        ({"modes": (4, 4)}, r"modes are \(ky, kx, m\)"),
        ({"modes": (4, 0, 5)}, "whole numbers of at least 1; modes"),
        ({"tolerance": -1.0}, "tolerance is a relative residual"),
        ({"max_iterations": 0}, "whole numbers of at least 1; max_iterations"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        refined(flow_surrogate(), torch.zeros(1, 2, N, N), **options)


def test_says_which_operators_can_be_refined_and_which_frames_fit():
    fno = flow_surrogate(operator=FNO(2, 4, modes=(3, 3), width=4, depth=1))
    with pytest.raises(ValueError, match=r"Trajectory\(SpatioTemporalFNO.*this surrogate is FNO"):
        refined(fno, torch.zeros(1, 2, N, N))
    unknown = flow_surrogate()
    unknown.record(data={**unknown.provenance["data"], "recipe": None})
    with pytest.raises(ValueError, match=r"not known.*provenance says nothing"):
        refined(unknown, torch.zeros(1, 2, N, N))
    surrogate = flow_surrogate()
    with pytest.raises(ValueError, match=r"takes 2 frames, 0.1 apart"):
        refine(surrogate, stored(turbulence(surrogate)[:, :3], surrogate.grid))
    averaged = flow_surrogate(forcing="symmetric").symmetrized()
    with pytest.raises(ValueError, match="averages several"):
        refined(averaged, torch.zeros(1, 2, N, N))
    with pytest.raises(ValueError, match=r"modes are \(ky, kx\), of which this grid has 7 and 7"):
        refined(darcy_surrogate(9), permeabilities(9), modes=(8, 8))


def test_least_squares_solves_what_lapack_solves():
    A = torch.randn(3, 12, 5, dtype=torch.float64)
    b = torch.randn(3, 12, dtype=torch.float64)
    allowed = torch.tensor([50, 50, 2])
    x, image, used = least_squares(
        lambda v: (A @ v[..., None])[..., 0], lambda r: (A.mT @ r[..., None])[..., 0], lambda s: s / 10,
        b, target=torch.zeros(3), gradient=1e-12, allowed=allowed,
    )  # fmt: skip
    expected = torch.linalg.lstsq(A, b[..., None]).solution[..., 0]
    assert torch.allclose(x[:2], expected[:2], atol=1e-10)
    assert torch.allclose(image, (A @ x[..., None])[..., 0], atol=1e-12)
    assert used[2] == 2
    assert (used[:2] <= 7).all()


def test_works_where_its_input_lies():
    surrogate = flow_surrogate(bias=0.02)
    given = turbulence(surrogate, 1)[:, :2]
    a, pressures = permeabilities(9), darcy_surrogate(9)
    expected = [refined(surrogate, given, max_iterations=3), refined(pressures, a)]
    with torch.device("meta"):
        got = [refined(surrogate, given, max_iterations=3), refined(pressures, a)]
    assert all(torch.equal(g.fields, e.fields) for g, e in zip(got, expected, strict=True))
    assert all(g.residual_after.device.type == "cpu" for g in got)
