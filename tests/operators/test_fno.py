"""The Fourier neural operator: symmetry, resolution, training, and the ways it is run."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sobolev import Grid
from sobolev.operators import FNO
from sobolev.operators.resampling import resampled

KINDS = [
    {"modes": (4,)},
    {"modes": (4, 3), "boundary": "dirichlet", "positions": True},
    {"modes": (3, 2, 2), "boundary": ("neumann", "periodic", "dirichlet"), "positions": True},
]


def small(**options):
    return FNO(2, 1, **{"width": 6, "depth": 2, **options})


@pytest.mark.parametrize("space", [(16, 24), (9, 15)])
def test_commutes_with_shifts_on_periodic_axes(space):
    operator = small(modes=(4, 4)).double()
    u = torch.randn(2, 2, *space, dtype=torch.float64)
    shift = {"shifts": (3, -5), "dims": (-2, -1)}
    assert torch.allclose(operator(u.roll(**shift)), operator(u).roll(**shift), atol=1e-12)


def test_band_limited_input_gives_one_answer_on_all_grids_up_to_the_aliasing_of_gelu():
    operator = small(modes=(5,)).double()

    def output(n):
        x = Grid.periodic(n).points()[0]
        u = torch.stack([torch.sin(2 * math.pi * x), torch.cos(6 * math.pi * x + 0.3)])[None]
        return operator(u)[..., :: n // 15]

    truth = output(960)
    errors = [(output(n) - truth).abs().max().item() for n in (15, 30, 60, 120)]
    assert all(b < a / 8 for a, b in itertools.pairwise(errors) if a > 1e-12)
    assert errors[-1] < 1e-10


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small(modes=(4, 4))(torch.zeros(2, 3, 8, 8)), "in_channels=2, got 3 channels"),
        (lambda: small(modes=(4, 4))(torch.zeros(2, 2, 8)), r"expects \(batch, channels, y, x\)"),
        (lambda: small(modes=(4, 4))(torch.zeros(2, 2, 8, 8), size=(8,)), "size needs 2 entries"),
        (lambda: small(modes=(0, 4)), "modes has 0"),
        (lambda: small(modes=(4,) * 4), "one to three"),
        (lambda: small(modes=(4, 4), boundary="free"), "one of periodic, dirichlet, neumann"),
        (lambda: small(modes=(4, 4), boundary=["periodic"]), r"per axis \(2\)"),
        (lambda: small(modes=(4,), padding=-0.1), "fraction of the domain"),
        (lambda: small(modes=(4,), width=0), "width has 0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
