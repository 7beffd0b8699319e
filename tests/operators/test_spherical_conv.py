"""The spherical convolution: symmetry, exactness, resolution, and an oracle."""

from __future__ import annotations

import itertools

import jaxtyping
import pytest
import torch
from support import rotations
from torch._subclasses.fake_tensor import FakeTensorMode

from sobolev import SphereGrid
from sobolev.grids.spherical_transform import clear_tables
from sobolev.operators import SphericalConv
from sobolev.operators.layers.spherical_transforms import analysis, synthesis

FILTERS = ["zonal", "complex", "diagonal"]
KINDS = ["legendre-gauss", "equiangular"]
every_filter = pytest.mark.parametrize("filter", FILTERS)
every_kind = pytest.mark.parametrize("kind", KINDS)


def layer(degrees=6, **options):
    return SphericalConv(2, 3, degrees, **options).double()


def band_limited(grid, degrees, channels=2):
    """Random fields of degrees below ``degrees``, the same ones on every grid."""
    c = torch.zeros(1, channels, *grid.mode_shape, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    c[..., : degrees**2] = torch.randn(
        1, channels, degrees**2, dtype=torch.float64, generator=generator
    )
    return grid.from_modes(c)


@pytest.mark.slow
@every_kind
def test_zonal_filters_commute_with_every_rotation(kind):
    grid, convolution = SphereGrid(15, 22, kind), layer(kind=kind)
    points = rotations.nodes(grid)
    for _ in range(3):
        turn = rotations.rotation()
        of_rotated = convolution(rotations.polynomial(points @ turn))
        plain = convolution(rotations.polynomial(points))
        expected = rotations.value_at((points @ turn).flatten(0, 1), plain, grid)
        assert (of_rotated.flatten(2) - expected).abs().max() < 1e-12


@every_filter
def test_every_filter_commutes_with_turns_about_the_axis(filter):
    grid, convolution = SphereGrid(9, 17), layer(filter=filter)
    u = torch.randn(1, 2, *grid.shape, dtype=torch.float64)
    assert torch.allclose(convolution(u.roll(5, -1)), convolution(u).roll(5, -1), atol=1e-13)


@pytest.mark.parametrize("filter", ["complex", "diagonal"])
def test_complex_and_diagonal_filters_commute_with_no_other_rotation(filter):
    grid, convolution = SphereGrid(15, 22), layer(filter=filter)
    points, turn = rotations.nodes(grid), rotations.rotation()
    of_rotated = convolution(rotations.polynomial(points @ turn))
    plain = convolution(rotations.polynomial(points))
    expected = rotations.value_at((points @ turn).flatten(0, 1), plain, grid)
    assert (of_rotated.flatten(2) - expected).abs().max() > 0.1


def test_zonal_filters_multiply_each_degree():
    """1, z and xy are harmonics of degree 0, 1 and 2."""
    grid, convolution = SphereGrid(7, 9), SphericalConv(1, 1, 4).double()
    x, y, z = rotations.nodes(grid).unbind(-1)
    k = convolution.filter.weight.detach().flatten()
    result = convolution((2 + z - 3 * x * y)[None, None])
    assert torch.allclose(result, 2 * k[0] + k[1] * z - 3 * k[2] * x * y, atol=1e-14)


@every_kind
@every_filter
def test_agrees_with_torch_harmonics(kind, filter):
    torch_harmonics = pytest.importorskip("torch_harmonics")
    grid, convolution = SphereGrid(13, 20, kind), layer(degrees=7, kind=kind, filter=filter)
    sizes = (*grid.shape, 7, 7)
    u = torch.randn(2, 2, *grid.shape, dtype=torch.float64)
    c = torch_harmonics.RealSHT(*sizes, grid=kind).double()(u)
    weight = convolution.filter.weight.detach()
    if filter == "diagonal":
        full = torch.zeros(7, 7, 2, 3, dtype=torch.complex128)
        for l, m in itertools.product(range(7), range(7)):
            if m <= l:
                imaginary = weight[l * l + l - m] if m else torch.zeros_like(weight[0])
                full[l, m] = torch.complex(weight[l * l + l + m], imaginary)
        filtered = torch.einsum("bilm,lmio->bolm", c, full)
    else:
        full = torch.view_as_complex(weight) if filter == "complex" else weight.to(c.dtype)
        filtered = torch.einsum("bilm,lio->bolm", c, full)
    expected = torch_harmonics.InverseRealSHT(*sizes, grid=kind).double()(filtered)
    assert (convolution(u) - expected).abs().max() < 1e-12


@every_filter
@every_kind
def test_band_limited_fields_give_one_answer_on_all_grids(kind, filter):
    convolution, common = layer(kind=kind, filter=filter), SphereGrid(17, 20, kind)
    truth = convolution(band_limited(common, 6))
    for nlat, nlon in [(32, 64), (64, 128), (33, 35), (11, 13)]:
        grid = common.resized(nlat, nlon)
        result = convolution(band_limited(grid, 6))
        assert (grid.resample(result, common) - truth).abs().max() < 1e-12
        # the output's grid may be any, even one that does not resolve the field
        assert (convolution(band_limited(grid, 6), size=(17, 20)) - truth).abs().max() < 1e-12
        if grid.can_subsample(common) and kind == "equiangular":
            assert (grid.subsample(result, common) - truth).abs().max() < 1e-12
    coarse = convolution(band_limited(common, 6), size=(9, 5))
    if kind == "equiangular":
        assert (coarse - truth[..., ::2, ::4]).abs().max() < 1e-12


@every_filter
def test_a_grid_of_fewer_degrees_uses_those_it_has(filter):
    convolution, grid = layer(degrees=9, filter=filter), SphereGrid(4, 8)
    u = band_limited(grid, 4)
    fine = grid.resized(12, 24)
    assert torch.allclose(
        convolution(u, size=fine.shape), convolution(grid.resample(u, fine)), atol=1e-13
    )


@every_kind
def test_transforms_are_inverse_and_orthonormal(kind):
    u = torch.randn(19, 13, 2, 1, dtype=torch.float64)
    c = analysis(kind, (13, 19), 5, u)(u)
    v = synthesis(kind, (13, 19), 5, u)(c)
    assert torch.allclose(analysis(kind, (13, 19), 5, u)(v), c, atol=1e-14)
    area = SphereGrid(13, 19, kind).quadrature().T[..., None]
    assert torch.allclose((v.square().squeeze(-1) * area).sum((0, 1)), c.square().sum((0, 1, 3)))


@pytest.mark.parametrize(("filter", "per_pair"), [("zonal", 5), ("complex", 10), ("diagonal", 25)])
def test_weights_are_real_and_none_is_dead(filter, per_pair):
    convolution = SphericalConv(2, 3, 5, filter=filter).double()
    assert sum(p.numel() for p in convolution.parameters()) == 2 * 3 * per_pair
    convolution(torch.randn(4, 2, 9, 12, dtype=torch.float64)).square().sum().backward()
    gradient = convolution.filter.weight.grad
    # a complex weight of degree 0 meets real coefficients only: its imaginary part cannot count
    dead = (gradient == 0).sum()
    assert dead == (6 if filter == "complex" else 0)


@every_filter
def test_gradients_are_right(filter):
    convolution = layer(degrees=3, filter=filter)
    u = torch.randn(1, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    weight = convolution.filter.weight

    def run(u, weight):
        return torch.func.functional_call(convolution, {"filter.weight": weight}, (u,))

    assert torch.autograd.gradcheck(run, (u, weight))


def test_tables_of_an_inference_run_serve_training_and_are_made_where_the_input_lies():
    u = torch.randn(1, 2, 10, 14)  # no other test has this size
    convolution = SphericalConv(2, 3, 3, filter="diagonal")
    with torch.inference_mode(), torch.device("meta"):
        first = convolution(u)
    second = convolution(u)
    second.sum().backward()
    assert torch.equal(first, second)


def test_tables_of_a_traced_run_are_no_fake_tensors():
    u = torch.randn(1, 2, 11, 14)  # no other test has this size
    convolution = SphericalConv(2, 3, 3, filter="diagonal")
    clear_tables()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        convolution(mode.from_tensor(u))
    assert type(convolution(u)) is torch.Tensor


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SphericalConv(1, 1, 0), "degrees has 0"),
        (lambda: SphericalConv(1, 1, 3, kind="healpix"), "one of legendre-gauss, equiangular; got"),
        (lambda: SphericalConv(1, 1, 3, filter="real"), "one of zonal, diagonal, complex; got"),
        (lambda: SphericalConv(1, 1, 3)(torch.zeros(1, 1, 2, 8)), r"at least 3, got .*\(2, 8\)"),
        (lambda: SphericalConv(1, 1, 3)(torch.zeros(1, 1, 4, 8), size=(4,)), r"sizes \(4,\)"),
        (lambda: SphericalConv(1, 1, 3)(torch.zeros(1, 1, 4, 8), size=()), r"sizes \(\)"),
        (lambda: SphericalConv(2, 1, 3)(torch.zeros(1, 1, 4, 8)), r"\(batch, 2, lat, lon\), got"),
        (lambda: SphericalConv(1, 1, 3)(torch.zeros(1, 4, 8)), r"shape \(1, 4, 8\)"),
    ],
)
def test_bad_input_is_refused(call, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which refuses shapes itself
    with pytest.raises(ValueError, match=message):
        call()
