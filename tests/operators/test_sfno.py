"""The spherical Fourier neural operator: symmetry, resolution, the released model, and bad input."""

from __future__ import annotations

import itertools
import json

import jaxtyping
import pytest
import torch
from support import rotations
from support.processes import finished

from sobolev import Grid, SphereGrid
from sobolev.grids.spherical_transform import clear_tables
from sobolev.operators import SFNO, operator_from
from sobolev.operators.layers.spherical_transforms import synthesis
from sobolev.operators.sfno import normalized

KINDS = ["legendre-gauss", "equiangular"]
every_kind = pytest.mark.parametrize("kind", KINDS)


def small(grid=None, **options):
    options = {"width": 6, "depth": 3, "degrees": 5, **options}
    return SFNO(2, 1, grid or SphereGrid(16, 32), **options).double()


def low_degrees(grid, degrees=4, batch=1):
    """Random fields of degrees below ``degrees``, the same ones on every grid."""
    c = torch.zeros(batch, 2, *grid.mode_shape, dtype=torch.float64)
    shape, generator = (batch, 2, degrees**2), torch.Generator().manual_seed(1)
    c[..., : degrees**2] = torch.randn(shape, dtype=torch.float64, generator=generator)
    return grid.from_modes(c)


def equivariance_error(operator, turns=3, size=(40, 80)):
    """How far operator(rotated field) is from the rotated operator(field), at 30 points, over the
    latter's spread."""
    grid, errors = operator.sphere, []
    points, fine = rotations.nodes(grid), grid.resized(*size)
    plain = operator(rotations.polynomial(points), size=size).detach()
    for _ in range(turns):
        turn = rotations.rotation()
        somewhere = torch.nn.functional.normalize(torch.randn(30, 3, dtype=torch.float64), dim=-1)
        of_rotated = operator(rotations.polynomial(points @ turn), size=size).detach()
        difference = rotations.value_at(somewhere, of_rotated, fine) - rotations.value_at(
            somewhere @ turn, plain, fine
        )
        errors.append(difference.abs().max().item() / plain.std().item())
    return max(errors)


@torch.no_grad()
def strengthened(operator):
    """With filters so large that GELU is far from linear, which those of a fresh operator leave
    it."""
    for block in operator.blocks:
        block.filter.weight.mul_(3.0)
    return operator


@pytest.mark.parametrize("options", [{}, {"norm": True}, {"skip": True}], ids=str)
def test_commutes_with_rotations(options):
    assert equivariance_error(strengthened(small(SphereGrid(20, 40), **options))) < 1e-6


@pytest.mark.slow
def test_what_breaks_the_symmetry_is_the_aliasing_of_gelu_on_the_inner_grid():
    errors = []
    for nlat in (8, 12, 16):
        torch.manual_seed(0)  # equal weights
        errors.append(equivariance_error(strengthened(small(SphereGrid(nlat, 2 * nlat)))))
    assert all(fine < coarse / 10 for coarse, fine in itertools.pairwise(errors)), errors


@pytest.mark.parametrize("options", [{"filter": "complex"}, {"filter": "diagonal"}], ids=str)
def test_other_filters_commute_with_turns_about_the_axis_only(options):
    operator = small(**options)
    assert equivariance_error(operator) > 1e-2
    u = torch.randn(1, 2, 9, 24, dtype=torch.float64)
    operator = small(SphereGrid(9, 24), scale=2, **options)
    assert torch.allclose(operator(u.roll(6, -1)), operator(u).roll(6, -1), atol=1e-13)


def test_positions_end_the_symmetry():
    operator = small(SphereGrid(9, 24), positions=True)
    u = torch.randn(1, 2, 9, 24, dtype=torch.float64)
    assert (operator(u.roll(6, -1)) - operator(u).roll(6, -1)).abs().max() > 1e-3
    x = torch.stack(list(SphereGrid(9, 24).points()[1].cos().expand(9, 24)))
    u[:, 0] = x * SphereGrid(9, 24).points()[0].cos()[:, None]  # the first position channel
    blind = small(SphereGrid(9, 24))
    blind.load_state_dict(operator.state_dict() | {"lift.weight": blind.lift.weight})
    with torch.no_grad():  # an operator that reads x twice is one that reads it once, doubled
        operator.lift.weight[:, 3:] = 0.0
        blind.lift.weight[:] = operator.lift.weight[:, :2]
        blind.lift.weight[:, 0] += operator.lift.weight[:, 2]
    assert torch.allclose(operator(u), blind(u), atol=1e-13)


def test_the_inner_grid_is_of_its_kind():
    """Kinds differ by the aliasing of GELU alone, which is small but there."""
    gauss = strengthened(small(SphereGrid(20, 40)))
    other = small(SphereGrid(20, 40), inner="equiangular")
    other.load_state_dict(gauss.state_dict())
    u = low_degrees(gauss.sphere)
    difference = (other(u) - gauss(u)).abs().max() / gauss(u).std()
    assert 1e-13 < difference < 1e-2


@every_kind
@pytest.mark.parametrize("scale", [1, 2])
def test_one_field_on_any_grid_gives_one_function(kind, scale):
    operator = small(SphereGrid(32, 64, kind), scale=scale, norm=True, skip=True, positions=True)
    truth = operator(low_degrees(SphereGrid(33, 40, kind)))
    for size in [(32, 64), (64, 128), (17, 35), (9, 9)]:
        u = low_degrees(SphereGrid(*size, kind))
        assert torch.allclose(operator(u, size=(33, 40)), truth, atol=1e-12)
        # the same function at the nodes of another grid: every other ring and every eighth node
        own = operator(u, size=(17, 5))
        if kind == "equiangular":
            assert torch.allclose(own, truth[..., ::2, ::8], atol=1e-12)
        assert torch.allclose(own[..., 8, :], truth[..., 16, ::8], atol=1e-12)  # the equator


def test_a_field_beyond_the_degrees_passes_through_the_skip_alone():
    grid = SphereGrid(16, 32)
    operator, c = small(grid, skip=True), torch.zeros(1, 2, *grid.mode_shape, dtype=torch.float64)
    c[..., 25:] = torch.randn(1, 2, 16**2 - 25, dtype=torch.float64)
    low, high = low_degrees(grid), grid.from_modes(c)
    for size in [(16, 32), (24, 48)]:
        difference = operator(low + high, size=size) - operator(low, size=size)
        on_output = grid.resample(high, grid.resized(*size))
        expected = operator.bypass(on_output.movedim(1, -1)).movedim(-1, 1)
        assert torch.allclose(difference, expected, atol=1e-12)


@every_kind
def test_is_the_released_model_when_it_has_its_weights(kind):
    """torch-harmonics' example, whose filter is complex and whose linear maps act on fields."""
    models = pytest.importorskip("torch_harmonics.examples.models.sfno")
    theirs = models.SphericalFourierNeuralOperator(
        img_size=(24, 48), grid=kind, scale_factor=2, in_chans=2, out_chans=1, embed_dim=6,
        num_layers=3,
    )  # fmt: skip
    ours = SFNO(2, 1, SphereGrid(24, 48, kind), width=6, depth=3, scale=2, filter="complex")
    assert ours.degrees == theirs.trans.lmax == 12
    with torch.no_grad():
        ours.lift.weight.copy_(theirs.encoder[0].weight.flatten(1))
        ours.project.weight.copy_(theirs.decoder[0].weight.flatten(1))
        ours.project.bias.zero_()
        for mine, block in zip(ours.blocks, theirs.blocks, strict=True):
            weight = torch.view_as_real(block.global_conv.weight)
            mine.filter.weight.copy_(weight.permute(2, 1, 0, 3))
            for i in (0, 2):
                mine.mlp[i].weight.copy_(block.mlp.fwd[i].weight.flatten(1))
            mine.mlp[0].bias.copy_(block.mlp.fwd[0].bias)
            mine.mlp[2].bias.zero_()
    u = torch.randn(2, 2, 24, 48)
    assert (ours(u) - theirs(u)).abs().max() < 1e-5 * theirs(u).abs().max()


@pytest.mark.parametrize(
    ("options", "per_filter", "hidden"),
    [
        ({}, 32, 64),
        ({"filter": "complex"}, 2 * 32, 64),
        ({"filter": "diagonal"}, 32**2, 64),
        ({"mlp_ratio": 0.5}, 32, 16),
    ],
)
def test_parameter_count(options, per_filter, hidden):
    """Per block the filter and an MLP 32 → hidden → 32; a lift 3 → 32 without bias, a projection."""
    operator = SFNO(3, 3, SphereGrid(64, 128), degrees=32, width=32, depth=1, **options)
    mlp = 32 * hidden + hidden + hidden * 32 + 32
    count = sum(p.numel() for p in operator.parameters())
    assert count == 3 * 32 + 32 * 32 * per_filter + mlp + 32 * 3 + 3


@every_kind
def test_the_norm_is_over_the_area(kind):
    grid, c = SphereGrid(13, 25, kind), torch.randn(6, 11, 2, 3, dtype=torch.float64)
    for l in range(6):  # orders beyond the degree
        c[l, l + 1 : 6] = c[l, 6 + l :] = 0.0
    v = synthesis(kind, (13, 25), 6, c)(normalized(c, eps=0.0))
    area = grid.quadrature().T[..., None, None] / (4 * torch.pi)
    mean, square = (v * area).sum((0, 1)), (v.square() * area).sum((0, 1))
    assert mean.abs().max() < 1e-13
    assert torch.allclose(square, torch.ones_like(square), atol=1e-12)


def test_uses_no_more_degrees_than_its_grids_resolve_and_keeps_its_grid_as_json():
    grid = SphereGrid(17, 32, "equiangular", radius=2.0)
    operator = SFNO(1, 1, grid, degrees=50, width=4)
    assert operator.degrees == grid.lmax == 9
    assert SFNO(1, 1, grid, width=4, scale=3).degrees == 5  # of an inner grid of 6 × 10
    assert SFNO(1, 1, grid, width=4, inner="equiangular", scale=2).degrees == 5  # of (9 + 1) / 2
    assert SFNO(1, 1, grid, width=4, scale=2).degrees == 8  # of 16 nodes per ring
    again = operator_from(json.loads(json.dumps(operator.description)))
    assert again.sphere == grid


def test_takes_data_on_its_sphere_at_any_resolution():
    operator = small(SphereGrid(16, 32, radius=2.0))
    operator.check_grid(SphereGrid(40, 80, radius=2.0))
    for grid, message in [
        (SphereGrid(16, 32, "equiangular", radius=2.0), "kind='legendre-gauss' and radius=2, the"),
        (SphereGrid(16, 32), "the data's has kind='legendre-gauss' and radius=1"),
        (Grid.periodic(16, 32), "works on a sphere, the data live on a flat grid"),
    ]:
        with pytest.raises(ValueError, match=message):
            operator.check_grid(grid)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small()(torch.zeros(1, 3, 8, 16)), "in_channels=2, got 3 channels"),
        (lambda: small()(torch.zeros(1, 2, 16)), r"expects \(batch, channels"),
        (lambda: small().float()(torch.zeros(1, 2, 2, 16)), r"at least 3, got the sizes \(2, 16\)"),
        (lambda: small().float()(torch.zeros(1, 2, 8, 16), size=(8,)), r"got the sizes \(8,\)"),
        (lambda: small(filter="dense"), "one of zonal, diagonal, complex; got 'dense'"),
        (lambda: small(inner="lobatto"), "inner must be one of legendre-gauss, equiangular"),
        (lambda: small(degrees=0), "degrees has 0"),
        (lambda: small(scale=0), "scale has 0"),
        (lambda: small(scale=11), r"at least 3, got the sizes \(2, 2\)"),
        (lambda: small(mlp_ratio=0.01), "mlp_ratio must leave at least one of width=6"),
        (lambda: small({"nlat": 2, "nlon": 8}), "nlat of at least 3"),
        (lambda: small().float()(torch.zeros(1, 2, 8, 16), size=()), r"got the sizes \(\)"),
        (lambda: small(Grid.periodic(8, 16)), r"grid to be a SphereGrid .*; got Grid"),
        (lambda: small((8, 16)), r"nlat and nlon .*; got \(8, 16\)"),
        (lambda: SFNO(2, 1, None), "got None"),
        (lambda: small({"nlat": 8, "nlons": 16}), "'nlons': 16"),
        (lambda: small({"nlat": 8}), "nlat and nlon"),
    ],
)
def test_bad_input_is_refused(call, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which refuses types itself
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_a_network_can_be_traced_before_it_is_used(monkeypatch):
    """The tables that the export asks for first serve every call afterwards."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    operator, u = SFNO(2, 1, SphereGrid(8, 16), width=4, depth=2), torch.randn(1, 2, 10, 18)
    clear_tables()
    program = torch.export.export(operator, (u,))
    assert type(operator(u)) is type(SphereGrid(10, 18).quadrature()) is torch.Tensor
    assert torch.allclose(program.module()(u), operator(u), atol=1e-6)


_COMPILED = """
import warnings; warnings.simplefilter("ignore")
import torch
from sobolev import SphereGrid
from sobolev.operators import SFNO
operator = SFNO(2, 1, SphereGrid(8, 16), width=6, depth=1, skip=True)
compiled = torch.compile(operator, fullgraph=True, backend="aot_eager")
for space, size in [((8, 16), None), ((9, 17), None), ((12, 20), (8, 16))]:
    u = torch.randn(2, 2, *space)
    assert torch.allclose(compiled(u, size=size), operator(u, size=size), atol=1e-5)
"""


@pytest.mark.slow
def test_a_compiled_operator_takes_other_resolutions():
    done = finished(_COMPILED)
    assert done.returncode == 0, done.output
