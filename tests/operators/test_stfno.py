"""The spatio-temporal Fourier neural operator: symmetry, time, its linear output layer."""

from __future__ import annotations

import itertools
import json
import math

import jaxtyping
import numpy as np
import pytest
import torch
from support.processes import finished
from torch import Tensor
from torch.func import functional_call

from sobolev import Grid
from sobolev.operators import SpatioTemporalFNO, operator_from
from sobolev.operators.stfno import LatestFrame


def small(in_channels: int = 1, out_channels: int = 1, **options: object) -> SpatioTemporalFNO:
    arguments = {"modes": (3, 3, 3), "width": 6, "depth": 2, "latent_steps": 4, **options}
    return SpatioTemporalFNO(in_channels, out_channels, **arguments).double()


def field(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def with_random_bias(operator: SpatioTemporalFNO) -> SpatioTemporalFNO:
    torch.nn.init.normal_(operator.output.bias)
    return operator


# Parameters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"modes": (12, 12, 5), "width": 20, "hidden": 128}, 9_250_333),
        ({"modes": (32, 32, 5), "width": 10}, 16_469_791),
    ],
)
def test_parameters_are_as_many_as_published(options, count):
    with torch.device("meta"):
        operator = SpatioTemporalFNO(1, 1, **options)
    assert sum(p.numel() for p in operator.parameters()) == count


def test_enlarged_and_every_other_option_survive_json():
    operator = small(3, 2, solenoidal=True, horizon=6.0, step=0.5, padding=0.5).enlarged((5, 4, 3))
    again = operator_from(json.loads(json.dumps(operator.description))).double()
    again.load_state_dict(operator.state_dict())
    u = field(1, 3, 9, 9, 4)
    assert torch.equal(again(u), operator(u))


# Space ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [(8, 10), (9, 7)])
def test_commutes_with_shifts_in_space_until_the_bias_is_trained(space):
    operator = small(2)
    u = field(2, 2, *space, 5)
    shift = {"shifts": (3, -2), "dims": (2, 3)}
    assert torch.allclose(operator(u.roll(**shift)), operator(u).roll(**shift), atol=1e-12)
    with_random_bias(operator)
    assert not torch.allclose(operator(u.roll(**shift)), operator(u).roll(**shift), atol=1e-3)


def test_band_limited_input_gives_one_answer_on_all_grids_up_to_the_aliasing_of_gelu():
    operator = with_random_bias(small(modes=(4, 3)))

    def output(n):
        x, t = Grid.periodic(n).points()[0][:, None], torch.arange(4.0, dtype=torch.float64)
        u = torch.sin(2 * math.pi * x + t) + torch.cos(6 * math.pi * x - 0.3 * t)
        return operator(u[None, None])[..., :: n // 15, :]

    truth = output(480)
    errors = [(output(n) - truth).abs().max().item() for n in (15, 30, 60, 120)]
    assert all(b < a / 8 for a, b in itertools.pairwise(errors) if a > 1e-11)
    assert errors[-1] < 1e-9


def test_output_on_a_finer_grid_is_the_operator_on_the_finer_field():
    operator, coarse = with_random_bias(small(2)), Grid.periodic(9, 8)
    u = field(1, 2, 9, 8, 3)
    fine = coarse.resample(u.movedim(-1, 2), coarse.resized(18, 24)).movedim(2, -1)
    assert torch.allclose(operator(u, size=(18, 24, 5)), operator(fine, size=(18, 24, 5)))


def test_the_output_layer_evaluates_one_series_on_every_grid():
    operator = with_random_bias(small())
    r = field(1, 1, 9, 9, 5)
    coarse, fine = operator.output(r), operator.output(r, (18, 27, 4))
    assert torch.allclose(fine[:, :, ::2, ::3], coarse, atol=1e-12)


# Time -------------------------------------------------------------------------------------------


def test_finer_and_longer_output_are_the_same_function_of_time():
    operator = with_random_bias(small(2))
    u = field(2, 2, 7, 8, 3)
    short = operator(u, size=(7, 8, 4))
    assert torch.allclose(operator(u, size=(7, 8, 8), step=0.5)[..., 1::2], short, atol=1e-12)
    assert torch.allclose(operator(u, size=(7, 8, 9))[..., :4], short, atol=1e-12)
    operator.step = 0.25
    assert torch.allclose(operator(u, size=(7, 8, 16))[..., 3::4], short, atol=1e-12)


def test_any_number_of_input_frames():
    operator = small()
    for frames in (1, 2, 3, 9):
        assert operator(field(1, 1, 6, 6, frames), size=(6, 6, 4)).shape == (1, 1, 6, 6, 4)


def test_with_unit_weights_the_output_is_the_trigonometric_interpolant_of_the_latent():
    # 5 latent nodes on a period of 7 cells: 4 modes in time resolve them; 3 in space resolve 5 nodes
    operator = small(output_modes=(3, 3, 4), padding=0.4, horizon=6.0)
    operator.output.weight.data[..., 0], operator.output.weight.data[..., 1] = 1.0, 0.0
    assert operator.output.period == pytest.approx(7 * 1.5)
    r = field(2, 1, 5, 5, 5)
    at_nodes = operator.output(r, step=operator.output.spacing)
    assert torch.allclose(at_nodes, r[..., :1] + r[..., 1:], atol=1e-12)


def test_each_weight_belongs_to_its_mode():
    operator = small(modes=(2, 3, 3), horizon=8.0, padding=0.25)
    operator.output.weight.data.zero_()
    operator.output.bias.data[2 + 1, 3 - 2, 2, 0, 0] = 1.0  # k_y = 1, k_x = −2, m = 2
    rate, step = 2 * math.pi / (10.0 * 1.25), 0.7
    t = step * torch.arange(1, 4)
    y, x = torch.meshgrid(*Grid.periodic(7, 8).points(), indexing="ij")
    phase = 2 * math.pi * (y - 2 * x)[..., None] + 2 * rate * t
    r = torch.zeros(1, 1, 7, 8, 5, dtype=torch.float64)
    got = operator.output(r, (7, 8, 3), step=step)[0, 0]
    assert torch.allclose(got, 2 * phase.cos(), atol=1e-12)
    got = operator.output.time_derivative(r, (7, 8, 3), step=step)[0, 0]
    assert torch.allclose(got, -4 * rate * phase.sin(), atol=1e-12)


def test_the_time_derivative_is_the_limit_of_differences():
    operator = with_random_bias(small(2, 2, solenoidal=True))
    r = operator.latent(field(2, 2, 7, 7, 3))
    size = (7, 7, 1)

    def error(h):
        after, before = (operator.output(r, size, step=2.3 + s) for s in (h, -h))
        exact = operator.output.time_derivative(r, size, step=2.3)
        return ((after - before) / (2 * h) - exact).abs().max().item()

    assert math.log2(error(0.02) / error(0.01)) == pytest.approx(2, abs=0.01)
    assert error(1e-4) < 1e-6


def test_a_latent_of_zero_weights_carries_the_last_frame_of_the_last_channels():
    operator = small(3, 2)
    operator.output.weight.data.zero_()
    u = field(1, 3, 6, 6, 4)
    assert torch.equal(operator(u, size=(6, 6, 2)), u[:, 1:, ..., -1:].expand(-1, -1, -1, -1, 2))
    operator = small(3, 2, residual=False)
    operator.output.weight.data.zero_()
    assert operator(u).abs().max() == 0


def test_the_first_layer_skips_the_latest_frame_to_all_latent_times():
    operator = small(positions=False)
    torch.nn.init.zeros_(operator.blocks[0].mix[-1].weight)  # no kernel, only the skip
    u = field(1, 1, 6, 6, 4)
    other = torch.cat([field(1, 1, 6, 6, 3), u[..., -1:]], dim=-1)
    assert torch.equal(operator.latent(u), operator.latent(other))
    assert not torch.allclose(operator.latent(u), operator.latent(u.roll(1, -1)))


def test_the_first_layer_knows_the_latent_time_by_waves_that_die_out():
    """At τ = ½ and 1 horizon: s, e^{−s} sin πs, e^{−s} cos 2πs, e^{−s} sin 3πs."""
    layer = LatestFrame(3, 2, positions=True).double()
    layer.features.weight.data = torch.eye(4, dtype=torch.float64)
    early, late = math.exp(-0.5), math.exp(-1.0)
    expected = torch.tensor([[0.5, early, -early, -early], [1.0, 0, late, 0]]).double()
    got = layer(torch.full((1, 5, 3, 4), 7.0, dtype=torch.float64)) - 7.0
    assert torch.allclose(got, expected.expand(1, 5, 2, 4), atol=1e-7)


def test_no_time_mode_of_a_hidden_layer_is_without_effect():
    operator = small(modes=(3, 3, 4), latent_steps=4, padding=1.0)
    operator(field(1, 1, 8, 8, 4)).square().sum().backward()
    for block in operator.blocks:
        assert (block.kernel.weight.grad.abs().amax((0, 1, 3, 4, 5)) > 0).all()


@pytest.mark.parametrize("n", [3, 49, 98])
def test_frames_that_fill_the_period_are_not_refused_by_rounding(n):
    operator = small(latent_steps=10, padding=0.1)
    step = operator.output.period / n
    assert operator(field(1, 1, 6, 6, 2), size=(6, 6, n), step=step).shape[-1] == n


def test_times_are_plain_numbers_whatever_they_were(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    operator = small(step=np.float32(0.5), horizon=np.float32(6), padding=np.float32(0.5))
    operator.step = np.float32(0.25)
    assert json.loads(json.dumps(operator.configuration))["step"] == 0.25


# The output layer as what is fine-tuned -----------------------------------------------------------


def test_the_output_is_linear_in_its_weights():
    output = small(2, 2).output
    r = field(2, 2, 7, 7, 5)
    first, second = (
        {name: torch.randn_like(p) for name, p in output.named_parameters()} for _ in range(2)
    )
    mixture = {name: 2 * first[name] - 3 * second[name] for name in first}
    one, two, both = (
        functional_call(output, weights, (r,)) - r[..., :1] for weights in (first, second, mixture)
    )
    assert torch.allclose(both, 2 * one - 3 * two, atol=1e-11)


@pytest.mark.parametrize("space", [(16, 16), (9, 12), (4, 5)])
def test_an_enlarged_output_is_the_same_map_with_more_to_tune(space):
    operator = with_random_bias(small(2))
    larger = operator.enlarged((6, 4, 5))
    u = field(2, 2, *space, 4)
    assert torch.allclose(larger(u), operator(u), atol=1e-12)
    assert torch.equal(larger.latent(u), operator.latent(u))
    assert larger.output.weight.shape == (12, 8, 5, 1, 2)
    larger.output.requires_grad_(True)
    (larger(u) ** 2).mean().backward()
    if space == (16, 16):  # a grid that resolves them all
        assert (larger.output.weight.grad != 0).all(-1).all(-1).float().mean() > 0.9
    assert operator.output_modes == [3, 3, 3]


def test_an_enlarged_output_can_be_given_a_bias():
    operator = small(bias=False)
    larger = operator.enlarged((3, 3, 3), bias=True)
    u = field(1, 1, 7, 7, 4)
    assert torch.allclose(larger(u), operator(u), atol=1e-12)
    assert larger.output.bias is not None
    assert larger.output.bias.dtype == torch.float64


# Velocities ---------------------------------------------------------------------------------------


def divergence(u: Tensor) -> np.ndarray:
    """Of (u_y, u_x) on a torus, by spectral derivatives; independent of the library's."""
    total = np.zeros(u[:, 0].shape)
    for channel, axis in enumerate((1, 2)):
        v = u[:, channel].detach().numpy()
        k = np.fft.fftfreq(v.shape[axis], 1 / v.shape[axis])
        k[np.abs(k) == v.shape[axis] / 2] = 0
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        spectrum = 2j * np.pi * k.reshape(shape) * np.fft.fft(v, axis=axis)
        total += np.fft.ifft(spectrum, axis=axis).real
    return total


@pytest.mark.parametrize("space", [(7, 9), (8, 6)])
def test_a_solenoidal_output_has_no_divergence(space):
    operator = with_random_bias(small(3, 2, solenoidal=True))
    u = field(2, 3, *space, 4)
    assert np.abs(divergence(operator(u))).max() < 1e-11 * operator(u).abs().max()
    derivative = operator.output.time_derivative(operator.latent(u))
    assert np.abs(divergence(derivative)).max() < 1e-11 * derivative.abs().max()
    free = with_random_bias(small(3, 2))
    assert np.abs(divergence(free(u))).max() > 1.0


def test_a_flow_without_divergence_is_left_as_it_is():
    y, x = torch.meshgrid(*Grid.periodic(9, 8).points(), indexing="ij")
    psi_x = (2 * math.pi * (x + 2 * y)).cos()
    u = torch.stack([1 - psi_x, 2 * psi_x])[None, ..., None]  # (u_y, u_x) = (−ψ_x, ψ_y) and a mean
    operator = small(2, 2, solenoidal=True)
    operator.output.weight.data.zero_()
    assert torch.allclose(operator(u), u, atol=1e-13)


# Export and bad input ---------------------------------------------------------------------------


_EXPORTED = """
import warnings; warnings.simplefilter("ignore")
import torch
from sobolev.operators import SpatioTemporalFNO
operator = SpatioTemporalFNO(2, 1, (3, 3, 3), width=6, depth=1, latent_steps=4).eval()
free = dict.fromkeys((0, 2, 3, 4), torch.export.Dim.DYNAMIC)
program = torch.export.export(operator, (torch.randn(2, 2, 16, 18, 5),), dynamic_shapes=(free,))
for shape in ((2, 2, 16, 18, 5), (3, 2, 21, 16, 7), (1, 2, 40, 33, 4)):  # all resolve the modes
    u = torch.randn(*shape)
    print((program.module()(u) - operator(u)).abs().max().item())
"""


@pytest.mark.slow
def test_exports_with_free_batch_resolution_and_number_of_frames():
    """In a process of its own, without the type checks of the test run."""
    done = finished(_EXPORTED)
    assert done.returncode == 0, done.output
    errors = [float(line) for line in done.output.split()]
    assert len(errors) == 3
    assert max(errors) < 1e-5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small()(field(1, 1, 8, 8)), r"expects \(batch, channels, y, x, t\)"),
        (lambda: small()(field(1, 1, 8, 8, 4), size=(8, 8)), "size needs 3 entries"),
        (lambda: small()(field(1, 1, 8, 8, 4), step=0.0), "step is a time, greater than 0"),
        (
            lambda: small()(field(1, 1, 8, 8, 4), size=(8, 8, 11)),
            "11 frames every 1.0 reach t = 11.0, but after 10 the output repeats itself; .* horizon=4",
        ),
        (lambda: small(step=-1.0), "step is a time"),
        (lambda: setattr(small(), "step", -1.0), "step is a time"),
        (lambda: small(modes=(3, 3, 5)), "tell apart 4 modes in time, the hidden layers have 5"),
        (lambda: small(padding=math.inf), "padding is a fraction"),
        (lambda: small(horizon=0.0), "horizon is a time"),
        (lambda: small(padding=-1.0), "padding is a fraction"),
        (lambda: small(modes=(3,)), "one entry per space axis, one to three, and one for time"),
        (lambda: small(output_modes=(3, 3)), "one entry per space axis"),
        (lambda: small(modes=(3, 3, 0)), "modes has 0"),
        (lambda: small(hidden=0), "hidden has 0"),
        (lambda: small(output_modes=(3, 3, 6)), "apart 5 modes in time, the output has 6"),
        (lambda: small(1, 2), "it has only 1; residual=False"),
        (lambda: small(solenoidal=True), "one channel for each of at least two space axes"),
        (lambda: small().enlarged((2, 3, 3)), r"has modes \[3, 3, 3\]"),
        (lambda: small().enlarged((4, 4)), r"has modes \[3, 3, 3\]"),
        (lambda: small().enlarged((4, 4, 3), bias=False), "has a bias"),
        (
            lambda: small(2, 2, solenoidal=True).check_grid(
                Grid.periodic(4, 4, 4, length=(1.0, 2.0, 1.0))
            ),
            "data's axes are",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
