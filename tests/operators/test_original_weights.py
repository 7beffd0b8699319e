"""Networks trained with the original scripts give the same outputs here."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sobolev.operators import fno_from_original


class Corners(nn.Module):
    """The original spectral layer: one block of weights per corner of the half spectrum."""

    def __init__(self, width, modes, real):
        super().__init__()
        self.modes = modes
        for i in range(2 ** (len(modes) - 1)):
            weight = torch.randn(width, width, *modes, dtype=torch.complex64) / width
            setattr(
                self,
                f"weights{i + 1}",
                nn.Parameter(torch.view_as_real(weight) if real else weight),
            )

    def forward(self, x):
        axes = tuple(range(2, x.ndim))
        spectrum = torch.fft.rfftn(x, dim=axes)
        result = torch.zeros_like(spectrum)
        for i, weight in enumerate(self.parameters()):
            corner = [
                slice(-m, None) if i >> axis & 1 else slice(m) for axis, m in enumerate(self.modes)
            ]
            place = (slice(None), slice(None), *corner)
            weight = weight if weight.is_complex() else torch.view_as_complex(weight)
            result[place] = torch.einsum("bi...,io...->bo...", spectrum[place], weight)
        return torch.fft.irfftn(result, s=x.shape[2:], dim=axes)


class Pair(nn.Module):
    def __init__(self, conv, channels, hidden, out):
        super().__init__()
        self.mlp1, self.mlp2 = conv(channels, hidden, 1), conv(hidden, out, 1)

    def forward(self, x):
        return self.mlp2(F.gelu(self.mlp1(x)))


class Original(nn.Module):
    """The scripts' network on (batch, channels, *space), in both layouts."""

    def __init__(self, modes, *, late, real=False, norm=False, width=6, channels=3):
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(modes) - 1]
        self.late, self.norm = late, norm
        setattr(self, "p" if late else "fc0", nn.Linear(channels + len(modes), width))
        for i in range(4):
            setattr(self, f"conv{i}", Corners(width, modes, real))
            setattr(self, f"w{i}", (conv if late else nn.Conv1d)(width, width, 1))
            if late:
                setattr(self, f"mlp{i}", Pair(conv, width, width, width))
            else:  # there and never applied in the scripts with GELU
                setattr(self, f"bn{i}", nn.BatchNorm2d(width))
        if late:
            self.q = Pair(conv, width, 4 * width, 2)
        else:
            self.fc1, self.fc2 = nn.Linear(width, 128), nn.Linear(128, 2)

    def forward(self, x):
        grids = torch.meshgrid(*(torch.linspace(0, 1, n) for n in x.shape[2:]), indexing="ij")
        x = torch.cat([x, torch.stack(grids).expand(len(x), *[-1] * (x.ndim - 1))], dim=1)
        x = (self.p if self.late else self.fc0)(x.movedim(1, -1)).movedim(-1, 1)
        normalise = F.instance_norm if self.norm else lambda v: v
        for i in range(4):
            branch = normalise(getattr(self, f"conv{i}")(normalise(x)))
            if self.late:
                branch, skip = getattr(self, f"mlp{i}")(branch), getattr(self, f"w{i}")(x)
            else:
                skip = getattr(self, f"w{i}")(x.flatten(2)).view_as(x)
            x = branch + skip if i == 3 else F.gelu(branch + skip)
        if self.late:
            return self.q(x)
        return self.fc2(F.gelu(self.fc1(x.movedim(1, -1)))).movedim(-1, 1)


ORIGINALS = {
    "1-d": (((5,), (17,)), {"late": False}),
    "1-d with MLP": (((5,), (17,)), {"late": True}),
    "2-d": (((4, 3), (12, 11)), {"late": False}),
    "2-d of torch 1.6": (((4, 3), (12, 11)), {"late": False, "real": True}),
    "2-d with MLP and norm": (((4, 3), (11, 12)), {"late": True, "norm": True}),
    "3-d": (((3, 2, 3), (8, 7, 9)), {"late": False}),
    "3-d with MLP": (((2, 3, 3), (8, 7, 9)), {"late": True}),
}


@pytest.mark.parametrize(("sizes", "options"), ORIGINALS.values(), ids=ORIGINALS)
def test_an_original_network_gives_the_same_output(sizes, options):
    modes, space = sizes
    network, u = Original(modes, **options), torch.randn(2, 3, *space)
    norm = "instance" if options.get("norm") else None
    operator = fno_from_original(network.state_dict(), positions="closed", norm=norm)
    expected = network(u)
    assert (operator(u) - expected).norm() < 1e-5 * expected.norm()
    assert operator.in_channels == 3

    appended = fno_from_original(network.state_dict(), norm=norm)
    grids = torch.meshgrid(*(torch.linspace(0, 1, n) for n in space), indexing="ij")
    u = torch.cat([u, torch.stack(grids).expand(2, *[-1] * (len(space) + 1))], dim=1)
    assert (appended(u) - expected).norm() < 1e-5 * expected.norm()


def test_the_wrapped_network_of_the_first_scripts_is_found():
    network = nn.ModuleDict({"conv1": Original((4, 3), late=False, real=True)})
    operator, u = fno_from_original(network.state_dict()), torch.randn(1, 5, 12, 12)
    plain = fno_from_original(network["conv1"].state_dict())
    assert torch.equal(operator(u), plain(u))


def without(state, prefix):
    return {key: value for key, value in state.items() if not key.startswith(prefix)}


def applied(state):
    return state | {"bn0.num_batches_tracked": torch.tensor(7)}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (dict, {"padding": 9}, "padding by 9 cells cannot be loaded"),
        (applied, {}, "trained with batch normalisation"),
        (lambda s: s | {"extra.weight": torch.ones(1)}, {}, "extra.weight unknown"),
        (lambda s: {k: v for k, v in s.items() if k != "fc0.weight"}, {}, "no lift.weight"),
        (lambda s: {}, {}, "not those of the original FNO scripts"),
        (lambda s: without(s, "w1."), {}, "no blocks.1.skip.bias, blocks.1.skip.weight"),
        (lambda s: without(s, "conv2.weights2"), {}, "no blocks.2.weights2"),
        (lambda s: without(s, "conv2."), {}, "no blocks.2.weights1, blocks.2.weights2"),
        (lambda s: without(s, "fc2.bias"), {}, "no project.2.bias"),
        (dict, {"norm": "instance"}, "these weights have none"),
        (dict, {"norm": "batch"}, "None or 'instance', .* got 'batch'"),
        (dict, {"positions": True}, "False or 'closed', .* got True"),
        (dict, {"positions": "half-open"}, "False or 'closed', .* got 'half-open'"),
    ],
)
def test_what_cannot_be_loaded_is_refused(change, options, message):
    state = change(dict(Original((3, 3), late=False).state_dict()))
    with pytest.raises(ValueError, match=message):
        fno_from_original(state, **options)
