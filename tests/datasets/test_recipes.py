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
from sobolev.datasets.recipes.presets import changed, recipe_from
from sobolev.datasets.recipes.semilinear import SemilinearRecipe
from sobolev.grids.restriction import restricted
from sobolev.grids.streams import stream
from sobolev.grids.symmetries import elements, turned
from sobolev.solvers import Darcy
from sobolev.solvers.navier_stokes.states import band_limited, energy


def small(preset, resolution, **changes):
    """A preset on few nodes, for a short time."""
    own = {"stored_resolution": None, "axes": PRESETS[preset].axes, **changes}
    return replace(PRESETS[preset], solver_resolution=resolution, **own)


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
    "heat": small("heat", 32),
    "heat-ends": small("heat", 33, domain="dirichlet", axes=1),
    "advection": small("advection", 64, time=0.2),
    "kdv": small("kdv", 128, length=32.0, time=1.0),
    "ks": small("ks", 128, time=1.0),
    "ks-2d": small("ks-2d", 64, length=20.0, time=1.0, interval=0.25),
    "schroedinger": small("schroedinger", 256, time=0.2, interval=0.05),
    "wave": small("wave", 64, time=0.1),
    "klein-gordon": small("klein-gordon", 48, domain="periodic", time=0.1),
    "klein-gordon-ends": small("klein-gordon", 65, domain="dirichlet", axes=1, time=0.1),
    "allen-cahn": small("allen-cahn", 48, diffusivity=1e-2, time=0.2),
    "allen-cahn-sphere": small("allen-cahn-sphere", 24, diffusivity=0.05, tau=3.0, time=2.0),
    "cahn-hilliard": small("cahn-hilliard", 32, width=0.1, deviation=0.5, time=1.0),
    "swift-hohenberg": small("swift-hohenberg", 32, length=20.0, deviation=0.5, time=4.0),
    "fisher-kpp": small("fisher-kpp", 48, diffusivity=5e-3, width=0.1, time=1.2),
    "gray-scott": small(
        "gray-scott", 48, length=1.0, time=40.0, u_diffusivity=2e-4, v_diffusivity=1e-4
    ),
    "gray-scott-sphere": small(
        "gray-scott",
        32,
        domain="sphere",
        length=1.0,
        width=0.5,
        spots=3,
        time=40.0,
        u_diffusivity=8e-3,
        v_diffusivity=4e-3,
    ),
    "burgers-2d": small("burgers-2d", 48, viscosity=0.02, tau=4.0, time=0.1),
    "kolmogorov": small("kolmogorov", 48, viscosity=0.02, tau=2.0, time=0.5),
    "barotropic": small("barotropic", 32, tau=3.0, viscosity=1e-10, time=0.5),
    "fitzhugh-nagumo": small("fitzhugh-nagumo", 32, length=40.0, time=4.0),
}
EVOLVING = sorted(name for name in SMALL if isinstance(SMALL[name], SemilinearRecipe))


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


@pytest.mark.parametrize("name", EVOLVING)
def test_estimates_tell_that_steps_and_nodes_suffice(name):
    recipe = SMALL[name]
    assert (recipe.error_estimate(streams(1), recipe.solved(streams(1)).outputs) < 5e-3).all()


@pytest.mark.parametrize("name", sorted({*EVOLVING} - {"ks-2d", "wave"}))
def test_a_last_frame_that_is_spoilt_breaks_a_promise(name):
    """But for flame fronts, which promise nothing, and waves, in which a mean may be at rest."""
    recipe = SMALL[name]
    fields = recipe.solved(streams()).fields(recipe)
    first = recipe.outputs[0].name
    fields[first][:, -1] += 2 * fields[first].abs().amax()
    grid = recipe.grid(recipe.solver_resolution)
    assert any((check.defect > check.limit).any() for check in recipe.checks(fields, grid))


@pytest.mark.parametrize("name", EVOLVING)
def test_numbers_of_an_equation_can_be_varied_over_its_ranges(name):
    recipe = SMALL[name]
    varied = changed(recipe, {}, recipe.ranges)
    assert {p.name for p in varied.parameters} == recipe.ranges.keys()
    for parameter in varied.parameters:
        for end in (parameter.low, parameter.high):
            assert varied.at({parameter.name: end}).semilinear is not None


def test_solved_fields_turn_as_their_inputs_do():
    """Each symmetry that a recipe declares, but for shifts, which every one of its equations has."""
    for name in ("allen-cahn", "klein-gordon", "fitzhugh-nagumo", "ks", "ks-2d", "heat-ends"):
        recipe = replace(SMALL[name], time=SMALL[name].interval)
        grid = recipe.grid(recipe.solver_resolution)
        u = recipe.draw(streams(1))
        v = recipe.solve(u, grid)
        for coins in elements(recipe.symmetries, grid.ndim):
            found = recipe.solve(turned(u, grid, recipe.symmetries, coins), grid)
            wanted = turned(v, grid, recipe.symmetries, coins)
            assert torch.allclose(found, wanted, atol=1e-9 * v.abs().max().item()), (name, coins)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"domain": "torus"}, "AllenCahnRecipe lives on periodic, dirichlet, neumann, sphere"),
        ({"axes": 4}, "AllenCahnRecipe has 1 or 2 or 3 axes"),
        ({"domain": "sphere"}, "radius 1"),
        ({"time": 1.0, "interval": 0.3}, "multiple of interval"),
        ({"step": 0.0}, "step must be positive"),
    ],
)
def test_domains_and_times_that_are_none_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        replace(PRESETS["allen-cahn"], **changes)


@pytest.mark.parametrize("name", sorted(SMALL.keys() - {"published", *EVOLVING}))
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
