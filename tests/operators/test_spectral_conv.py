"""The Fourier layer is exact on known filters, at every resolution, by either path."""

from __future__ import annotations

import math

import jaxtyping
import pytest
import torch

from sobolev import Grid
from sobolev.operators import SpectralConv
from sobolev.operators.layers.fourier import FourierModes


def layer(modes, boundary="periodic", channels=(1, 1), **options):
    return SpectralConv(*channels, modes, boundary=[boundary] * len(modes), **options).double()


def filter_by_hand(conv, symbol):
    """Set every kept mode of a one-channel layer to ``symbol(*frequencies)``."""
    axes = [torch.arange(-m, m, dtype=torch.float64) for m in conv.modes.counts[:-1]]
    axes.append(torch.arange(conv.modes.counts[-1], dtype=torch.float64))
    values = symbol(*torch.meshgrid(*axes, indexing="ij")) + 0j
    with torch.no_grad():
        conv.weight.copy_(torch.view_as_real(values.to(torch.complex128))[..., None, None, :])
    return conv


def wave(n, m, shift=(0.0, 0.0), derivative=False):
    """A trigonometric field with frequencies of both signs (and, optionally, its x derivative)."""
    y, x = Grid.periodic(n, m).points()
    tau, total = 2 * math.pi, 0.0
    for ky, kx, amplitude, phase in (
        (2, -3, 1.0, 0.0),
        (3, 1, 0.5, 0.4),
        (0, 2, 0.3, 0.9),
        (-1, 0, 0.7, 0.2),
    ):
        angle = tau * (ky * (y[:, None] - shift[0]) + kx * (x - shift[1])) + phase
        total = total + amplitude * (
            -tau * kx * torch.sin(angle) if derivative else torch.cos(angle)
        )
    return total[None, ..., None]


RESOLUTIONS = [(16, 16), (15, 18), (9, 9), (32, 33), (64, 8)]


@pytest.fixture(params=["matrices", "fft"])
def path(request, monkeypatch):
    monkeypatch.setattr(FourierModes, "_prefers_fft", lambda self, size: request.param == "fft")


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("source", RESOLUTIONS)
@pytest.mark.parametrize("target", [None, *RESOLUTIONS])
def test_shift_and_derivative_are_exact_between_all_resolutions(source, target):
    shift = (0.13, -0.29)
    size = target or source

    def translation(ky, kx):
        return torch.exp(-2j * math.pi * (ky * shift[0] + kx * shift[1]))

    moved = filter_by_hand(layer((5, 4)), translation)(wave(*source), size=size)
    assert torch.allclose(moved, wave(*size, shift=shift), atol=1e-12)
    slope = filter_by_hand(layer((5, 4)), lambda ky, kx: 2j * math.pi * kx)(
        wave(*source), size=size
    )
    assert torch.allclose(slope, wave(*size, derivative=True), atol=1e-11)


@pytest.mark.parametrize(
    ("modes", "space"), [((5,), (33,)), ((5, 4), (16, 17)), ((5, 4, 3), (9, 8, 10))]
)
def test_both_paths_and_the_published_formula_agree(modes, space, monkeypatch):
    """Against the FFT layer of the paper, written out: keep blocks of modes, mix, transform
    back."""
    conv = layer(modes, channels=(3, 2))
    v = torch.randn(2, *space, 3, dtype=torch.float64)
    by_matrices = conv(v)
    monkeypatch.setattr(FourierModes, "_prefers_fft", lambda self, size: True)
    assert torch.allclose(conv(v), by_matrices, atol=1e-13)

    axes = tuple(range(1, v.ndim - 1))
    spectrum, weight = torch.fft.rfftn(v, dim=axes), torch.view_as_complex(conv.weight)
    result = torch.zeros(*spectrum.shape[:-1], 2, dtype=spectrum.dtype)
    index = [
        torch.arange(-min(m, (n - 1) // 2), min(m - 1, (n - 1) // 2) + 1)
        for m, n in zip(modes, space, strict=True)
    ]
    index[-1] = torch.arange(min(modes[-1] - 1, (space[-1] - 1) // 2) + 1)
    for k in torch.cartesian_prod(*index).reshape(-1, len(modes)).tolist():
        place = (slice(None), *k)
        stored = (*tuple(q + m for q, m in zip(k[:-1], modes, strict=False)), k[-1])
        result[place] = spectrum[place] @ weight[stored]
    assert torch.allclose(torch.fft.irfftn(result, s=space, dim=axes), by_matrices, atol=1e-12)


@pytest.mark.parametrize("boundary", ["dirichlet", "neumann"])
def test_padded_axis_integrates_the_zero_extension(boundary):
    """v = 1 extended by zero to length 1¼ has coefficients (1 − e^{−iκ})/(iκ 1¼), κ = 2πk/1¼: known
    by hand."""

    def error(n):
        conv = filter_by_hand(layer((6,), boundary, padding=0.25), torch.ones_like)
        x = (Grid.dirichlet if boundary == "dirichlet" else Grid.neumann)(n).points()[0]
        exact = torch.full_like(x, 1 / 1.25)
        for k in range(1, 6):
            kappa = 2 * math.pi * k / 1.25
            coefficient = (1 - torch.exp(torch.tensor(-1j * kappa))) / (1j * kappa * 1.25)
            exact = exact + 2 * (coefficient * torch.exp(1j * kappa * x)).real
        return (conv(torch.ones(1, n, 1, dtype=torch.float64))[0, :, 0] - exact).abs().max().item()

    assert error(200) < 1e-3
    assert math.log2(error(65) / error(129)) == pytest.approx(2, abs=0.1)


def test_grid_coarser_than_the_modes_uses_the_modes_that_it_has():
    conv = filter_by_hand(layer((12, 12)), lambda ky, kx: torch.ones_like(kx))
    for size in ((8, 8), (7, 9), (6, 11)):
        v = torch.randn(1, *size, 1, dtype=torch.float64)
        below_nyquist = torch.fft.rfft2(v[0, ..., 0])
        for axis, n in ((0, size[0]), (1, size[1])):
            if n % 2 == 0:
                below_nyquist.select(axis, n // 2).zero_()
        assert torch.allclose(
            conv(v)[0, ..., 0], torch.fft.irfft2(below_nyquist, s=size), atol=1e-12
        )


def test_gradients_are_right(monkeypatch):
    for fft in (False, True):
        monkeypatch.setattr(FourierModes, "_prefers_fft", lambda self, size, fft=fft: fft)
        conv = layer((2, 2), channels=(2, 1))
        v = torch.randn(1, 5, 4, 2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda v, w, conv=conv: torch.func.functional_call(conv, {"weight": w}, (v,)),
            (v, conv.weight),
        )


@pytest.mark.parametrize(("modes", "published"), [((8, 8), 409_600), ((8, 8, 8), 6_553_600)])
def test_weights_of_four_layers_match_the_published_counts(modes, published):
    """The FNO paper's 2-D and 3-D models, width 20, real and imaginary parts counted."""
    assert 4 * layer(modes, channels=(20, 20)).weight.numel() == published


def test_many_modes_take_the_fft():
    assert layer((512,)).modes._prefers_fft((8192,))
    assert not layer((16,)).modes._prefers_fft((1024,))
    assert not layer((512,), "dirichlet").modes._prefers_fft((8192,))


def test_initial_weights_are_the_released_codes():
    weight = layer((8, 8), channels=(6, 5)).weight  # uniform on [0, 1 / (in · out)), both parts
    assert weight.min() >= 0
    assert weight.max() <= 1 / 30
    assert weight.mean().item() == pytest.approx(1 / 60, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 2, (0,), "periodic"), "SpectralConv needs whole numbers of at least 1; modes has 0"),
        ((2, 2, 4, "periodic"), "modes as a list.*got 4"),
        ((2, 0, (4,), "periodic"), "out_channels has 0"),
        ((2, 2, (4, 4), ["periodic"]), r"per axis \(2\)"),
        ((2, 2, (4,), ["free"]), "one of periodic, dirichlet, neumann"),
        ((2, 2, (4,), "neumann", -1.0), "fraction of the domain"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # types may be wrong, too
    *first, boundary = arguments[:4]
    with pytest.raises(ValueError, match=message):
        SpectralConv(*first, boundary=boundary, padding=(*arguments, 0.25)[4])


def test_one_kind_stands_for_all_axes():
    v = torch.randn(1, 8, 9, 2)
    one, each = (SpectralConv(2, 2, (3, 3), boundary=b) for b in ("neumann", ["neumann"] * 2))
    each.load_state_dict(one.state_dict())
    assert torch.equal(one(v), each(v))


def test_runs_where_there_is_no_autocast():
    convolution = layer((3, 3)).to("meta")
    assert convolution(torch.zeros(2, 8, 9, 1, device="meta")).shape == (2, 8, 9, 1)
