"""Burgers against the Cole–Hopf solution, and what the equation conserves."""

from __future__ import annotations

import math

import pytest
import torch
from support import exact

from sobolev import GaussianRandomField, Grid, sobolev_norm
from sobolev.solvers import Burgers


def relative(u, v, grid):
    return (sobolev_norm(u - v, grid) / sobolev_norm(v, grid)).max().item()


def random_fields(n, count=4):
    grid = Grid.periodic(n, length=2 * math.pi)
    return grid, GaussianRandomField(grid, 2.0, 5.0, 25.0).sample(count, seed=3)


@pytest.mark.slow
def test_published_setting_agrees_with_cole_hopf_at_8192_points():
    grid, initial = random_fields(8192)
    solution = Burgers(viscosity=0.1).solve(initial, grid, 1.0)
    assert relative(solution, exact.cole_hopf(initial, 0.1, 1.0, grid), grid) < 1e-9


def test_the_steps_of_the_preset_are_enough():
    grid, initial = random_fields(8192)
    solution = Burgers(viscosity=0.1, steps=500).solve(initial, grid, 1.0)
    assert relative(solution, exact.cole_hopf(initial, 0.1, 1.0, grid), grid) < 1e-8


@pytest.mark.parametrize("viscosity", [0.05, 0.1, 1.0])
def test_default_step_is_accurate_over_viscosities_and_times(viscosity):
    grid = Grid.periodic(1024, length=2.0)
    initial = (
        torch.sin(math.pi * grid.points()[0]) + 0.5 * torch.cos(2 * math.pi * grid.points()[0])
    )[None]
    times = [0, 0.1, 0.5, 0.7]
    frames = Burgers(viscosity).solve(initial, grid, times)
    assert frames.shape == (1, 4, 1024)
    for frame, time in zip(frames[0], times, strict=True):
        assert relative(frame[None], exact.cole_hopf(initial, viscosity, time, grid), grid) < 1e-8


def test_fourth_order_in_time():
    grid = Grid.periodic(128, length=2 * math.pi)
    initial = torch.sin(grid.points()[0])[None]
    truth = exact.cole_hopf(initial, 0.1, 1.0, grid)
    coarse, fine = (
        relative(Burgers(0.1, steps=n).solve(initial, grid, 1.0), truth, grid) for n in (20, 40)
    )
    assert math.log2(coarse / fine) == pytest.approx(4, abs=0.3)


@pytest.mark.slow
def test_mean_is_conserved_and_energy_falls():
    grid, initial = random_fields(256)
    initial = initial + 0.7
    frames = Burgers(0.1).solve(initial, grid, [0.2, 0.4, 0.6])
    assert torch.allclose(frames.mean(-1), initial.mean(-1, keepdim=True).expand(-1, 3), atol=1e-12)
    energy = torch.cat([sobolev_norm(initial, grid)[:, None], sobolev_norm(frames, grid)], dim=1)
    assert bool((energy.diff(dim=1) < 0).all())


def test_a_shifted_field_has_the_shifted_solution():
    grid, initial = random_fields(256)
    solver = Burgers(0.1, steps=50)
    shifted = solver.solve(initial.roll(31, -1), grid, 1.0)
    assert torch.allclose(shifted, solver.solve(initial, grid, 1.0).roll(31, -1), atol=1e-13)


def test_a_sample_does_not_depend_on_its_batch():
    grid, initial = random_fields(256)
    solver = Burgers(0.1, steps=50)
    assert torch.allclose(
        solver.solve(initial[2:3], grid, 1.0), solver.solve(initial, grid, 1.0)[2:3], atol=1e-14
    )


def test_residual_vanishes_on_the_exact_solution_and_not_on_another():
    grid = Grid.periodic(128, length=2 * math.pi)
    initial, h = torch.sin(grid.points()[0])[None], 1e-4
    before, now, after = (exact.cole_hopf(initial, 0.1, t, grid) for t in (0.5 - h, 0.5, 0.5 + h))
    derivative = (after - before) / (2 * h)
    solver = Burgers(0.1)
    assert solver.residual(now, derivative, grid).abs().max() < 1e-6
    assert solver.residual(now, 1.1 * derivative, grid).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: Burgers(-0.1), "viscosity must be positive"),
        (lambda g: Burgers(0.1, steps=0), "steps must be a whole number of at least 1"),
        (lambda g: Burgers().solve(torch.ones(1, 7), g, 1.0), r"shape \(\.\.\., 8\), got \(1, 7\)"),
        (lambda g: Burgers().solve(torch.ones(8), g, 1.0), r"\(batch, x\)"),
        (lambda g: Burgers().solve(torch.full((1, 8), math.nan), g, 1.0), "not finite"),
        (lambda g: Burgers().solve(torch.ones(1, 8), g, [1.0, 0.5]), "rising"),
        (lambda g: Burgers().solve(torch.ones(1, 8), Grid.dirichlet(8), 1.0), "one periodic axis"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(Grid.periodic(8))


def test_garbage_that_stays_finite_is_reported_too():
    grid = Grid.periodic(64, length=2 * math.pi)
    with pytest.raises(ArithmeticError, match="which the equation forbids"):
        Burgers(0.01, steps=1).solve(100 * torch.sin(grid.points()[0])[None], grid, 1.0)


def test_a_solution_that_blows_up_is_reported():
    grid, initial = random_fields(512)
    with pytest.raises(ArithmeticError, match="use more steps"):
        Burgers(0.001, steps=2).solve(100 * initial, grid, 50.0)
