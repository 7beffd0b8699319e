"""Factorised Fourier layers are the dense layer of the weights that their factors stand for."""

from __future__ import annotations

import sys

import pytest
import torch

from sobolev.operators import FNO, SpectralConv
from sobolev.operators.layers.factorized import CPConv, TuckerConv
from sobolev.operators.layers.fourier import FourierModes

KINDS = [((5,), (16,)), ((4, 3), (9, 12)), ((3, 2, 2), (5, 8, 7))]


def pair(layer, modes, rank=0.4, channels=(5, 3)):
    """A factorised layer and the dense one with the same weights."""
    options = {"boundary": ["periodic"] * len(modes)}
    factorized = layer(*channels, modes, rank=rank, **options).double()
    dense = SpectralConv(*channels, modes, **options).double()
    with torch.no_grad():
        dense.weight.copy_(factorized.weight)
    return factorized, dense


@pytest.mark.parametrize("layer", [TuckerConv, CPConv])
@pytest.mark.parametrize(("modes", "space"), KINDS, ids=["1d", "2d", "3d"])
def test_equals_the_dense_layer_on_fine_and_coarse_grids_by_either_path(
    layer, modes, space, monkeypatch
):
    factorized, dense = pair(layer, modes)
    fields = [torch.randn(2, *size, 5, dtype=torch.float64) for size in (space, [4] * len(modes))]
    for fft in (False, True):
        monkeypatch.setattr(FourierModes, "_prefers_fft", lambda self, size, fft=fft: fft)
        for v in fields:
            assert torch.allclose(factorized(v), dense(v), rtol=1e-12, atol=1e-15)


def test_the_dense_weight_is_the_sum_written_out():
    tucker, _ = pair(TuckerConv, (4, 3))
    u, v, a, b = tucker.factors
    by_sum = torch.einsum("rscdp,kr,ls,ic,od->kliop", tucker.core, u, v, a, b)
    assert torch.allclose(tucker.weight, by_sum, rtol=1e-13, atol=0)
    cp, _ = pair(CPConv, (4, 3))
    by_sum = torch.einsum("kr,lr,ir,or,pr->kliop", *cp.factors)
    assert torch.allclose(cp.weight, by_sum, rtol=1e-12, atol=1e-18)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [TuckerConv, CPConv])
@pytest.mark.parametrize("rank", [0.05, 0.3])
def test_rank_is_the_share_of_the_parameters(layer, rank):
    factorized, dense = pair(layer, (12, 12), rank, channels=(20, 20))
    share = sum(p.numel() for p in factorized.parameters()) / dense.weight.numel()
    assert share == pytest.approx(rank, rel=0.15)


@pytest.mark.parametrize("layer", [TuckerConv, CPConv])
def test_initial_weights_are_as_large_as_dense_ones(layer):
    squares = [pair(layer, (6, 6), channels=(8, 8))[0].weight.square().mean() for _ in range(40)]
    expected = 1 / (3 * (8 * 8) ** 2)  # of the uniform distribution on [0, 1 / (in · out))
    assert torch.stack(squares).mean().item() == pytest.approx(expected, rel=0.3)


def test_tucker_approximates_a_dense_weight_exactly_where_its_rank_suffices():
    tucker, dense = pair(TuckerConv, (4, 3), channels=(6, 6))
    other, _ = pair(TuckerConv, (4, 3), channels=(6, 6))
    other.approximate(dense.weight)
    assert torch.allclose(other.weight, tucker.weight, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["tucker", "cp"])
def test_the_network_has_real_parameters_in_its_state_and_on_meta(kind):
    operator = FNO(1, 1, (4, 4), width=8, depth=2, factorization=kind, rank=0.2)
    keys = {key for key in operator.state_dict() if ".kernel." in key}
    assert "blocks.0.kernel.factors.0" in keys
    assert not any(key.endswith("kernel.weight") for key in keys)
    with torch.device("meta"):
        blank = FNO(1, 1, (4, 4), width=8, depth=2, factorization=kind, rank=0.2)
    blank.to_empty(device="cpu").load_state_dict(operator.state_dict())
    u = torch.randn(1, 1, 9, 10)
    assert torch.equal(blank(u), operator(u))


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorly", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sobolev\[factorized\]'"):
        FNO(1, 1, (4,), factorization="tucker")
    FNO(1, 1, (4,))
