"""The multigrid neural operator: size, symmetry, grids, export, and what is refused."""

from __future__ import annotations

import jaxtyping
import pytest
import torch
from torch.export import Dim

from sobolev import Grid
from sobolev.operators import MgNO
from sobolev.operators.layers.resampling import resampled


def parameters(operator) -> int:
    return sum(p.numel() for p in operator.parameters())


def small(**options):
    return MgNO(2, 1, **{"levels": 3, "width": 6, "depth": 2, **options})


NAVIER_STOKES = {
    "levels": 5, "width": 32, "depth": 5, "boundary": "periodic", "smoothings": (1, 1, 1, 2, 2),
    "pointwise": False, "bias": True, "increment": True, "norm": "layer",
}  # fmt: skip


def test_the_darcy_model_has_the_published_size():
    """0.57 M (table 1), for 4 layers of 24 channels on 6 levels."""
    assert parameters(MgNO(1, 1, levels=6, width=24, depth=4)) == 572_661
    assert parameters(MgNO(1, 1, levels=6, width=24, depth=5)) == 738_573


def test_the_navier_stokes_model_has_the_published_size_but_for_the_maps_tied_to_64_squared():
    """2.89 M (table 2), with a scale and a shift per channel and node after each prolongation."""
    published = sum(32 * 2 * (64 // 2**j) ** 2 for j in range(4)) * 5
    ours = 2 * 32 * 4 * 5
    count = parameters(MgNO(1, 1, **NAVIER_STOKES))
    assert (count, count - ours + published) == (1_145_674, 2_885_194)


def test_counts_follow_the_formula_in_three_dimensions():
    """27 weights per pair of channels for each S (6 sweeps), A (5 sweeps, 2 residuals), R and Π (2
    each), 64 for each P (2); B and b; the last map."""
    operator = MgNO(2, 3, 3, 5, 2, ndim=3, smoothings=[(2, 1), 1, (2, 0)], restrict="residual")
    cycles = [27 * ((6 + 7) * c * 5 + 2 * c * c + 2 * 5 * 5) + 64 * 2 * 5 * 5 for c in (2, 5)]
    assert parameters(operator) == sum(cycles) + (2 * 5 + 5) + (5 * 5 + 5) + 5 * 3


@pytest.mark.parametrize("options", [{"restrict": "residual"}, {"norm": "layer", "bias": True}])
def test_commutes_with_shifts_by_a_coarsest_cell_on_periodic_axes(options):
    operator = small(boundary="periodic", **options).double()
    u = torch.randn(2, 2, 24, 12, dtype=torch.float64)
    shift = {"shifts": (4, -8), "dims": (-2, -1)}
    assert torch.allclose(operator(u.roll(**shift)), operator(u).roll(**shift), atol=1e-12)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("boundary", ["dirichlet", "neumann", "periodic"])
def test_any_size_and_output_on_another_grid(ndim, boundary):
    operator = small(boundary=boundary, ndim=ndim).double()
    for n in (5, 6, 8):
        u = torch.randn(2, 2, *[n + i for i in range(ndim)], dtype=torch.float64)
        assert operator(u).shape == (2, 1, *u.shape[2:])
        size = (9, 10, 11)[:ndim]
        expected = operator(resampled(u, size, operator.boundary))
        assert torch.equal(operator(u, size=size), expected)


def test_an_increment_is_added_to_the_input():
    operator = MgNO(2, 2, 3, 6, 2, increment=True)
    torch.nn.init.zeros_(operator.output.weight)
    u = torch.randn(2, 2, 9, 9)
    assert torch.equal(operator(u), u)


@pytest.mark.slow
def test_stencils_count_in_cells_so_weights_serve_the_grid_they_were_trained_on():
    """−u″ = sin kπx, k ≤ 6, by a network trained on 33 nodes and used on 65."""
    k = torch.arange(1, 7)
    amplitudes = torch.randn(64, 6)

    def fields(n):
        modes = torch.sin(torch.pi * k[:, None] * Grid.dirichlet(n, 3).points()[0].float())
        return (amplitudes @ modes)[:, None], (amplitudes / k**2 @ modes)[:, None]

    def error(prediction, n):
        return (prediction - fields(n)[1]).norm() / fields(n)[1].norm()

    operator = MgNO(1, 1, 4, 12, 2, ndim=1)
    optimizer = torch.optim.Adam(operator.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, 200)
    for _ in range(200):
        optimizer.zero_grad()
        error(operator(fields(33)[0]), 33).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        there = operator(fields(65)[0], size=(33,))
        trained = error(there, 33)
        resized = error(resampled(there, (65,), operator.boundary), 65)
        direct = error(operator(fields(65)[0]), 65)
    assert trained < 0.03
    assert resized < trained + 0.01
    assert direct > 0.3


EXPORTED = [
    ({"boundary": "periodic", "norm": "layer", "depth": 1}, 1),
    ({"boundary": ("neumann", "periodic", "dirichlet"), "depth": 1}, 3),
]
"""Two axes are exported as an ONNX file, in surrogates/test_every_surrogate.py."""


@pytest.mark.slow
@pytest.mark.parametrize(("options", "ndim"), EXPORTED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_one_exported_graph_serves_even_and_odd_grids(options, ndim, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # sizes are symbols
    operator = small(ndim=ndim, **options).eval()
    free = dict.fromkeys((0, *range(2, 2 + ndim)), Dim.DYNAMIC)
    example = torch.zeros(2, 2, *(17, 19, 21)[:ndim])
    graph = torch.export.export(operator, (example,), dynamic_shapes={"u": free}).module()
    for n in (5, 6, 7, 8, 12):
        u = torch.randn(3, 2, *(n, n + 1, n + 2)[:ndim])
        assert torch.allclose(graph(u), operator(u), atol=1e-6)
    with pytest.raises(AssertionError, match="Guard failed"):
        graph(torch.zeros(1, 2, *(4, 5, 5)[:ndim]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small(boundary="free"), "one of periodic, dirichlet, neumann"),
        (lambda: small(boundary=["periodic"]), r"per axis \(2\)"),
        (lambda: small(ndim=4), "one to three dimensions, got ndim=4"),
        (lambda: small(levels=0), "levels has 0"),
        (lambda: small(width=0), "width has 0"),
        (lambda: small(restrict="both"), "'data' or 'residual', got 'both'"),
        (lambda: small(norm="batch"), "None or 'layer', got 'batch'"),
        (lambda: small(increment=True), "in_channels=2 and out_channels=1"),
        (lambda: small(smoothings=(1, 1)), r"one entry per level, 3, got \(1, 1\)"),
        (lambda: small(smoothings=2), "one entry per level, 3, got 2"),
        (lambda: small(smoothings=(1, 1.0, 2)), r"whole numbers of at least 0; got \[1.0, 0\]"),
        (lambda: small(smoothings=(1, 1, -1)), r"at least 0; got \[-1, 0\]"),
        (lambda: small(smoothings=(1, (1, 1, 1), 1)), r"got \[1, 1, 1\]"),
        (lambda: small(smoothings=(1, True, 1)), r"got \[True, 0\]"),
        (lambda: small(smoothings=(0, 1, 1)), "on the finest level"),
        (lambda: small(smoothings=(1, 1, (1, 1))), "on the coarsest at least one and none after"),
        (lambda: small()(torch.zeros(2, 3, 8, 8)), "in_channels=2, got 3 channels"),
        (lambda: small()(torch.zeros(2, 2, 8)), r"expects \(batch, channels, y, x\)"),
        (lambda: small(levels=5)(torch.zeros(2, 2, 33, 16)), r"more than 16 nodes .* use levels<=4 or resample .* 17"),
        (lambda: small(levels=4)(torch.zeros(2, 2, 9, 9), size=(8, 8)), "use levels<=3"),
        (lambda: small(levels=1)(torch.zeros(2, 2, 1, 8)), r"\(1, 8\); resample to at least 2"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which refuses types itself
    with pytest.raises(ValueError, match=message):
        call()
