"""The Fourier neural operator: symmetry, resolution, training, and the ways it is run."""

from __future__ import annotations

import itertools
import math

import jaxtyping
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sobolev import Grid
from sobolev.operators import FNO
from sobolev.operators.layers.fourier_blocks import norm_layer
from sobolev.operators.layers.resampling import resampled

KINDS = [
    {"modes": (4,)},
    {"modes": (4, 3), "boundary": "dirichlet", "positions": True},
    {"modes": (3, 2, 2), "boundary": ("neumann", "periodic", "dirichlet"), "positions": True},
]


def small(**options):
    return FNO(2, 1, **{"width": 6, "depth": 2, **options})


OPTIONS = {
    "plain": {},
    "lifting": {"lifting": 7, "projection": 5},
    "MLP": {"mlp": 0.5},
    "MLP and instance norm": {"mlp": 1, "norm": "instance"},
    "two skips and group norm": {"mlp": 2, "norm": "group", "skip": ("linear", "soft-gating")},
    "batch norm": {"norm": "batch", "skip": "identity"},
    "two skips and batch norm": {"mlp": 0.5, "norm": "batch", "skip": (None, "identity")},
    "no skip": {"skip": None},
    "Tucker": {"factorization": "tucker", "rank": 0.3},
    "CP": {"factorization": "cp", "rank": 0.3},
}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@each_option
@pytest.mark.parametrize("space", [(16, 24), (9, 15)])
def test_commutes_with_shifts_on_periodic_axes(space, options):
    operator = small(modes=(4, 4), **options).double()
    u = torch.randn(2, 2, *space, dtype=torch.float64)
    shift = {"shifts": (3, -5), "dims": (-2, -1)}
    for mode in (True, False):
        moved = operator.train(mode)(u.roll(**shift))
        assert torch.allclose(moved, operator(u).roll(**shift), rtol=0, atol=1e-12)


@each_option
def test_every_option_takes_part_in_the_gradient(options):
    operator = small(modes=(4, 4), **options)
    operator(torch.randn(3, 2, 9, 10)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in operator.parameters())


def written_out(operator, v):
    """The blocks as their docstrings have them, with instance norm by torch."""

    def norm(w):
        return F.instance_norm(w.movedim(-1, 1)).movedim(1, -1)

    for i, b in enumerate(operator.blocks):
        if isinstance(operator.skip, list):
            inner = norm(b.kernel(v)) + b.skip(v)
            inner = inner if i == operator.depth - 1 else F.gelu(inner)
            v = norm(b.mlp(inner) + b.mlp_skip(v))
        elif operator.mlp:
            v = b.mlp(norm(b.kernel(norm(v)))) + b.skip(v)
        else:
            v = norm(b.kernel(v) + b.skip(v))
        v = v if i == operator.depth - 1 else F.gelu(v)
    return v


@pytest.mark.parametrize(
    "options", [{}, {"mlp": 0.5}, {"mlp": 0.5, "skip": ["soft-gating", "linear"]}]
)
def test_blocks_are_the_published_ones(options):
    operator = small(modes=(4, 4), norm="instance", **options).double()
    u = torch.randn(2, 2, 9, 10, dtype=torch.float64)
    expected = operator.project(written_out(operator, operator.lift(u.movedim(1, -1))))
    assert torch.allclose(operator(u), expected.movedim(-1, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kind", "channels_first"), [
    ("batch", nn.BatchNorm2d(5)), ("group", nn.GroupNorm(1, 5)), ("instance", nn.InstanceNorm2d(5)),
])  # fmt: skip
def test_norms_are_torchs_on_channels_last_fields(kind, channels_first):
    layer, v = norm_layer(kind, 5).double(), torch.randn(3, 7, 8, 5, dtype=torch.float64)
    expected = channels_first.double()(3 * v.movedim(-1, 1) + 1).movedim(1, -1)
    assert torch.allclose(layer(3 * v + 1), expected, rtol=0, atol=1e-13)
    assert layer.state_dict().keys() == channels_first.state_dict().keys()


def count(operator):
    return sum(p.numel() for p in operator.parameters())


def test_parameter_counts_are_the_published_ones():
    """Real and imaginary parts counted, as ours are."""
    # FNO paper, table 1: 10 frames and (x, y, t) in, ReLU there (no parameters)
    paper = {"width": 20, "projection": 128, "norm": "batch"}
    assert count(FNO(13, 1, (8, 8, 8), **paper)) == 6_558_537
    # The same table's 2-D model: it has 8 modes, though the released script has 12
    assert count(FNO(12, 1, (8, 8), **paper)) == 414_517
    # G-FNO's comparison: 10 frames and (x, y) in, the authors' later blocks
    later = FNO(12, 1, (12, 12), width=20, mlp=1, norm="instance", projection=80)
    assert count(later) == 928_661


def test_dense_weights_keep_their_place_in_the_state():
    state = small(modes=(4, 3)).state_dict()
    assert state["blocks.1.kernel.weight"].shape == (8, 3, 6, 6, 2)
    assert {"lift.weight", "blocks.1.skip.bias", "project.2.weight"} <= state.keys()


@pytest.mark.parametrize(
    ("positions", "expected"),
    [("closed", [0, 0.25, 0.5, 0.75, 1]), ("half-open", [0, 0.2, 0.4, 0.6, 0.8])],
)
def test_position_channels_of_other_networks(positions, expected):
    operator = small(modes=(2, 2), positions=positions).double()
    channels = operator._positions(torch.zeros(1, 5, 5, 2, dtype=torch.float64))
    x = torch.tensor(expected, dtype=torch.float64)
    assert torch.allclose(channels[0, ..., 0], x[:, None].expand(5, 5), atol=1e-15)
    assert torch.allclose(channels[0, ..., 1], x.expand(5, 5), atol=1e-15)


def test_position_channels_are_coordinates_and_on_periodic_axes_a_circle():
    operator = small(modes=(2, 2, 2), boundary=("periodic", "dirichlet", "neumann"), positions=True)
    channels = operator._positions(torch.zeros(1, 4, 3, 2, 1))[0]
    cos, sin, y, x = channels.unbind(-1)
    for got, expected, shape in (
        (cos, [1, 0, -1, 0], (4, 1, 1)),
        (sin, [0, 1, 0, -1], (4, 1, 1)),
        (y, [0, 0.5, 1], (3, 1)),
        (x, [0.25, 0.75], (2,)),
    ):
        assert torch.allclose(
            got, torch.tensor(expected).float().reshape(shape).expand(4, 3, 2), atol=1e-7
        )


@pytest.mark.parametrize("kind", [None, "tucker", "cp"])
@pytest.mark.parametrize(
    ("many", "few", "space"), [((6,), (3,), (17,)), ((5, 4), (2, 3), (12, 11)), ((3, 4, 3), (3, 1, 2), (7, 8, 9))]
)  # fmt: skip
def test_active_modes_make_the_operator_that_has_no_others(many, few, space, kind):
    operator = small(modes=many, factorization=kind, rank=0.5).double()
    smaller = small(modes=few).double()
    cut = tuple(slice(m - f, m + f) for m, f in zip(many[:-1], few[:-1], strict=True))
    state = {k: v for k, v in operator.state_dict().items() if ".kernel." not in k}
    for i, block in enumerate(operator.blocks):
        state[f"blocks.{i}.kernel.weight"] = block.kernel.weight[(*cut, slice(few[-1]))]
    smaller.load_state_dict(state)
    u = torch.randn(2, 2, *space, dtype=torch.float64)
    everything = operator(u)
    operator.active_modes = few
    assert torch.allclose(operator(u), smaller(u), rtol=0, atol=1e-13)
    assert (operator(u) - everything).abs().max() > 1e-6
    operator.active_modes = many
    assert torch.equal(operator(u), everything)


def test_active_modes_are_part_of_the_configuration():
    operator = small(modes=(6, 5))
    assert operator.configuration["active_modes"] == [6, 5]
    operator.active_modes = (2, 3)
    again = FNO(**operator.configuration)
    again.load_state_dict(operator.state_dict())
    u = torch.randn(2, 2, 16, 15)
    assert again.active_modes == [2, 3]
    assert torch.equal(again(u), operator(u))


def band_limited(sizes):
    """Two fields with frequencies up to 2 per axis, of all signs."""
    x = Grid.periodic(*sizes).points()
    axes = [p.reshape([-1] + [1] * (len(sizes) - 1 - i)) for i, p in enumerate(x)]
    first = sum(torch.sin(2 * math.pi * (i + 1) * p) for i, p in enumerate(axes[:2]))
    second = torch.cos(2 * math.pi * sum((-1) ** i * p for i, p in enumerate(axes)) + 0.3)
    return torch.stack(torch.broadcast_tensors(first, second))[None].to(torch.float64)


GRIDS = [
    ((4,), 9, (1, 2, 3, 5), 60),
    ((3, 4), 9, (1, 2, 3, 5), 20),
    ((2, 3, 2), 7, (1, 2, 3), 6),
]


@pytest.mark.parametrize(("modes", "n", "factors", "fine"), GRIDS, ids=["1d", "2d", "3d"])
@pytest.mark.parametrize("options", [{}, {"mlp": 0.5, "norm": "instance"}], ids=["plain", "MLP"])
def test_band_limited_input_gives_one_answer_on_all_grids_up_to_the_aliasing_of_gelu(
    modes, n, factors, fine, options
):
    """Grids of N, 2N, 3N and, with odd factors, odd sizes: GELU of a smooth field is smooth, so the
    aliasing falls faster than any power of the spacing."""
    operator = small(modes=modes, **options).double()

    def output(factor):
        every = (..., *[slice(None, None, factor)] * len(modes))
        return operator(band_limited([n * factor] * len(modes))).detach()[every]

    truth = output(fine)
    errors = [(output(factor) - truth).abs().max().item() for factor in factors]
    orders = [
        math.log(a / b) / math.log(q / p)
        for (a, b), (p, q) in zip(
            itertools.pairwise(errors), itertools.pairwise(factors), strict=True
        )
        if b > 1e-13
    ]
    assert all(order > 4 for order in orders), (errors, orders)
    assert errors[-1] < 1e-7 * truth.abs().max()


@pytest.mark.parametrize(("modes", "n", "factors", "fine"), GRIDS, ids=["1d", "2d", "3d"])
def test_without_the_nonlinearity_one_answer_on_all_grids(modes, n, factors, fine, monkeypatch):
    monkeypatch.setattr(F, "gelu", lambda v: v)
    operator = small(modes=modes).double()
    operator.project[1] = nn.Identity()
    every = [
        operator(band_limited([n * k] * len(modes)))[(..., *[slice(None, None, k)] * len(modes))]
        for k in factors
    ]
    assert all(torch.allclose(a, every[0], rtol=0, atol=1e-12) for a in every)


@pytest.mark.parametrize("boundary", ["dirichlet", "neumann"])
def test_answers_converge_at_second_order_on_padded_axes(boundary):
    operator = small(modes=(5,), boundary=boundary, positions=True).double()

    def output(n):
        grid = Grid.dirichlet(n + 1) if boundary == "dirichlet" else Grid.neumann(n)
        x = grid.points()[0]
        u = operator(torch.stack([torch.exp(x), torch.cos(3 * x)])[None])
        return (
            u.detach()[..., :: n // 8]
            if boundary == "dirichlet"
            else u.detach()[..., n // 18 :: n // 9]
        )

    sizes = (32, 64, 1024) if boundary == "dirichlet" else (27, 81, 2187)
    coarse, fine, truth = (output(n) for n in sizes)
    order = math.log((coarse - truth).abs().max() / (fine - truth).abs().max(), sizes[1] / sizes[0])
    assert order == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("options", KINDS, ids=["1d", "2d", "3d"])
def test_any_size_and_output_on_another_grid(options):
    operator = small(**options)
    for n in (3, 7, 10):
        u = torch.randn(2, 2, *[n + i for i in range(operator.ndim)])
        assert operator(u).shape == (2, 1, *u.shape[2:])
        assert operator(u, size=[12] * operator.ndim).shape == (2, 1, *[12] * operator.ndim)


def test_output_on_a_finer_grid_is_the_operator_on_the_finer_field():
    operator = small(modes=(3, 3)).double()
    u = torch.randn(1, 2, 9, 8, dtype=torch.float64)
    grid = Grid.periodic(9, 8)
    fine = grid.resized(18, 24)
    assert torch.allclose(
        operator(u, size=fine.shape), operator(grid.resample(u, fine)), atol=1e-13
    )


def test_linear_fields_are_interpolated_exactly_on_padded_axes():
    kinds = ("dirichlet", "neumann")

    def plane(ny, nx):
        y, x = Grid.dirichlet(ny, 3).points()[0], Grid.neumann(nx).points()[0]
        return (2 * y[:, None] - x).expand(1, 2, -1, -1)

    fine = resampled(plane(9, 8), (33, 8), kinds)
    assert torch.allclose(fine, plane(33, 8), atol=1e-13)
    inner = resampled(plane(9, 8), (9, 24), kinds)[
        ..., 1:-1
    ]  # beyond the outer cell centres it is constant
    assert torch.allclose(inner, plane(9, 24)[..., 1:-1], atol=1e-13)


def test_linear_interpolation_goes_around_periodic_axes():
    u = torch.tensor([0.0, 1.0, 2.0, 3.0]).expand(5, 4).T
    fine = resampled(u, (8, 5), ("periodic", "dirichlet"))
    assert fine[:, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 1.5]


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
def test_half_precision_input_is_resampled_in_single_precision(boundary):
    operator, u = small(modes=(3, 3), boundary=boundary), torch.randn(2, 2, 8, 8).bfloat16()
    low = resampled(u, (12, 12), operator.boundary)
    assert torch.equal(low, resampled(u.float(), (12, 12), operator.boundary).bfloat16())
    with torch.autocast("cpu", torch.bfloat16):  # as in a roll-out, where output is input
        result = operator(u, size=(12, 12))
    expected = operator(u.float(), size=(12, 12))
    assert (result - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small(modes=(4, 4))(torch.zeros(2, 3, 8, 8)), "in_channels=2, got 3 channels"),
        (lambda: small(modes=(4, 4))(torch.zeros(2, 2, 8)), r"expects \(batch, channels, y, x\)"),
        (lambda: small(modes=(4, 4))(torch.zeros(2, 2, 8, 8), size=(8,)), "size needs 2 entries"),
        (lambda: small(modes=(4, 4))(torch.zeros(2, 2, 8, 8), size=8), "one per axis; got 8"),
        (lambda: small(modes=12), "FNO needs modes as a list, .* got 12"),
        (lambda: small(modes=(0, 4)), "modes has 0"),
        (lambda: small(modes=(4,) * 4), "one to three"),
        (lambda: small(modes=(4, 4), boundary="free"), "one of periodic, dirichlet, neumann"),
        (lambda: small(modes=(4, 4), boundary=["periodic"]), r"per axis \(2\)"),
        (lambda: small(modes=(4,), padding=-0.1), "fraction of the domain"),
        (lambda: small(modes=(4,), padding=math.inf), "fraction of the domain"),
        (lambda: small(modes=(4,), width=0), "width has 0"),
        (lambda: small(modes=(4,), lifting=0), "lifting has 0"),
        (lambda: small(modes=(4,), positions="open"), "'half-open', got 'open'"),
        (lambda: small(modes=(4,), positions=1), "True, False, 'closed' or 'half-open', got 1"),
        (
            lambda: small(modes=(4,), mlp=0.01),
            "multiple of width=6, at least one channel; got 0.01",
        ),
        (lambda: small(modes=(4,), norm="layer"), "one of instance, batch, group or None"),
        (lambda: small(modes=(4,), skip="dense"), "one of linear, identity, soft-gating or None"),
        (lambda: small(modes=(4,), skip=("linear", "linear")), "so they need mlp"),
        (lambda: small(modes=(4,), factorization="tt"), "'tucker', 'cp' or None, got 'tt'"),
        (lambda: small(modes=(4,), rank=0.0), r"in \(0, 1\]; got 0.0"),
        (lambda: setattr(small(modes=(4,)), "active_modes", [5]), "at most the stored modes"),
        (lambda: setattr(small(modes=(4,)), "active_modes", [2, 2]), "one number per axis"),
        (lambda: setattr(small(modes=(4,)), "active_modes", [0]), "active_modes has 0"),
        (lambda: setattr(small(modes=(4,)), "active_modes", 3), "active_modes as a list.*got 3"),
        (lambda: small(modes=(4,), active_modes=[5]), "at most the stored modes"),
    ],
)
def test_bad_input_is_refused(call, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # types may be wrong, too
    with pytest.raises(ValueError, match=message):
        call()
