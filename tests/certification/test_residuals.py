"""The residual functional against exact solutions, an energy identity and transforms by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from sobolev import Grid, Surrogate, sobolev_norm
from sobolev.certification import residual_norm
from sobolev.certification.paths import path_of
from sobolev.certification.time_bases import FourierBasis, HermiteBasis
from sobolev.datasets import BurgersRecipe, NavierStokesRecipe
from sobolev.datasets.loading.windows import Window
from sobolev.datasets.recipes.navier_stokes import FORCINGS
from sobolev.grids.variables import Variable
from sobolev.operators import FNO, Operator, SpatioTemporalFNO, Trajectory
from sobolev.solvers import NavierStokes

VISCOSITY, N = 0.02, 16
GRID = Grid.periodic(N, N)
Y, X = torch.meshgrid(*GRID.points(), indexing="ij")
VORTICITY = Variable("vorticity", "vorticity", "1")


def surrogate_of(operator, window, interval=0.1, *, forcing="none", scale=1.0, data=None):
    """A surrogate for flows of this viscosity and forcing, of normalised variables of mean 0."""
    recipe = NavierStokesRecipe(
        viscosity=VISCOSITY, forcing=forcing, solver_resolution=N, interval=interval, time=interval
    ).configuration()
    inputs, outputs = window.inputs([VORTICITY]), window.outputs([VORTICITY])
    record = {
        "recipe": recipe,
        "window": [window.history, window.horizon, 1],
        "interval": interval,
        **(data or {}),
    }
    scales = {v.name: (0.0, scale) for v in [*inputs, *outputs]}
    return Surrogate(operator.double(), GRID, inputs, outputs, scales, {"data": record}).double()


class Frames(Operator):
    """Frames that a function of the last one gives."""

    in_channels, ndim = 1, 2

    def __init__(self, function, count):
        super().__init__()
        self.function, self.out_channels = function, count

    def forward(self, u, size=None):
        return self.function(u[:, 0])


def random_field(*shape):
    """Of modes that the 2/3 rule keeps, with zero mean."""
    modes = torch.randn(*shape, *GRID.mode_shape, dtype=torch.float64)
    kept = (GRID.eigenvalues() < (2 * math.pi * 4) ** 2) & (GRID.eigenvalues() > 0)
    return GRID.from_modes(modes * kept / (1 + GRID.eigenvalues()).sqrt())


def taylor_green(interval, count):
    """Frames of ω_0 e^{−8π²νt} from any ω_0 of that shell, an exact solution."""
    times = interval * torch.arange(1, count + 1, dtype=torch.float64)
    decay = torch.exp(-8 * math.pi**2 * VISCOSITY * times)[:, None, None]
    return Frames(lambda w: w[:, None] * decay, count)


def test_the_interpolant_of_exact_frames_misses_the_equation_by_the_third_power_of_their_distance():
    vortices = (torch.cos(2 * math.pi * X) * torch.cos(2 * math.pi * Y))[None, None]
    missed = []
    for halvings in range(3):
        count, interval = 4 * 2**halvings, 0.1 / 2**halvings
        surrogate = surrogate_of(taylor_green(interval, count), Window(1, count), interval)
        missed.append(residual_norm(surrogate, vortices).item())
    assert missed[-1] < 1e-4
    orders = [math.log2(a / b) for a, b in itertools.pairwise(missed)]
    assert orders == pytest.approx([3, 3], abs=0.2)


def test_the_solver_has_no_residual_and_a_wrong_viscosity_has():
    start = random_field(2)[:, None]
    times = [0.02 * i for i in range(1, 6)]

    def solved(viscosity):
        flow = NavierStokes(viscosity, FORCINGS["fno"], step=0.01)
        operator = Frames(lambda w: flow.solve(w, GRID, times), len(times))
        surrogate = surrogate_of(operator, Window(1, len(times)), 0.02, forcing="fno")
        return residual_norm(surrogate, start)

    assert (solved(VISCOSITY) < 1e-4).all()
    assert (solved(1.1 * VISCOSITY) > 1e-2).all()


def random_stfno(interval, scale=1.0, forcing="none"):
    inner = SpatioTemporalFNO(1, 1, modes=(3, 3, 3), width=4, depth=2, latent_steps=4)
    torch.nn.init.normal_(inner.output.bias, std=0.1)
    operator = Trajectory(inner, history=3, horizon=4)
    return surrogate_of(operator, Window(3, 4), interval, scale=scale, forcing=forcing)


def by_hand(w, rate, forcing):
    """‖w_t + u·∇w − νΔw − f‖²_{H⁻¹} with products on a grid of twice the nodes, by numpy."""
    fine = 2 * N
    k = 2 * np.pi * np.fft.fftfreq(N, 1 / N)
    ky, kx = k[:, None], k[None, :]
    k2 = ky**2 + kx**2
    kept = (abs(ky) <= 2 * np.pi * 5) & (abs(kx) <= 2 * np.pi * 5)  # 5 = (16 − 1) // 3
    hat = np.fft.fft2(w) / N**2 * kept * (k2 > 0)
    psi = hat / np.where(k2 > 0, k2, 1)

    def nodes(modes):
        padded = np.zeros((fine, fine), complex)
        index = np.fft.fftfreq(N, 1 / N).astype(int)
        padded[np.ix_(index, index)] = modes
        return np.fft.ifft2(padded).real * fine**2

    u, v = nodes(1j * ky * psi), nodes(-1j * kx * psi)
    product = u * nodes(1j * kx * hat) + v * nodes(1j * ky * hat)
    index = np.fft.fftfreq(N, 1 / N).astype(int)
    advection = (np.fft.fft2(product) / fine**2)[np.ix_(index, index)] * kept * (k2 > 0)
    f = np.fft.fft2(forcing) / N**2
    missing = np.fft.fft2(rate) / N**2 * (k2 > 0) + advection + VISCOSITY * k2 * hat - f
    return (abs(missing) ** 2 / (1 + k2)).sum()


def test_the_residual_of_a_series_in_time_is_that_of_transforms_by_hand():
    interval, scale = 0.3, 2.0
    surrogate = random_stfno(interval, scale, forcing="symmetric")
    u = random_field(2, 3)
    inner = surrogate.operator.operator
    r = inner.latent(u[:, None].movedim(2, -1) / scale)
    forcing = FORCINGS["symmetric"](Y, X).numpy()
    nodes, weights = np.polynomial.legendre.leggauss(24)
    with torch.no_grad():
        start = inner.output(r, (N, N, 1), step=1e-12)[:, 0, ..., 0] * scale
        squares = sobolev_norm(start - start.mean((-2, -1), keepdim=True) - u[:, -1], GRID) ** 2
        for node, weight in zip((nodes + 1) * 2, weights * 2 * interval, strict=True):
            w, rate = (
                f(r, (N, N, 1), step=node)[:, 0, ..., 0].numpy() * scale
                for f in (inner.output, inner.output.time_derivative)
            )
            found = [by_hand(w[i], rate[i] / interval, forcing) for i in range(2)]
            squares += weight / VISCOSITY * torch.tensor(found)
    assert torch.allclose(residual_norm(surrogate, u, relative=False), squares.sqrt(), rtol=1e-9)


def test_of_one_shell_the_functional_is_the_energy_of_the_error():
    """e_t − νΔe = R gives ‖e(0)‖² + ν⁻¹∫‖R‖²_∗ = ‖e(T)‖² + ∫ν⁻¹‖e_t‖²_∗ + ν‖∇e‖², and a shell of one
    |k| does not advect itself. ‖R‖²_∗ is (1 + 1/λ) ‖R‖² in H⁻¹."""
    surrogate = random_stfno(0.3)
    inner, eigenvalue = surrogate.operator.operator, 8 * math.pi**2
    shell = (torch.cos(2 * math.pi * X) * torch.cos(2 * math.pi * Y))[None, None]
    with torch.no_grad():  # in time any function, in space the shell
        inner.output.weight.zero_()
        inner.output.bias.zero_()
        block = inner.output.bias[:, :, :, 0]
        block[3 - 1, 3 - 1], block[3 + 1, 3 + 1], block[3 - 1, 3 + 1], block[3 + 1, 3 - 1] = [
            torch.randn(3, 2, dtype=torch.float64)
        ] * 4
    assert sobolev_norm(path_of(surrogate, shell.repeat(1, 3, 1, 1)).start(), GRID).item() > 0.1
    given = torch.zeros(1, 3, N, N, dtype=torch.float64)  # the exact solution is 0, all is error
    path = path_of(surrogate, given)
    times, weights = path.basis.quadrature(torch.device("cpu"))
    e = sobolev_norm(path.at(times), GRID).square() @ weights
    rate = sobolev_norm(path.rate(times), GRID).square() @ weights
    end = sobolev_norm(path.at(torch.tensor([1.2], dtype=torch.float64)), GRID).square()[:, 0]
    start = sobolev_norm(path.start(), GRID).square()
    energy = end + rate / (VISCOSITY * eigenvalue) + VISCOSITY * eigenvalue * e
    eta = residual_norm(surrogate, given, relative=False).square()
    assert torch.allclose(start + (eta - start) * (1 + 1 / eigenvalue), energy, rtol=1e-9)


def test_over_perturbed_trajectories_residual_and_error_are_equivalent():
    """In the norm of that identity, around a turbulent flow: within a factor of 2 either way."""
    flow = NavierStokes(VISCOSITY, FORCINGS["fno"], step=0.01)
    start = 2 * random_field(1)
    surrogate = surrogate_of(Frames(lambda w: w[:, None], 1), Window(1, 1), forcing="fno")
    times = [0.05 * i for i in range(9)]
    exact = flow.solve(start, GRID, times)
    ratios = []
    for size in (0.3, 0.03, 0.003):
        wrong = size * random_field(1, 1) * torch.linspace(1, 2, 9)[None, :, None, None].cos()
        operator = Frames(lambda w, wrong=wrong: (exact + wrong)[:, 1:], 8)
        surrogate = surrogate_of(operator, Window(1, 8), 0.05, forcing="fno")
        eta = residual_norm(surrogate, (exact + wrong)[:, :1], relative=False)
        energy = VISCOSITY * sobolev_norm(wrong, GRID, 1.0).square().mean() * 0.4
        rate = torch.gradient(wrong, spacing=0.05, dim=1)[0]
        energy += sobolev_norm(rate, GRID, -1.0).square().mean() * 0.4 / VISCOSITY
        energy += sobolev_norm(wrong[:, -1], GRID).square().sum()
        ratios.append((eta.square().sum() / energy).sqrt().item())
    assert min(ratios) > 0.5
    assert max(ratios) < 2


@pytest.mark.parametrize("basis", [FourierBasis(4, 2.2, 1.0), HermiteBasis(3, 0.5)], ids=str)
def test_rates_are_the_derivatives_of_values(basis):
    times, step = torch.linspace(0.01, 0.98, 7, dtype=torch.float64), 1e-5
    difference = (basis.values(times + step) - basis.values(times - step)) / (2 * step)
    assert torch.allclose(basis.rates(times), difference, atol=1e-6)
    with torch.device("meta"):
        assert basis.quadrature(times.device)[1].sum().item() == pytest.approx(basis.duration)


def test_the_interpolants_own_error_is_integrated_exactly():
    """∫_0^1 (s (1 − s) (1 − 2s))² ds = 1/30 − 4/140, between any two frames."""
    basis = HermiteBasis(4, 0.5)
    times, weights = basis.quadrature(torch.device("cpu"))
    s = times / basis.interval % 1
    squares = (s * (1 - s) * (1 - 2 * s)).square()
    assert (weights @ squares).item() == pytest.approx(basis.duration / 210, rel=1e-12)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"recipe": {"class": "Imported"}}, "not known.*the class 'Imported'"),
        ({"recipe": BurgersRecipe().configuration()}, "known for Navier–Stokes.*BurgersRecipe"),
        ({"interval": None}, "times of the predicted frames are not known"),
        (
            {"recipe": NavierStokesRecipe(viscosity=0.0, solver_resolution=N).configuration()},
            "this flow has none",
        ),
    ],
)
def test_refuses_what_it_cannot_measure(record, message):
    surrogate = surrogate_of(FNO(1, 2, modes=(2, 2), width=2, depth=1), Window(1, 2), data=record)
    with pytest.raises(ValueError, match=message):
        residual_norm(surrogate, random_field(1, 1))
