"""Networks trained with neuralop give the same outputs here."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sobolev.operators import FNO, fno_from_neuralop

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from neuralop import models as neuralop
except ModuleNotFoundError:
    neuralop = None
needs_neuralop = pytest.mark.skipif(
    neuralop is None, reason="needs neuralop: pip install neuraloperator==2.0.0"
)


def peer(modes, **options):
    """A neuralop FNO as if trained: no weight is at its initial zero or one."""
    model = neuralop.FNO(
        n_modes=modes, in_channels=2, out_channels=3, hidden_channels=8, n_layers=3, **options
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.is_complex():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


PEERS = {
    "1-d": ((12,), (33,), {}),
    "2-d": ((8, 6), (24, 20), {}),
    "3-d": ((6, 4, 4), (12, 10, 9), {}),
    "odd modes": ((7, 7), (24, 21), {}),
    "instance norm": ((8, 6), (20, 20), {"norm": "instance_norm"}),
    "batch norm": ((8, 6), (20, 20), {"norm": "batch_norm"}),
    "other skips": ((6, 6), (16, 16), {"fno_skip": "soft-gating", "channel_mlp_skip": "linear"}),
    "identity": ((6, 6), (16, 16), {"channel_mlp_skip": "identity"}),
    "no MLP skip": ((6, 6), (16, 16), {"channel_mlp_skip": None}),
    "bare": ((6, 6), (16, 16), {"positional_embedding": None, "lifting_channel_ratio": 0}),
    "ratios": ((6, 6), (16, 16), {"channel_mlp_expansion": 1.5, "projection_channel_ratio": 4}),
    "Tucker": ((6, 6), (16, 16), {"factorization": "Tucker", "rank": 0.3}),
}


@needs_neuralop
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("modes", "space", "options"), PEERS.values(), ids=PEERS)
def test_a_neuralop_network_gives_the_same_output(modes, space, options):
    model, u = peer(modes, **options), torch.randn(3, 2, *space)
    model(u)  # in training mode: running statistics move
    assert fno_from_neuralop(model).training
    operator, expected = fno_from_neuralop(model.eval()), model(u)
    assert (operator(u) - expected).norm() < 1e-5 * expected.norm()
    assert FNO(**operator.configuration).load_state_dict(operator.state_dict())


@needs_neuralop
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"domain_padding": 0.1}, "domain_padding"),
        ({"resolution_scaling_factor": 2}, "resolution_scaling_factor"),
        ({"separable": True}, "separable"),
        ({"preactivation": True}, "preactivation"),
        ({"stabilizer": "tanh"}, "stabilizer='tanh'"),
        ({"non_linearity": F.relu}, "non_linearity"),
        ({"use_channel_mlp": False}, "use_channel_mlp=False"),
        ({"channel_mlp_dropout": 0.1}, "channel_mlp_dropout"),
        ({"complex_data": True}, "complex_data"),
        ({"norm": "group_norm"}, "norm GroupNorm"),
        ({"fno_skip": "identity"}, "fno_skip='identity'"),
        ({"fno_block_precision": "mixed"}, "fno_block_precision='mixed'"),
        ({"max_n_modes": (12, 12)}, "max_n_modes"),
    ],
)
def test_what_we_do_not_have_is_refused_by_name(options, name):
    with pytest.raises(ValueError, match=f"neuralop FNO with .*{name}"):
        fno_from_neuralop(peer((8, 8), **options))


def test_only_neuralop_models_are_taken_for_such():
    with pytest.raises(ValueError, match="needs a neuralop FNO, got a Linear"):
        fno_from_neuralop(nn.Linear(1, 1))
