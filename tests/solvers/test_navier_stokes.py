"""Navier–Stokes against exact solutions, conserved quantities and scipy's integrator on an
independent right side."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from sobolev.solvers import GaussianRandomField, Grid, NavierStokes, SolutionError
from sobolev.solvers.navier_stokes.states import (
    band_limited,
    energy,
    enstrophy,
    kinetic_energy_spectrum,
    stream_function,
    velocity,
)

TORUS = Grid.periodic(32, 32, length=2 * math.pi)


def nodes(grid):
    return torch.meshgrid(*grid.points(), indexing="ij")


def turbulence(grid, count=1, seed=0):
    """Random vorticity of unit size within the modes of a 32² grid."""
    coarse = grid.resized(32, 32)
    field = band_limited(GaussianRandomField(coarse, 3.0, 3.0).sample(count, seed), coarse)
    return grid.resample(field / field.flatten(1).std(dim=1)[:, None, None], grid)


def test_taylor_green_vortices_decay_exactly():
    y, x = nodes(TORUS)
    vortices = (2 * (3 * x).cos() * (3 * y).cos())[None]
    frames = NavierStokes(0.05).solve(vortices, TORUS, [0.0, 0.5, 2.0])
    for frame, t in zip(frames[0], (0.0, 0.5, 2.0), strict=True):
        assert (frame - math.exp(-0.9 * t) * vortices[0]).abs().max() < 1e-12


def test_kolmogorov_flow_on_a_rectangle_relaxes_exactly():
    """ω_t = νΔω − μω + f for a shear flow: ω = f (1 − e^{−λt}) / λ with λ = νk² + μ."""
    grid = Grid.periodic(24, 40, length=(2.0, 3.0))
    k, viscosity, drag = 4 * math.pi / 2.0, 0.02, 0.1
    rate = viscosity * k**2 + drag
    y, _ = nodes(grid)
    shear = torch.cos(k * y)
    flow = NavierStokes(viscosity, lambda y, x: torch.cos(k * y), drag=drag)
    got = flow.solve(torch.zeros(1, *grid.shape, dtype=torch.float64), grid, 3.0)
    assert (got[0] - shear * (1 - math.exp(-rate * 3)) / rate).abs().max() < 1e-10
    by_tensor = NavierStokes(viscosity, shear, drag=drag).solve(0 * shear[None], grid, 3.0)
    assert torch.allclose(by_tensor, got, atol=1e-14)


def test_rossby_wave_travels_west_at_its_speed():
    """One wave is an exact solution: ω = cos(kx x + ky y − σt) e^{−νk²t}, σ = −β kx / k²."""
    y, x = nodes(TORUS)
    beta, viscosity, kx, ky = 3.0, 0.01, 2, 1
    frequency, k2 = -beta * kx / (kx**2 + ky**2), kx**2 + ky**2
    got = NavierStokes(viscosity, beta=beta).solve((kx * x + ky * y).cos()[None], TORUS, 5.0)
    truth = (kx * x + ky * y - frequency * 5).cos() * math.exp(-viscosity * k2 * 5)
    assert (got[0] - truth).abs().max() < 1e-10


def independent_solution(w, viscosity, beta, forcing, times):
    """scipy's DOP853 on the advective form u ω_x + v ω_y with five transforms, on the 2π torus."""
    n = w.shape[-1]
    k = np.fft.fftfreq(n, 1 / n)
    ky, kx = k[:, None], k[None, :]
    k2 = np.where((kx == 0) & (ky == 0), 1, kx**2 + ky**2)
    kept = (np.abs(kx) <= (n - 1) // 3) & (np.abs(ky) <= (n - 1) // 3)

    def right(_, flat):
        v = np.fft.fft2(flat.reshape(n, n)) * kept
        back = lambda c: np.fft.ifft2(c).real  # noqa: E731
        u_x, u_y = back(1j * ky * v / k2), back(-1j * kx * v / k2)
        product = u_x * back(1j * kx * v) + u_y * back(1j * ky * v) + beta * u_y
        change = -np.fft.fft2(product) * kept - viscosity * (kx**2 + ky**2) * v
        return (back(change) + forcing).ravel()

    solved = solve_ivp(right, (0, times[-1]), w.ravel(), "DOP853", times, rtol=1e-12, atol=1e-12)
    return solved.y.T.reshape(len(times), n, n)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.0, 2.0], ids=["real symbol", "complex symbol"])
def test_fourth_order_towards_an_independent_solution(beta):
    grid, (y, x) = TORUS, nodes(TORUS)
    forcing = torch.sin(2 * x + y)
    w = turbulence(grid)
    truth = independent_solution(w[0].numpy(), 0.02, beta, forcing.numpy(), [1.0])[0]

    def error(step):
        flow = NavierStokes(0.02, forcing, beta=beta, step=step)
        return np.linalg.norm(flow.solve(w, grid, 1.0)[0].numpy() - truth) / np.linalg.norm(truth)

    assert math.log2(error(0.05) / error(0.025)) == pytest.approx(4, abs=0.25)
    assert error(0.0025) < 3e-10


@pytest.mark.slow
def test_default_step_reaches_1e_7():
    """The published setting: 64², ν = 1e-3, to t = 2 from a developed flow."""
    grid = Grid.periodic(64, 64)
    y, x = nodes(grid)
    forcing = 0.1 * (torch.sin(2 * math.pi * (x + y)) + torch.cos(2 * math.pi * (x + y)))
    random = GaussianRandomField(grid, 2.5, 7.0, sigma=math.sqrt(2) * 7**1.5)
    w = NavierStokes(1e-3, forcing).solve(band_limited(random.sample(1), grid), grid, 8.0)
    got = NavierStokes(1e-3, forcing).solve(w, grid, 2.0)
    reference = NavierStokes(1e-3, forcing, step=0.002).solve(w, grid, 2.0)
    assert (got - reference).norm() < 1e-7 * reference.norm()


def test_energy_and_enstrophy_are_conserved_without_viscosity():
    y, x = nodes(TORUS)
    w = torch.stack(
        [(x + y).sin() + (2 * x - y).cos(), x.cos() + (2 * y).sin() + (3 * x + y).cos()]
    )
    frames = NavierStokes(0.0, step=0.01).solve(w, TORUS, [0.0, 0.5])
    for quantity in (energy, enstrophy):
        before, after = quantity(frames[:, 0], TORUS), quantity(frames[:, 1], TORUS)
        assert ((after - before).abs() < 1e-8 * before).all()
    assert (frames[:, 0] - frames[:, 1]).abs().max() > 0.1


def test_energy_decays_at_the_rate_of_enstrophy():
    """dE/dt = −2νZ − 2μE, checked by a central difference."""
    w, viscosity, drag, h = turbulence(TORUS), 0.02, 0.3, 1e-3
    frames = NavierStokes(viscosity, drag=drag).solve(w, TORUS, [0.0, h, 2 * h])[0]
    E, Z = energy(frames, TORUS), enstrophy(frames, TORUS)
    assert ((E[2] - E[0]) / (2 * h)).item() == pytest.approx(
        (-2 * viscosity * Z[1] - 2 * drag * E[1]).item(), rel=1e-6
    )


def test_turned_and_shifted_flows_stay_turned_and_shifted():
    w, flow = turbulence(TORUS), NavierStokes(0.01, step=0.02)
    solve = lambda w: flow.solve(w, TORUS, 1.0)  # noqa: E731
    plain = solve(w)
    assert torch.allclose(solve(w.roll((3, 5), (-2, -1))), plain.roll((3, 5), (-2, -1)), atol=1e-12)
    turn = lambda w: w.rot90(1, (-2, -1)).roll(1, -2)  # about node 0  # noqa: E731
    assert torch.allclose(solve(turn(w)), turn(plain), atol=1e-12)
    mirror = lambda w: -w.flip(-1).roll(1, -1)  # vorticity is a pseudo-scalar  # noqa: E731
    assert torch.allclose(solve(mirror(w)), mirror(plain), atol=1e-12)


def test_samples_do_not_feel_each_other():
    w, flow = turbulence(TORUS, 3), NavierStokes(0.01, step=0.02)
    together = flow.solve(w, TORUS, [0.2, 0.5])
    for i in range(3):
        assert torch.allclose(
            flow.solve(w[i : i + 1], TORUS, [0.2, 0.5])[0], together[i], atol=1e-13
        )


def test_velocity_and_stream_function_belong_to_the_vorticity():
    grid = Grid.periodic(24, 40, length=(2.0, 3.0))
    y, x = nodes(grid)
    a, b = 2 * math.pi / 3, 2 * math.pi / 2
    psi = torch.sin(a * x) * torch.cos(b * y)
    w = (a**2 + b**2) * psi
    assert torch.allclose(stream_function(w, grid), psi, atol=1e-12)
    u, v = velocity(w, grid)
    assert torch.allclose(u, -b * torch.sin(a * x) * torch.sin(b * y), atol=1e-12)
    assert torch.allclose(v, -a * torch.cos(a * x) * torch.cos(b * y), atol=1e-12)
    # ½∫|u|² = ½ (a² + b²) · ¼ · area
    assert energy(w, grid).item() == pytest.approx((a**2 + b**2) / 8 * 6)
    assert enstrophy(w, grid).item() == pytest.approx((a**2 + b**2) ** 2 / 8 * 6)
    assert kinetic_energy_spectrum(w, grid)[1].sum().item() == pytest.approx(energy(w, grid).item())


def test_residual_vanishes_for_a_solution_and_not_for_another():
    flow = NavierStokes(0.02, lambda y, x: torch.sin(2 * y), drag=0.1, beta=1.0, step=1e-3)
    before, now, after = flow.solve(turbulence(TORUS), TORUS, [0.1, 0.101, 0.102]).unbind(1)
    rate = (after - before) / 2e-3
    assert flow.residual(now, rate, TORUS).norm() < 1e-5 * rate.norm()
    assert flow.residual(now, 1.1 * rate, TORUS).norm() > 0.05 * rate.norm()
    w = turbulence(TORUS).requires_grad_()
    flow.residual(w, torch.zeros_like(w), TORUS).square().sum().backward()
    assert w.grad is not None
    assert bool(w.grad.isfinite().all())


@pytest.mark.slow
def test_what_the_grid_cannot_carry_is_refused_or_flagged():
    rough = GaussianRandomField(TORUS, 1.0, 1.0).sample(2)
    with pytest.raises(ValueError, match=r"2/3 rule cuts off; resample it to 49 × 49 nodes"):
        NavierStokes(0.1).solve(rough, TORUS, 1.0)
    w = turbulence(TORUS, 2)
    with pytest.raises(ValueError, match=r"a time step of 5 is unstable here.*use step <= 0\.\d+"):
        NavierStokes(0.1, step=5.0).solve(w, TORUS, 10.0)
    w[1] *= 1e-3  # sample 0 cascades to the cutoff; sample 1 hardly moves
    with pytest.raises(SolutionError, match=r"1 of 2 samples failed.*number 0.*nodes") as caught:
        NavierStokes(1e-4).solve(30 * w, TORUS, [0.01, 1.0])
    solution, status = caught.value.solution, caught.value.status
    assert status.tolist() == [2, 0]
    assert solution[0, 0].isfinite().all()
    assert solution[0, 1].isnan().all()
    assert solution[1].isfinite().all()


def test_a_blow_up_names_sample_and_time():
    """A step that is stable at first, under a force that speeds the flow up until it is not."""
    w = 0.1 * turbulence(TORUS, 2)
    force = torch.stack([torch.zeros_like(w[0]), 1e5 * w[1]])
    with pytest.raises(
        SolutionError, match=r"1 of 2 samples failed.*number 1: it blew up by time 5"
    ):
        NavierStokes(1.0, force, step=0.05).solve(w, TORUS, 5.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w + 1, "zero mean"),
        (lambda w: w[0], r"shape \(batch, y, x\)"),
        (lambda w: w * math.nan, "not finite"),
        (lambda w: w[..., :-1], "expected a field of shape"),
    ],
    ids=["mean", "no batch", "nan", "shape"],
)
def test_unfit_fields_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        NavierStokes(0.1).solve(change(turbulence(TORUS)), TORUS, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"viscosity": -1.0}, "viscosity must be finite and not negative"),
        ({"viscosity": 1.0, "step": 0.0}, "time step must be positive"),
        ({"viscosity": 1.0, "courant": 3.0}, "courant must lie between 0 and 2.8"),
    ],
    ids=["viscosity", "step", "courant"],
)
def test_unfit_parameters_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NavierStokes(**arguments)


def test_unfit_forcing_and_grid_are_refused():
    w = turbulence(TORUS)
    with pytest.raises(ValueError, match="the forcing must be finite and of shape"):
        NavierStokes(0.1, torch.zeros(3)).solve(w, TORUS, 1.0)
    with pytest.raises(ValueError, match="the forcing of a flow on the torus has zero mean"):
        NavierStokes(0.1, torch.ones(32, 32)).solve(w, TORUS, 1.0)
    with pytest.raises(ValueError, match="two periodic axes"):
        NavierStokes(0.1).solve(w, Grid.dirichlet(32, 32), 1.0)
    fine = torch.cos(14 * nodes(TORUS)[1])
    with pytest.raises(ValueError, match="the forcing of sample 0 has 1e\\+02 % of its norm"):
        NavierStokes(0.1, fine).solve(w, TORUS, 1.0)


@pytest.mark.slow
def test_a_flow_forced_from_rest_is_followed():
    """Of the default step nothing is known at rest; the reference takes many small ones."""
    force = lambda y, x: 10 * (torch.sin(x + y) + torch.cos(2 * y))  # noqa: E731
    rest = torch.zeros(1, 32, 32, dtype=torch.float64)
    got = NavierStokes(0.3, force).solve(rest, TORUS, 2.0)
    reference = NavierStokes(0.3, force, step=1e-3).solve(rest, TORUS, 2.0)
    assert (got - reference).norm() < 1e-5 * reference.norm()


def test_a_runaway_flow_ends_and_is_named():
    w = turbulence(TORUS, 2) * torch.tensor([1.0, 1e9]).double()[:, None, None]
    with pytest.raises(SolutionError, match="number 1: it blew up by time 0"):
        NavierStokes(0.1).solve(w, TORUS, [0.1, 0.2])
    with pytest.raises(ValueError, match="over 1e\\+07 steps; use shorter times or a weaker"):
        NavierStokes(0.1, lambda y, x: 1e16 * torch.sin(y)).solve(w[:1], TORUS, 1.0)


def test_only_the_samples_that_are_too_fast_are_given_up():
    w = turbulence(TORUS, 2) * torch.tensor([1.0, 100.0]).double()[:, None, None]
    with pytest.raises(
        SolutionError, match="1 of 2 samples failed, the first is number 1"
    ) as caught:
        NavierStokes(0.1, step=0.05).solve(w, TORUS, [0.1, 0.2])
    alone = NavierStokes(0.1, step=0.05).solve(w[:1], TORUS, [0.1, 0.2])
    assert torch.allclose(caught.value.solution[0], alone[0], atol=1e-13)
    assert caught.value.status.tolist() == [0, 1]


def test_waves_of_a_flat_grid_are_not_taken_for_unresolved():
    grid = Grid.periodic(16, 256, length=2 * math.pi)
    _, x = nodes(grid)
    w = torch.cos(20 * x)[None]
    got = NavierStokes(1e-3).solve(w, grid, 1.0)
    assert torch.allclose(got, w * math.exp(-0.4), atol=1e-10)


def test_velocity_keeps_every_mode_of_the_grid():
    """ω = cos 14x on 32 nodes, beyond the 2/3 rule: v = sin(14x)/14."""
    _, x = nodes(TORUS)
    v = velocity(torch.cos(14 * x), TORUS)[1]
    assert torch.allclose(v, torch.sin(14 * x) / 14, atol=1e-13)
