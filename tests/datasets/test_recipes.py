"""Recipes: the measures are those they claim to be, and their promises hold."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sobolev.datasets import (
    PRESETS,
    BurgersRecipe,
    DarcyRecipe,
    DecayingTurbulenceRecipe,
    ForcedDarcyRecipe,
    NavierStokesRecipe,
    PublishedDarcyRecipe,
    ShallowWaterRecipe,
)
from sobolev.datasets.recipes.capabilities import Bounded, WithResidual
from sobolev.datasets.recipes.presets import recipe_from
from sobolev.grids.restriction import restricted
from sobolev.grids.streams import stream
from sobolev.solvers import Darcy
from sobolev.solvers.navier_stokes.states import band_limited, energy

SMALL = {
    "burgers": BurgersRecipe(solver_resolution=128, steps=40),
    "darcy": DarcyRecipe(solver_resolution=33),
    "lognormal": DarcyRecipe(solver_resolution=33, medium="lognormal", sigma=3.0),
    "forced": ForcedDarcyRecipe(solver_resolution=28, stored_resolution=None),
    "forced-3d": ForcedDarcyRecipe(
        solver_resolution=13, stored_resolution=None, walls=("dirichlet", "periodic", "dirichlet")
    ),
    "published": PublishedDarcyRecipe(solver_resolution=33),
    "navier-stokes": NavierStokesRecipe(
        viscosity=0.01, time=0.5, interval=0.1, solver_resolution=32
    ),
    "turbulence": DecayingTurbulenceRecipe(
        viscosity=0.1, time=0.2, interval=0.1, warm_up=0.5, solver_resolution=64
    ),
    "shallow-water": ShallowWaterRecipe(
        hours=2, solver_resolution=32, stored_resolution=16, scale=4.0, smoothness=8.0
    ),
    "jet": ShallowWaterRecipe(start="galewsky", hours=2, solver_resolution=64),
}


def streams(count=2):
    return [stream(0, i) for i in range(count)]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_their_json(name):
    assert recipe_from(PRESETS[name].configuration()) == PRESETS[name]


@pytest.mark.parametrize(
    ("convention", "deviation"), [("published", 0.262), ("kl", 0.185), ("paper", 0.043)]
)
def test_vorticity_has_the_spread_of_its_convention(convention, deviation):
    """Σ σ²(4π²|k|² + 49)^−2.5 over the lattice, and its sampled value; DATA: 0.262, 0.185, 0.043."""
    k = np.arange(-200, 201)
    square = 4 * math.pi**2 * (k[:, None] ** 2 + k**2)
    variance = {"published": 2 * 343.0, "kl": 343.0, "paper": 7**1.5}[convention]
    exact = math.sqrt(variance * (np.where(square > 0, (square + 49.0) ** -2.5, 0)).sum())
    assert exact == pytest.approx(deviation, abs=6e-4)
    w = NavierStokesRecipe(convention=convention).draw(streams(200))
    assert w.std().item() == pytest.approx(exact, rel=0.03)


def test_initial_vorticity_is_band_limited():
    recipe = NavierStokesRecipe()
    w = recipe.draw(streams())[:, 0]
    assert torch.allclose(band_limited(w, recipe.grid(64)), w, atol=1e-14)


def test_decaying_turbulence_starts_with_its_energy_and_spectrum():
    recipe = DecayingTurbulenceRecipe(solver_resolution=64, warm_up=0.0)
    w = recipe.draw(streams(40))[:, 0]
    grid = recipe.grid(64)
    assert torch.allclose(energy(w, grid) / (2 * math.pi) ** 2, torch.tensor(0.5).double())
    power = torch.fft.fft2(w).abs().square().mean(dim=0)  # |ω̂|² = k⁴|ψ̂|² ∝ k³ / (1 + (k/4)⁴)
    shape = lambda k: k**3 / (1 + (k / 4) ** 4)  # noqa: E731
    ratio = (power[0, 4] + power[4, 0]) / (power[0, 12] + power[12, 0])
    assert ratio.item() == pytest.approx(shape(4.0) / shape(12.0), rel=0.4)


@pytest.mark.parametrize("name", sorted(SMALL.keys() - {"published"}))  # cells nest in no nodes
def test_draws_on_more_nodes_are_the_same_fields(name):
    recipe = SMALL[name]
    finer = recipe.refined()
    coarse = recipe.grid(recipe.solver_resolution)
    fine = finer.grid(finer.solver_resolution)
    assert finer.grid(recipe.solver_resolution) == coarse
    picked = restricted(recipe.draw(streams(), finer.solver_resolution), fine, coarse)
    drawn = recipe.draw(streams())
    assert torch.allclose(picked, drawn, atol=1e-10 * drawn.abs().max().item())


@pytest.mark.parametrize("name", SMALL)
def test_solved_samples_keep_the_promises_of_their_equation(name):
    recipe = SMALL[name]
    solved = recipe.solved(streams())
    grid = recipe.grid(recipe.solver_resolution)
    for check in recipe.checks(solved.fields(recipe), grid):
        assert (check.defect <= check.limit).all(), check
    if isinstance(recipe, WithResidual):
        residual = recipe.residual(streams())
        assert (residual < 1e-3).all()


@pytest.mark.parametrize("name", sorted(SMALL.keys() - {"published"}))
def test_spoilt_samples_break_a_promise(name):
    recipe = SMALL[name]
    fields = recipe.solved(streams()).fields(recipe)
    last = recipe.outputs[0].name
    fields[last] = fields[last] + 2 * fields[last].abs().amax()
    grid = recipe.grid(recipe.solver_resolution)
    assert any((check.defect > check.limit).any() for check in recipe.checks(fields, grid))


def test_error_estimates_are_the_error():
    """Against Burgers' solution on four times the nodes in eight times the steps, and for Darcy
    against the next two refinements of a smooth medium."""
    coarse = BurgersRecipe(solver_resolution=128, steps=8)
    fine = replace(coarse, solver_resolution=512, steps=64)
    outputs = coarse.solved(streams()).outputs
    truth = fine.solve(coarse.draw(streams(), 512), fine.grid(512))[..., ::4]
    error = (outputs - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)
    estimate = coarse.error_estimate(streams(), outputs)
    assert torch.allclose(estimate, error, rtol=0.2)
    darcy = DarcyRecipe(solver_resolution=17, medium="lognormal", sigma=3.0)
    first = darcy.error_estimate(streams(), darcy.solved(streams()).outputs)
    second = darcy.refined().error_estimate(  # the same coefficient, next refinement
        streams(), darcy.refined().solve(darcy.draw(streams(), 33), darcy.grid(33))
    )
    assert second.isfinite().all()
    assert (first < 0.05).all()


def test_the_symmetric_forcing_is_symmetric():
    """A solution turned by a quarter about node 0 solves the problem of the turned input."""
    recipe = replace(SMALL["navier-stokes"], forcing="symmetric")
    assert recipe.symmetries == ("quarter turns",)
    turn = lambda w: w.rot90(1, (-2, -1)).roll(1, -2)  # noqa: E731
    w, grid = recipe.draw(streams()), recipe.grid(32)
    assert torch.allclose(recipe.solve(turn(w), grid), turn(recipe.solve(w, grid)), atol=1e-12)


def test_parameters_that_make_no_recipe_are_refused():
    with pytest.raises(ValueError, match="convention must be one of published, kl, paper"):
        NavierStokesRecipe(convention="book")
    with pytest.raises(ValueError, match="time must be a multiple of interval"):
        NavierStokesRecipe(time=1.0, interval=0.3)
    with pytest.raises(ValueError, match="medium must be two-phase or lognormal"):
        DarcyRecipe(medium="sand")


def test_darcys_certificate_bounds_the_relative_energy_error_and_tells_when_it_is_met():
    recipe = SMALL["darcy"]
    grid, a = recipe.grid(33), recipe.draw([stream(0, 0, i) for i in range(3)])
    u = recipe.solve(a, grid)
    bump = torch.sin(math.pi * grid.points()[0])[:, None] * torch.sin(math.pi * grid.points()[1])
    p = u * (1 + 0.02 * bump)
    darcy = Darcy()
    error = darcy.energy_norm((p - u)[:, 0], a[:, 0], grid)
    error = error / darcy.energy_norm(u[:, 0], a[:, 0], grid)
    bound = recipe.error_bound(a, p, grid)
    assert (bound >= error).all()
    assert (bound <= 2.2 * error).all()  # √contrast = 2, and ‖p‖ for ‖u‖
    good, iterations = recipe.improved(a, p, grid, 1e-3)
    assert (recipe.error_bound(a, good, grid) <= 1e-3).all()
    assert (iterations > 0).all()


@pytest.mark.parametrize("name", ["burgers", "published"])
def test_no_bound_is_claimed_where_none_is_known(name):
    assert not isinstance(SMALL[name], Bounded)
    assert isinstance(SMALL["darcy"], Bounded)


@pytest.mark.parametrize("name", ["forced", "forced-3d"])
def test_the_bound_of_forced_flow_holds_and_the_solver_makes_predictions_good(name):
    recipe = SMALL[name]
    grid, inputs = recipe.grid(recipe.solver_resolution), recipe.draw(streams())
    u = recipe.solve(inputs, grid)
    rough = torch.randn(u.shape, generator=torch.Generator().manual_seed(0), dtype=u.dtype)
    p = grid.without_border(u + 1e-3 * u.abs().amax() * rough)
    error, bound = recipe.true_error(inputs, p, grid), recipe.error_bound(inputs, p, grid)
    assert (bound >= error).all()
    assert (bound <= 2.2 * error).all()  # √contrast = 2, and ‖p‖ for ‖u‖
    good, _ = recipe.improved(inputs, p, grid, 1e-4)
    assert (recipe.true_error(inputs, good, grid) <= 1e-4).all()


def test_forced_flow_needs_a_wall_that_holds_the_pressure_and_nests_by_odd_factors():
    with pytest.raises(ValueError, match="one at least must hold the pressure"):
        ForcedDarcyRecipe(walls=("neumann", "neumann"))
    with pytest.raises(ValueError, match="must be one of periodic, dirichlet, neumann"):
        ForcedDarcyRecipe(walls=("dirichlet", "porous"))
    assert SMALL["forced"].resolutions() == [28, 10, 4]
    assert SMALL["forced"].grid(28).shape == (28, 27)
    f = ForcedDarcyRecipe().draw([stream(0, i) for i in range(20)], 65)[:, 1]
    assert f.std().item() == pytest.approx(1.0, abs=0.25)
