"""The sphere's eigenbasis, quadrature and vector calculus against closed forms and scipy."""

from __future__ import annotations

import math

import pytest
import scipy.special
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sobolev import GaussianRandomField, Grid, energy_spectrum, sobolev_norm
from sobolev.grids.sphere import SphereGrid
from sobolev.grids.spherical_transform import clear_tables
from sobolev.grids.spherical_vectors import gradient, velocity, vorticity_and_divergence
from sobolev.grids.streams import stream

GRIDS = [
    SphereGrid(8, 16),
    SphereGrid(9, 17, radius=1.7),
    SphereGrid(12, 13),
    SphereGrid(9, 12, "equiangular", radius=0.3),
    SphereGrid(12, 24, "equiangular"),
]
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


def modes_of(grid: SphereGrid, count: int = 3) -> torch.Tensor:
    return torch.randn(count, *grid.mode_shape, dtype=torch.float64)


def coordinates(grid: SphereGrid) -> tuple[torch.Tensor, torch.Tensor]:
    latitude, longitude = grid.points()
    return latitude[:, None].expand(grid.shape), longitude.expand(grid.shape)


@every_grid
def test_modes_come_back_and_carry_the_energy(grid):
    c = modes_of(grid)
    u = grid.from_modes(c)
    assert (grid.to_modes(u) - c).abs().max() < 1e-12
    integral = (u.square() * grid.quadrature()).sum((-2, -1))
    assert torch.allclose(integral, c.square().sum(-1), rtol=1e-12)
    single = grid.to_modes(u.float())
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), c, atol=1e-5)


@every_grid
def test_modes_are_the_harmonics_of_scipy(grid):
    latitude, longitude = (x.numpy() for x in coordinates(grid))
    for l in range(grid.lmax):
        for m in range(-l, l + 1):
            y = scipy.special.sph_harm_y(l, abs(m), math.pi / 2 - latitude, longitude)
            real = y.real if m >= 0 else y.imag
            factor = (-1) ** m * (math.sqrt(2) if m else 1) / grid.radius
            unit = torch.zeros(grid.mode_shape, dtype=torch.float64)
            unit[l * l + l + m] = 1.0
            expected = torch.from_numpy(factor * real)
            assert torch.allclose(grid.from_modes(unit), expected, atol=1e-12 / grid.radius), (l, m)


@pytest.mark.parametrize("kind", ["legendre-gauss", "equiangular"])
def test_modes_agree_with_torch_harmonics(kind):
    torch_harmonics = pytest.importorskip("torch_harmonics")
    grid = SphereGrid(21, 40, kind, radius=2.0)
    u = torch.randn(grid.shape, dtype=torch.float64)
    theirs = torch_harmonics.RealSHT(
        21, 40, grid.lmax, grid.lmax, grid=kind, csphase=False
    ).double()(u)
    ours = grid.to_modes(u)
    for l in range(grid.lmax):
        for m in range(1, l + 1):
            both = torch.stack((ours[l * l + l + m], -ours[l * l + l - m]))
            expected = torch.view_as_real(theirs[l, m]) * 2 * math.sqrt(2)
            assert torch.allclose(both, expected, atol=1e-12)
        assert abs(ours[l * l + l] - 2 * theirs[l, 0].real) < 1e-12


@every_grid
def test_quadrature_sums_to_the_area_and_is_exact_for_its_degrees(grid):
    area = grid.quadrature()
    assert area.shape == grid.shape
    assert area.min() > 0
    assert area.sum().item() == pytest.approx(4 * math.pi * grid.radius**2, rel=1e-13)
    degree = 2 * (grid.lmax - 1)
    sines = coordinates(grid)[0].sin()
    exact = 4 * math.pi * grid.radius**2 / (degree + 1)
    assert (sines**degree * area).sum().item() == pytest.approx(exact, rel=1e-12)


@every_grid
def test_points_run_from_north_to_south_and_east(grid):
    latitude, longitude = grid.points()
    assert (latitude.diff() < 0).all()
    assert torch.allclose(latitude, -latitude.flip(0), atol=1e-15)
    assert longitude[0] == 0
    assert (longitude[-1] + longitude[1]).item() == pytest.approx(2 * math.pi)
    assert (latitude[0].item() == math.pi / 2) == (grid.kind == "equiangular")


def test_eigenvalues_are_those_of_the_laplacian():
    grid, step = SphereGrid(40, 80, radius=1.7), 1e-4
    c = torch.zeros(grid.mode_shape, dtype=torch.float64)
    c[4**2 + 4 - 3] = 1.0  # sin(3λ) cos³φ sin φ, up to a factor

    def u(latitude, longitude):
        return latitude.cos() ** 3 * latitude.sin() * (3 * longitude).sin()

    latitude, longitude = (x[5:-5, 1:] for x in coordinates(grid))
    centre = u(latitude, longitude)
    east = u(latitude, longitude + step) + u(latitude, longitude - step) - 2 * centre
    north = (latitude + step / 2).cos() * (u(latitude + step, longitude) - centre)
    south = (latitude - step / 2).cos() * (centre - u(latitude - step, longitude))
    laplacian = (east / latitude.cos() ** 2 + (north - south) / latitude.cos()) / step**2
    eigenvalue = grid.eigenvalues()[c.argmax()]
    assert torch.allclose(-laplacian / grid.radius**2, eigenvalue * centre, atol=1e-5)
    assert eigenvalue.item() == pytest.approx(20 / 1.7**2)
    found = grid.to_modes(u(*coordinates(grid)))
    assert (found.abs() > 1e-12).nonzero().flatten().tolist() == [c.argmax().item()]


@every_grid
def test_a_longitude_roll_is_a_rotation_about_the_axis(grid):
    c = modes_of(grid)
    rolled = grid.to_modes(grid.from_modes(c).roll(2, dims=-1))
    angle = 2 * grid.points()[1][1]
    for l in range(grid.lmax):
        for m in range(l + 1):
            cosine, sine = c[:, l * l + l + m], c[:, l * l + l - m] * (m > 0)
            turned = cosine * (m * angle).cos() - sine * (m * angle).sin()
            assert torch.allclose(rolled[:, l * l + l + m], turned, atol=1e-12)


@every_grid
@pytest.mark.parametrize("kind", ["legendre-gauss", "equiangular"])
def test_resampling_is_exact_and_comes_back(grid, kind):
    c = modes_of(grid)
    fine = SphereGrid(25, 30, kind, radius=grid.radius)
    u = grid.resample(grid.from_modes(c), fine)
    assert torch.allclose(fine.to_modes(u)[:, : grid.lmax**2], c, atol=1e-12)
    assert torch.allclose(fine.resample(u, grid), grid.from_modes(c), atol=1e-11 / grid.radius)


def test_subsampling_picks_the_values_at_shared_nodes():
    fine, coarse = (
        SphereGrid(13, 24, "equiangular"),
        SphereGrid(7, 8, "equiangular"),
    )
    latitude, longitude = (fine.subsample(x, coarse) for x in coordinates(fine))
    assert torch.allclose(latitude, coordinates(coarse)[0])
    assert torch.allclose(longitude, coordinates(coarse)[1])
    gauss = SphereGrid(8, 16)
    assert gauss.can_subsample(SphereGrid(8, 4))
    for target in (
        SphereGrid(8, 5),
        SphereGrid(4, 16),
        SphereGrid(8, 32),
        SphereGrid(8, 16, "equiangular"),
        SphereGrid(8, 16, radius=2.0),
        Grid.periodic(8, 16),
    ):
        assert not gauss.can_subsample(target)
    with pytest.raises(ValueError, match=r"nlat in \[13, 7, 5, 4, 3\], nlon in \[24, 12, 8, 6"):
        fine.subsample(torch.zeros(13, 24), coarse.resized(9, 8))


@pytest.mark.parametrize("order", [-1.0, 0.0, 0.5, 2.0])
@pytest.mark.parametrize("radius", [1.0, 2.5])
def test_sobolev_norm_of_a_harmonic(order, radius):
    grid = SphereGrid(10, 20, radius=radius)
    latitude, longitude = coordinates(grid)
    u = latitude.cos() ** 2 * (2 * longitude).cos()  # l = 2; ∫ cos⁵ = 16/15, ∫ cos² = π
    square = 16 / 15 * math.pi * radius**2 * (1 + 6 / radius**2) ** order
    assert sobolev_norm(u, grid, order).item() == pytest.approx(math.sqrt(square), rel=1e-12)


@every_grid
def test_spectrum_has_one_shell_per_degree(grid):
    c = modes_of(grid)
    k, energy = energy_spectrum(grid.from_modes(c), grid)
    assert energy.shape == (3, grid.lmax)
    assert k[2].item() == pytest.approx(math.sqrt(6) / grid.radius)
    assert torch.allclose(energy[:, 2], c[:, 4:9].square().sum(-1))
    assert torch.allclose(energy.sum(-1), sobolev_norm(grid.from_modes(c), grid).square())


@pytest.mark.parametrize("kind", ["legendre-gauss", "equiangular"])
def test_random_fields_are_isotropic(kind):
    grid, count = SphereGrid(17, 18, kind, radius=1.5), 6000
    field = GaussianRandomField(grid, alpha=1.5, tau=2.0, sigma=3.0)
    variance = field.sample(count).square().mean(0)
    l = torch.arange(1, grid.lmax, dtype=torch.float64)
    spectrum = 9 * (l * (l + 1) / 1.5**2 + 4) ** -1.5
    exact = (spectrum * (2 * l + 1)).sum().item() / (4 * math.pi * 1.5**2)
    by_latitude = variance.mean(1) / exact
    assert (variance / exact - 1).abs().max() < 5 * math.sqrt(2 / count)
    assert (by_latitude - 1).abs().max() < 4 * math.sqrt(2 / count)


def test_a_random_field_is_the_same_at_every_resolution():
    coarse, fine = SphereGrid(8, 16), SphereGrid(20, 40)
    on_coarse, on_fine = (
        GaussianRandomField(grid, alpha=2.0, tau=3.0).draw([stream(3, 0)])
        for grid in (coarse, fine)
    )
    assert torch.allclose(fine.to_modes(on_fine)[:, :64], coarse.to_modes(on_coarse), atol=1e-14)


@every_grid
def test_gradient_of_a_polynomial(grid):
    latitude, longitude = coordinates(grid)
    # xz of the embedding is the harmonic cos φ sin φ cos λ; y is cos φ sin λ
    u = latitude.cos() * (latitude.sin() * longitude.cos() + longitude.sin())
    east = -latitude.sin() * longitude.sin() + longitude.cos()
    north = (2 * latitude).cos() * longitude.cos() - latitude.sin() * longitude.sin()
    expected = torch.stack((east, north)) / grid.radius
    assert torch.allclose(gradient(u, grid), expected, atol=1e-12 / grid.radius)


@every_grid
def test_wind_vorticity_and_divergence_belong_together(grid):
    c = modes_of(grid, 6)
    c[:, 0] = 0.0
    vorticity, divergence = grid.from_modes(c).reshape(2, 3, 1, *grid.shape)
    wind = velocity(vorticity, divergence, grid)
    assert wind.shape == (3, 1, 2, *grid.shape)
    scale = vorticity.abs().max()
    for found, given in zip(
        vorticity_and_divergence(wind, grid), (vorticity, divergence), strict=True
    ):
        assert torch.allclose(found, given, atol=1e-12 * scale)


@every_grid
def test_a_gradient_has_no_curl_and_the_laplacian_as_divergence(grid):
    c = modes_of(grid)
    curl, laplacian = vorticity_and_divergence(gradient(grid.from_modes(c), grid), grid)
    assert torch.allclose(grid.to_modes(laplacian), -grid.eigenvalues() * c, atol=1e-10)
    assert curl.abs().max() < 1e-11 * laplacian.abs().max()


def test_over_the_pole_the_wind_turns_with_the_longitude():
    grid = SphereGrid(9, 16, "equiangular")
    latitude, longitude = coordinates(grid)
    u = latitude.cos() * longitude.cos()  # x of the embedding; its gradient at the pole is e_x
    east, north = gradient(u, grid)[:, 0]
    assert torch.allclose(east, -longitude[0].sin(), atol=1e-13)
    assert torch.allclose(north, -longitude[0].cos(), atol=1e-13)


def test_a_wind_of_another_shape_is_refused():
    with pytest.raises(
        ValueError, match=r"a wind of shape \(\.\.\., 2, 8, 16\), .* got \(3, 8, 16\)"
    ):
        vorticity_and_divergence(torch.zeros(3, 8, 16), SphereGrid(8, 16))


def test_vorticity_and_divergence_of_different_shapes_are_refused():
    grid = SphereGrid(8, 16)
    with pytest.raises(ValueError, match=r"one shape and dtype, got \(2, 8, 16\).* and \(8, 16\)"):
        velocity(torch.zeros(2, 8, 16), torch.zeros(8, 16), grid)


@pytest.mark.parametrize("kind", ["legendre-gauss", "equiangular"])
def test_transforms_are_differentiable(kind):
    grid = SphereGrid(5, 6, kind)
    u = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    c = modes_of(grid, 2).requires_grad_()
    assert torch.autograd.gradcheck(grid.to_modes, (u,))
    assert torch.autograd.gradcheck(grid.from_modes, (c,))
    assert torch.autograd.gradcheck(lambda u: gradient(u, grid), (u,))


def test_tables_made_in_inference_mode_serve_training_later():
    grid = SphereGrid(6, 11)
    with torch.inference_mode():
        grid.to_modes(torch.zeros(grid.shape))
    u = torch.ones(grid.shape, requires_grad=True)
    sobolev_norm(u, grid, 1.0).backward()
    assert u.grad.abs().max() > 0


def test_batch_axes_are_free():
    grid = SphereGrid(6, 8)
    u = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    assert torch.allclose(grid.to_modes(u)[1, 2], grid.to_modes(u[1, 2]), atol=1e-14)
    assert grid.without_border(u) is u


WORK = {
    "to_modes": lambda: SphereGrid(7, 9).to_modes(torch.ones(7, 9, device="cpu")),
    "from_modes": lambda: SphereGrid(7, 10).from_modes(torch.ones(2, 25, device="cpu")),
    "resample": lambda: SphereGrid(7, 9).resample(
        torch.ones(7, 9, device="cpu"), SphereGrid(11, 13, "equiangular")
    ),
    "norm": lambda: sobolev_norm(torch.ones(7, 12, device="cpu"), SphereGrid(7, 12), -0.5),
    "spectrum": lambda: energy_spectrum(torch.ones(7, 12, device="cpu"), SphereGrid(7, 12))[1],
    "random field": lambda: GaussianRandomField(SphereGrid(7, 14), 2.0, 3.0).sample(2),
    "gradient": lambda: gradient(torch.ones(7, 12, device="cpu"), SphereGrid(7, 12)),
    "points": lambda: SphereGrid(31, 14).points()[0],
    "quadrature": lambda: SphereGrid(33, 14, "equiangular").quadrature(),
}


@pytest.mark.parametrize("name", WORK)
def test_work_stays_where_its_input_is(name):
    with torch.device("meta"):  # first, so that no cached table of the right kind helps
        got = WORK[name]()
    assert got.device.type == "cpu"
    assert torch.equal(got, WORK[name]())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SphereGrid(8, 16, "lobatto"), "must be one of legendre-gauss, equiangular"),
        (lambda: SphereGrid(8, 16, radius=0.0), "positive radius, got 0.0"),
        (lambda: SphereGrid(2, 16), "nlat of at least 3, got 2"),
        (lambda: SphereGrid(8, 2), "nlon of at least 3, got 2"),
        (lambda: SphereGrid(8, True), "nlon must be a whole number"),
        (
            lambda: SphereGrid(8, 16).to_modes(torch.zeros(2, 8, 15)),
            r"a field of shape \(\.\.\., 8, 16\), got \(2, 8, 15\)",
        ),
        (
            lambda: SphereGrid(8, 16).from_modes(torch.zeros(2, 63)),
            r"mode coefficients of shape \(\.\.\., 64\), got \(2, 63\)",
        ),
        (
            lambda: SphereGrid(8, 16).to_modes(torch.zeros(8, 16, dtype=torch.int64)),
            "float32 or float64",
        ),
        (
            lambda: SphereGrid(8, 16).resample(torch.zeros(8, 16), SphereGrid(8, 16, radius=2.0)),
            "both must be one sphere",
        ),
        (
            lambda: SphereGrid(8, 16).resample(torch.zeros(8, 16), Grid.periodic(8, 16)),
            "stays on a sphere",
        ),
    ],
)
def test_bad_spheres_and_fields_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_grid_is_a_value():
    grid = SphereGrid(8, 16, radius=2)
    assert grid == SphereGrid(8, 16, radius=2.0)
    assert hash(grid.resized(9, 12)) == hash(SphereGrid(9, 12, radius=2.0))
    assert (grid.ndim, grid.dims, grid.shape) == (2, ("lat", "lon"), (8, 16))
    assert Grid.periodic(4, 5).dims == ("y", "x")


def test_tables_of_a_traced_run_are_no_fake_tensors():
    grid = SphereGrid(11, 22)
    u = torch.randn(grid.shape)

    def results(u):
        return grid.quadrature(), grid.to_modes(u), gradient(u, grid)

    clear_tables()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        results(mode.from_tensor(u))
    assert all(type(result) is torch.Tensor for result in results(u))
