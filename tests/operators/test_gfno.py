"""The group-equivariant Fourier neural operator: symmetry on every kind of grid, the paper's sizes."""

from __future__ import annotations

import jaxtyping
import pytest
import torch
from torch.export import Dim
from torch.nn import functional as F

from sobolev import Grid
from sobolev.grids.axis import Axis
from sobolev.operators import GFNO
from sobolev.operators.gfno import GroupFourierBlock
from sobolev.operators.layers.fourier import FourierModes
from sobolev.operators.layers.group_conv import group_matrices

BOUNDARIES = ["periodic", "dirichlet", "neumann"]


def small(**options):
    """Two channels to one, and trained for two steps, so that no symmetry is one of the start."""
    options = {"modes": (4, 4), "width": 3, "depth": 2, **options}
    operator = GFNO(options.pop("in_channels", 2), options.pop("out_channels", 1), **options)
    operator = operator.double()
    optimizer = torch.optim.Adam(operator.parameters(), lr=0.05)
    u = torch.randn(2, operator.in_channels, 10, 10, *[4] * (operator.ndim - 2)).double()
    for _ in range(2):
        optimizer.zero_grad()
        (operator(u) - u[:, : operator.out_channels].sin()).square().mean().backward()
        optimizer.step()
    return operator.eval()


def turned(u, *vectors):
    """The field after a quarter turn; pairs (y, x) of channels are turned themselves."""
    u = u.rot90(dims=(2, 3))
    w = u.clone()
    for y, x in vectors:
        w[:, y], w[:, x] = -u[:, x], u[:, y]
    return w


def mirrored(u, *vectors):
    """The field after x → −x."""
    u = u.flip(3)
    for _, x in vectors:
        u[:, x] *= -1
    return u


def close(a, b):
    """To 1e-12 of the larger field; what is compared must not be constant."""
    assert a.std() > 1e-3
    return (a - b).abs().max() <= 1e-12 * max(1.0, a.abs().max().item())


@pytest.mark.parametrize("positions", [None, "symmetric"])
@pytest.mark.parametrize("n", [7, 16, 17])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("group", ["p4", "p4m"])
@torch.no_grad()
def test_commutes_with_turns_and_reflections(group, boundary, n, positions):
    with torch.enable_grad():
        operator = small(group=group, boundary=boundary, positions=positions)
    u = torch.randn(2, 2, n, n, dtype=torch.float64)
    result = operator(u)
    assert close(operator(turned(u)), turned(result))
    assert close(operator(mirrored(u)), mirrored(result)) == (group == "p4m")


@pytest.mark.parametrize("group", ["p4", "p4m"])
@pytest.mark.parametrize("norm", [False, True])
def test_in_three_dimensions_the_group_acts_on_space_alone(group, norm):
    operator = small(
        modes=(3, 3, 2), group=group, norm=norm, positions="symmetric",
        boundary=("periodic", "periodic", "neumann"),
    )  # fmt: skip
    u = torch.randn(2, 2, 9, 9, 6, dtype=torch.float64)
    result = operator(u)
    assert close(operator(turned(u)), turned(result))
    assert close(operator(mirrored(u)), mirrored(result)) == (group == "p4m")
    assert not close(operator(u.flip(4)), result.flip(4))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_vectors_turn_with_the_field(boundary):
    # velocity and a scalar in, a scalar and velocity out
    pairs = {"in": [[0, 1]], "out": [[2, 0]]}
    operator = small(
        in_channels=3, out_channels=3, group="p4m", vectors=pairs, boundary=boundary,
        positions="symmetric",
    )  # fmt: skip
    u = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    result = operator(u)
    assert close(operator(turned(u, (0, 1))), turned(result, (2, 0)))
    assert close(operator(mirrored(u, (0, 1))), mirrored(result, (2, 0)))
    assert not close(operator(turned(u)), turned(result, (2, 0)))


def test_a_field_without_direction_gives_no_vector():
    operator = small(out_channels=2, vectors={"out": [[0, 1]]})
    assert operator(torch.ones(1, 2, 8, 8, dtype=torch.float64)).abs().max() < 1e-12


def test_commutes_with_shifts_on_periodic_axes():
    operator, u = small(), torch.randn(2, 2, 9, 9, dtype=torch.float64)
    shift = {"shifts": (3, -5), "dims": (2, 3)}
    assert close(operator(u.roll(**shift)), operator(u).roll(**shift))


def test_output_on_another_periodic_grid_keeps_turns_about_a_node():
    operator, u = small(), torch.randn(2, 2, 8, 8, dtype=torch.float64)

    def about_node(u):
        return turned(u).roll(1, dims=2)  # rot90 takes row 0 to the last one

    assert close(operator(about_node(u), size=(15, 15)), about_node(operator(u, size=(15, 15))))


def test_transforms_by_fft_keep_the_symmetry():
    operator = small(modes=(40, 40), width=2, group="p4m")
    for n in (8, 9):
        u = torch.randn(1, 2, n, n, dtype=torch.float64)
        assert not operator._fourier.between((n, n), (n, n), u).forward
        assert close(operator(turned(u)), turned(operator(u)))


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"modes": (12, 12), "width": 10, "group": "p4"}, 853_121),
        ({"modes": (12, 12), "width": 7, "group": "p4m"}, 835_969),
        ({"modes": (8, 8, 6), "width": 11, "group": "p4"}, 4_799_708),
        ({"modes": (8, 8, 6), "width": 7, "group": "p4m"}, 3_887_304),
    ],
)
def test_has_the_papers_number_of_parameters(options, count):
    # ten frames in, one out, with the symmetric position channel (and time)
    operator = GFNO(10, 1, positions="symmetric", **options)
    assert sum(p.numel() for p in operator.parameters()) == count


def plain(block, v, modes, norm=True):
    """The block's equation on the values, its instance norms by torch's."""

    def normalised(v):
        if not norm:
            return v
        fields = v.unflatten(-1, (block.width, -1)).movedim(-2, 1)  # (batch, width, space, group)
        return F.instance_norm(fields, eps=1e-5).movedim(1, -2).flatten(-2)

    transforms = modes.between(v.shape[1:-1], v.shape[1:-1], v)
    w = transforms.analysis(normalised(v))
    w = transforms.synthesis(block.kernel(w, transforms))
    return block.outer(F.gelu(block.inner(normalised(w)))) + block.skip(v)


@pytest.mark.parametrize("n", [8, 9])
def test_norms_on_coefficients_are_instance_norms(n):
    modes = FourierModes((4, 4), ("periodic", "periodic"), symmetric=True)
    block = GroupFourierBlock(group_matrices("p4"), 3, modes, norm=True).double()
    v = torch.randn(2, n, n, 12, dtype=torch.float64) * torch.arange(1, 13) + 100
    v.requires_grad_(True)
    results = block(v, modes.between((n, n), (n, n), v)), plain(block, v, modes)
    assert torch.allclose(*results, atol=1e-10)
    weights = torch.randn_like(v)  # the same derivatives, too
    got, expected = (torch.autograd.grad(r, v, weights)[0] for r in results)
    assert torch.allclose(got, expected, atol=1e-10)


@pytest.mark.parametrize("space", [(9, 9), (8, 8, 5)])
def test_is_the_published_network(space):
    """Written out: on two axes with norms, on three without; nodes at i/n, in time at (j + ½)/n."""
    operator = GFNO(
        2, 1, (4, 4, 3)[: len(space)], width=3, depth=3, positions="symmetric",
        boundary=["periodic", "periodic", "neumann"][: len(space)],
    ).double()  # fmt: skip
    u = torch.randn(2, 2, *space, dtype=torch.float64)
    x = torch.arange(space[0], dtype=torch.float64) / space[0]
    square = (x - x.mean()).square()
    channels = [(square[:, None] + square).reshape(*space[:2], *[1] * (len(space) - 2))]
    if len(space) == 3:
        channels.append((torch.arange(5, dtype=torch.float64) + 0.5) / 5)
    positions = torch.stack([c.expand(space) for c in channels], dim=-1)
    v = operator.lift(
        torch.cat([u.movedim(1, -1), positions.expand(2, *[-1] * (len(space) + 1))], -1)
    )
    for i, block in enumerate(operator.blocks):
        v = plain(block, v, operator._fourier, norm=len(space) == 2)
        v = F.gelu(v) if i < 2 else v
    enter, _, leave = operator.project
    assert torch.allclose(operator(u), leave(F.gelu(enter(v))).movedim(-1, 1), rtol=0, atol=1e-11)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_positions_are_symmetric_on_the_nodes(boundary):
    operator = GFNO(1, 1, modes=(4, 4), width=2, boundary=boundary, positions="symmetric")
    for n in (8, 9):
        square = operator._positions(torch.zeros(1, n, n, 1).double())[0, ..., 0]
        assert torch.equal(square, square.rot90())
        assert torch.equal(square, square.flip(1))
        h = Axis("", n, boundary=boundary).spacing  # r² grows by ((n−1)h/2)² from middle to edge
        edge = square[0, n // 2] - square[n // 2, n // 2]
        inner = 0.0 if n % 2 else h / 2
        assert edge == pytest.approx(((n - 1) * h / 2) ** 2 - inner**2, abs=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small()(torch.zeros(1, 2, 8, 9).double()), r"a field of \(8, 9\); resample"),
        (lambda: small()(torch.zeros(1, 2, 8, 8).double(), size=(8, 9)), r"size of \(8, 9\)"),
        (lambda: small(modes=(4, 3)), r"as many on y as on x; got \[4, 3\]"),
        (lambda: small(modes=(4,)), r"\(m, m, time\)"),
        (lambda: small(boundary=("periodic", "neumann")), "of one boundary kind"),
        (lambda: small(group="p6"), "p4 .* or p4m .* got 'p6'"),
        (lambda: small(positions="cartesian"), "None or 'symmetric'"),
        (lambda: small(vectors={"in": [[0, 2]]}), r"among 0 … 1, got \[\[0, 2\]\]"),
        (lambda: small(vectors={"in": [[0, 0]]}), "different channels"),
        (lambda: small(vectors={"out": [[0]]}), "pairs of different channels"),
        (lambda: small(vectors={"input": [[0, 1]]}), "'in' and 'out' only"),
        (lambda: small(vectors=[[0, 1]]), r"'in' and 'out' only, got \[\[0, 1\]\]"),
        (lambda: small(vectors={"in": [0, 1]}), r"pairs of .* got \[0, 1\]"),
        (lambda: small(vectors={"in": None}), "pairs of .* got None"),
        (lambda: small(vectors={"in": [[False, True]]}), "pairs of different channels"),
        (lambda: small(modes=12), "GFNO needs modes as a list, .* got 12"),
        (lambda: small(norm="instance"), "True, False or None, got 'instance'"),
        (lambda: small(padding=-1.0), "fraction of the domain"),
        (lambda: small(width=0), "width has 0"),
        (lambda: small().check_grid(Grid.periodic(8, 9)), r"a grid of \(8, 9\)"),
        (lambda: small().check_grid(Grid.neumann(8, 8)), r"boundary=\['periodic', 'periodic'\]"),
        (
            lambda: small().check_grid(Grid(Axis("y", 8, length=2.0), Axis("x", 8))),
            "square domain.* got lengths 2.0 and 1.0",
        ),
    ],
)
def test_bad_input_is_refused(call, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # types may be wrong, too
    with pytest.raises(ValueError, match=message):
        call()


def test_takes_the_grid_it_is_for():
    small().check_grid(Grid.periodic(8, 8))


@pytest.mark.slow
def test_exports_with_a_free_resolution(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # sizes are symbols
    operator = GFNO(2, 1, modes=(4, 4), width=3, depth=1, group="p4m", positions="symmetric").eval()
    u = torch.randn(2, 2, 16, 16)
    with torch.no_grad():
        operator(u)  # weights kept from here must not become constants of what is exported
        free = dict.fromkeys((0, 2, 3), Dim.DYNAMIC)
        graph = torch.export.export(operator, (u,), dynamic_shapes={"u": free}).module()
        for shape in [(1, 2, 24, 24), (3, 2, 33, 33)]:
            u = torch.randn(*shape)
            assert torch.allclose(graph(u), operator(u), atol=1e-5)
