"""Group layers: the convolution against its sum, and weights that follow their parameters."""

from __future__ import annotations

import copy
import io
import itertools

import pytest
import torch

from sobolev.operators.layers.fourier import FourierModes
from sobolev.operators.layers.group_conv import (
    GroupLinear,
    GroupSpectralConv,
    Lifting,
    Projection,
    group_matrices,
    quotients,
    representation,
)

N, M = 5, 3  # a grid on which the modes −2 … 2 are all there are
GROUPS = ["p4", "p4m"]


@pytest.mark.parametrize("group", GROUPS)
def test_quotients_are_those_of_the_matrices(group):
    g = group_matrices(group)
    table = quotients(g)
    assert len({tuple(m.flatten().tolist()) for m in g}) == {"p4": 4, "p4m": 8}[group]
    for i, j in itertools.product(range(len(g)), repeat=2):
        assert torch.equal(g[i] @ g[table[i, j]], g[j])


def test_the_second_element_is_the_turn_of_rot90():
    # rot90 takes the value at p to r p; a peak at offset (1, 0) from the middle shows where that is
    peak = torch.zeros(3, 3)
    peak[2, 1] = 1
    moved = group_matrices("p4")[1] @ torch.tensor([1, 0])
    assert peak.rot90()[1 + moved[0], 1 + moved[1]] == 1


def test_vector_pairs_turn_and_other_channels_do_not():
    action = representation(group_matrices("p4"), 3, [[2, 0]])  # u_y is channel 2, u_x channel 0
    assert (action[1] @ torch.tensor([10, 7, 1])).tolist() == [1, 7, -10]  # (1, 10) to (−10, 1)


def summed(psi, v, matrices):
    """Σ_h Σ_y ψ(g⁻¹(x−y), g⁻¹h) v(y, h) term by term, on the torus of N² nodes (and times)."""
    order, table = len(matrices), quotients(matrices)
    w = v.new_zeros(v.shape[0], order, psi.shape[2], *v.shape[3:])
    for g, h in itertools.product(range(order), repeat=2):
        for z in itertools.product(*(range(n) for n in v.shape[3:])):
            turned = (*((matrices[g].T @ torch.tensor(z[:2])) % N).tolist(), *z[2:])
            tap = psi[(table[g, h], slice(None), slice(None), *turned)]  # (i, o)
            moved = v[:, h].roll(z, dims=tuple(range(2, v.ndim - 1)))
            w[:, g] += torch.einsum("io,bi...->bo...", tap, moved)
    return w


@pytest.mark.parametrize(("group", "times"), [("p4", ()), ("p4m", ()), ("p4", (N,))])
def test_spectral_conv_is_the_sum_over_group_and_space(group, times):
    matrices, space = group_matrices(group), (N, N, *times)
    axes = tuple(range(3, 3 + len(space)))
    psi = torch.randn(len(matrices), 2, 3, *space, dtype=torch.float64)
    v = torch.randn(2, len(matrices), 2, *space, dtype=torch.float64)
    modes = FourierModes((M,) * len(space), ("periodic",) * len(space), symmetric=True)
    layer = GroupSpectralConv(matrices, 2, 3, modes).double()
    spectrum = torch.view_as_real(torch.fft.fftn(psi, dim=axes))
    with torch.no_grad():
        layer.constant.copy_(spectrum[(..., *[0] * len(space), 0)])
        for k in itertools.product(range(1 - M, M), repeat=len(space)):
            number = sum(k_j * N**j for j, k_j in enumerate(k))
            if number > 0:
                layer.waves[number - 1] = spectrum[(..., *(k_j % N for k_j in k), slice(None))]
        field = v.transpose(1, 2).flatten(1, 2).movedim(1, -1)
        transforms = modes.between(space, space, field)
        w = transforms.synthesis(layer(transforms.analysis(field), transforms))
    expected = summed(psi, v, matrices).transpose(1, 2).flatten(1, 2).movedim(1, -1)
    assert torch.allclose(w, expected, atol=1e-12)


def _data(layer):
    for p in layer.parameters():
        p.data = p.data.flip(0).clone()


def _step(layer, **options):
    layer.requires_grad_(True)
    layer(torch.ones(1, 8)).square().sum().backward()
    with torch.no_grad():
        layer.weights()  # nor may these be kept, with a step ahead
    torch.optim.AdamW(layer.parameters(), lr=0.1, **options).step()
    layer.requires_grad_(False)
    layer.zero_grad()


def _compiled_training(layer):
    """As training goes past ``weights`` when it is compiled."""
    layer.train().requires_grad_(True)
    for p in layer.parameters():
        p.grad = torch.ones_like(p)
    torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True).step()
    layer.eval().requires_grad_(False).zero_grad()


def _in_place(layer):
    with torch.no_grad():
        layer.bias[0] += 1


CHANGES = {
    "in place": _in_place,
    "in place in inference mode": lambda layer: torch.inference_mode()(_in_place)(layer),
    "optimizer": _step,
    "fused optimizer": lambda layer: _step(layer, fused=True),
    "fused optimizer, compiled": _compiled_training,
    "load_state_dict": lambda layer: layer.load_state_dict(fresh().state_dict()),
    "load_state_dict, assigned": lambda layer: layer.load_state_dict(
        fresh().state_dict(), assign=True
    ),
    "new memory": _data,
    "precision": lambda layer: layer.double(),
    "initialised anew": lambda layer: torch.nn.init.normal_(layer.free),
}


def fresh():
    return GroupLinear(group_matrices("p4"), 2, 2).eval().requires_grad_(False)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_kept_weights_follow_every_change(change):
    layer = fresh()
    before, again = layer.weights()[0], layer.weights()[0]
    assert before is again
    change(layer)
    kept, built = layer.weights(), layer.build()
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(kept, built, strict=True))


def test_kept_weights_follow_the_precision_even_at_the_same_address():
    layer = fresh().to("meta")  # where all addresses are 0
    layer.weights()
    assert layer.double().weights()[0].dtype == torch.float64


def test_tables_are_not_lost_on_the_meta_device():
    with torch.device("meta"):
        blanks = [fresh().to_empty(device="cpu"), fresh()]
    layer = fresh()
    with torch.no_grad():
        for empty, full in zip(blanks[0].parameters(), layer.parameters(), strict=True):
            empty.copy_(full)
    blanks[1].load_state_dict(layer.state_dict(), assign=True)
    assert all(torch.equal(blank.weights()[0], layer.weights()[0]) for blank in blanks)


@pytest.mark.parametrize("group", GROUPS)
def test_initial_weights_are_uniform_up_to_one_over_the_root_of_the_fan_in(group):
    g = group_matrices(group)
    modes = FourierModes((6, 6), ("periodic",) * 2, symmetric=True)
    for layer, fan_in in (
        (GroupSpectralConv(g, 12, 12, modes), 12 * len(g)),
        (GroupLinear(g, 40, 40), 40 * len(g)),
        (Lifting(g, 40, 40, []), 40),
        (Projection(g, 40, 40, []), 40 * len(g)),
    ):
        for p in layer.parameters():
            if p.numel() > 500:
                assert p.abs().max() <= fan_in**-0.5
                assert p.square().mean().item() == pytest.approx(1 / (3 * fan_in), rel=0.2)
                assert abs(p.mean().item()) < 0.1 * fan_in**-0.5


def test_kept_weights_are_not_copied_or_stored():
    layer = fresh()
    _in_place(layer)
    layer.weights()
    twin = copy.deepcopy(layer)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for copied in (twin, torch.load(file, weights_only=False)):
        for _ in range(4):  # as many edits as it takes to come past the original's version
            _in_place(copied)
            assert torch.equal(copied.weights()[1], copied.build()[1])
    assert set(layer.state_dict()) == {"free", "bias"}


def test_weights_carry_gradients_wherever_they_are_recorded():
    layer = fresh().requires_grad_(True)
    with torch.inference_mode():
        layer.weights()
    for _ in range(2):  # a second pass would fail on a graph that is kept
        layer(torch.ones(1, 8)).sum().backward()
    assert layer.free.grad is not None
    u = torch.ones(1, 8, requires_grad=True)
    with torch.inference_mode():
        layer.requires_grad_(False).weights()
    layer(u).sum().backward()  # nor may tensors of inference mode be kept


def test_models_of_an_ensemble_run_side_by_side():
    layers = [fresh(), fresh()]
    parameters, _ = torch.func.stack_module_state(layers)
    u = torch.randn(3, 8)
    with torch.no_grad():
        layers[0].weights()
        got = torch.vmap(lambda p: torch.func.functional_call(layers[0], p, (u,)))(parameters)
        assert torch.allclose(got, torch.stack([layer(u) for layer in layers]), atol=1e-6)
