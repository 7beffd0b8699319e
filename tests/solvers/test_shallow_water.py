"""Shallow water on the sphere: exact solutions, symmetries, conservation, failures."""

from __future__ import annotations

import math

import pytest
import torch

from sobolev import Grid
from sobolev.grids.sphere import SphereGrid
from sobolev.grids.spherical_vectors import vorticity_and_divergence
from sobolev.grids.streams import stream
from sobolev.solvers.integrators import SolutionError
from sobolev.solvers.shallow_water.equation import ShallowWater
from sobolev.solvers.shallow_water.flow import truncation
from sobolev.solvers.shallow_water.states import (
    DAY,
    balanced,
    galewsky,
    random_states,
    williamson2,
)

SMALL, MEDIUM = SphereGrid(16, 32), SphereGrid(32, 64)
HOUR = 3600.0
INVISCID = ShallowWater(hyperdiffusion=0.0)


def states(count: int, grid: SphereGrid = SMALL, **options: float) -> torch.Tensor:
    return random_states(ShallowWater(), grid, [stream(5, i) for i in range(count)], **options)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest relative difference of the three fields; divergence counts beside vorticity."""
    error = (a - b).abs().amax((-2, -1))
    size = b.abs().amax((-2, -1))
    size[..., 1] = size[..., 0]
    return float((error / size).max())


@pytest.mark.parametrize("tilt", [0.0, 0.7, math.pi / 2])
@pytest.mark.parametrize("grid", [SMALL, SphereGrid(25, 48, "equiangular", radius=6.37122e6)])
def test_solid_rotation_is_steady(grid, tilt):
    equation = ShallowWater(tilt=tilt)
    state = williamson2(equation, grid)
    assert difference(equation.solve(state[None], grid, DAY)[0], state) < 1e-11


def test_the_axis_tilts_as_in_williamson_et_al():
    origin = torch.zeros(1, dtype=torch.float64)
    tilted = ShallowWater(tilt=math.pi / 2).coriolis(origin, origin)  # 0°N 0°E: −cos λ cos θ sin α
    assert tilted.item() == pytest.approx(-2 * 7.292e-5)


@pytest.mark.slow
def test_solid_rotation_is_steady_over_five_days():
    equation, grid = ShallowWater(tilt=0.3), SphereGrid(64, 128)
    state = williamson2(equation, grid)
    assert difference(equation.solve(state[None], grid, 5 * DAY)[0], state) < 1e-10


def rossby_haurwitz(equation: ShallowWater, grid: SphereGrid, time: float = 0.0) -> torch.Tensor:
    """Vorticity of the wave R = 2 (degree 3): exact for a non-divergent flow, in which it turns at
    a known rate (Haurwitz 1940)."""
    rate, order = 1e-5, 2
    turn = (order * (3 + order) * rate - 2 * equation.rotation) / ((1 + order) * (2 + order))
    latitude, longitude = grid.points()
    wave = latitude.cos() ** order * latitude.sin() * (order**2 + 3 * order + 2)
    return (
        2 * rate * latitude.sin()[:, None]
        - rate * wave[:, None] * (order * (longitude - turn * time)).cos()
    )[None]


def test_follows_the_rossby_haurwitz_wave():
    # a layer so deep (c = 1e7 m/s) that the flow is non-divergent to (U/c)² = 1e-10
    start, end = (rossby_haurwitz(INVISCID, SMALL, t) for t in (0.0, DAY))
    state = balanced(INVISCID, start, SMALL, mean_depth=1e13)
    found = INVISCID.solve(state, SMALL, DAY)[:, 0]
    assert (end - start).abs().max() > 0.5 * start.abs().max()
    assert (found - end).abs().max() < 1e-5 * end.abs().max()


@pytest.mark.slow
def test_fourth_order_in_time():
    start = states(2, speed=40.0)

    def solved(step: float) -> torch.Tensor:
        return ShallowWater(step=step).solve(start, SMALL, 12 * HOUR)

    reference = solved(225.0)
    errors = [(solved(step) - reference).square().mean((-2, -1)) for step in (1800.0, 900.0)]
    orders = torch.log2(errors[0] / errors[1]) / 2
    assert (orders - 4).abs().max() < 0.3, orders


def test_gravity_waves_oscillate_at_their_frequency():
    equation, depth, degree = ShallowWater(rotation=0.0, hyperdiffusion=0.0), 9e4, 5
    amplitude = 1e-3
    c = torch.zeros(SMALL.mode_shape, dtype=torch.float64)
    c[degree**2 + 2] = amplitude
    wave = SMALL.from_modes(c)
    state = torch.stack((torch.zeros_like(wave), torch.zeros_like(wave), depth + wave))
    frequency = math.sqrt(depth * degree * (degree + 1)) / equation.radius
    time = 2.5 * HOUR  # many periods in few steps
    found = equation.solve(state[None], SMALL, time)[0, 2] - depth
    assert (found - math.cos(frequency * time) * wave).abs().max() < 1e-6 * amplitude


@pytest.mark.filterwarnings("ignore")  # of the other library
def test_agrees_with_torch_harmonics():
    examples = pytest.importorskip("torch_harmonics.examples")
    state = galewsky(ShallowWater(), MEDIUM)
    T = truncation(MEDIUM)
    theirs = examples.ShallowWaterSolver(32, 64, 60.0, lmax=T, mmax=T, grid="legendre-gauss")
    theirs = theirs.double()
    v = theirs.grid2spec(state[[2, 0, 1]])
    expected = theirs.spec2grid(theirs.timestep(v, 120))[[1, 2, 0]]
    assert difference(ShallowWater().solve(state[None], MEDIUM, 2 * HOUR)[0], expected) < 1e-3


@pytest.mark.slow
def test_mass_is_conserved_to_rounding_and_energy_closely():
    start = states(2, MEDIUM)
    end = INVISCID.solve(start, MEDIUM, DAY)
    assert (INVISCID.mass(end, MEDIUM) / INVISCID.mass(start, MEDIUM) - 1).abs().max() < 1e-14
    kinetic = INVISCID.energy(start, MEDIUM) - INVISCID.energy(
        torch.zeros_like(start[:1]).index_fill(1, torch.tensor(2), INVISCID.gravity * 1e4), MEDIUM
    )
    drift = INVISCID.energy(end, MEDIUM) - INVISCID.energy(start, MEDIUM)
    assert (drift / kinetic).abs().max() < 3e-4
    enstrophy = [INVISCID.potential_enstrophy(s, MEDIUM) for s in (start, end)]
    assert (enstrophy[1] / enstrophy[0] - 1).abs().max() < 1e-3


@pytest.mark.slow
def test_hyperdiffusion_takes_energy_but_no_mass_from_the_smallest_scales():
    start = states(2, MEDIUM)
    calm, damped = (
        equation.solve(start, MEDIUM, DAY)
        for equation in (INVISCID, ShallowWater(hyperdiffusion=1 / HOUR))
    )
    assert (INVISCID.energy(damped, MEDIUM) < INVISCID.energy(calm, MEDIUM)).all()
    assert torch.allclose(INVISCID.mass(damped, MEDIUM), INVISCID.mass(start, MEDIUM), rtol=1e-14)
    spectra = [MEDIUM.to_modes(s[:, 0]).square() for s in (calm, damped)]
    last = MEDIUM.shells()[1] == truncation(MEDIUM) - 1
    assert (spectra[1][:, last].sum(1) < 0.5 * spectra[0][:, last].sum(1)).all()


def test_a_rotated_state_has_the_rotated_solution():
    start = states(2)
    end = ShallowWater().solve(start, SMALL, 6 * HOUR)
    rolled = ShallowWater().solve(start.roll(5, dims=-1), SMALL, 6 * HOUR)
    assert difference(rolled, end.roll(5, dims=-1)) < 1e-11


def test_a_mirrored_state_has_the_mirrored_solution():
    start = states(2)
    sign = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)[:, None, None]
    end = ShallowWater().solve(start, SMALL, 6 * HOUR)
    mirrored = ShallowWater().solve(sign * start.flip(-2), SMALL, 6 * HOUR)
    assert difference(mirrored, sign * end.flip(-2)) < 1e-11


def test_a_sample_is_solved_alike_alone_and_in_a_batch():
    start = torch.cat((states(2), states(2, speed=60.0)))
    times = [0.0, HOUR, 5 * HOUR]
    together = ShallowWater().solve(start, SMALL, times)
    assert together.shape == (4, 3, 3, 16, 32)
    assert torch.equal(together[:, 0], start)
    for i in range(4):
        alone = ShallowWater().solve(start[i : i + 1], SMALL, times)
        assert difference(alone[0], together[i]) < 1e-12


def test_both_kinds_of_grid_carry_one_solution():
    equiangular = SphereGrid(31, 60, "equiangular")
    assert truncation(equiangular) == truncation(SMALL)
    start = states(2)
    end = SMALL.resample(ShallowWater().solve(start, SMALL, 3 * HOUR), equiangular)
    other = ShallowWater().solve(SMALL.resample(start, equiangular), equiangular, 3 * HOUR)
    assert difference(other, end) < 1e-12


def test_single_precision_comes_back_as_it_was_given():
    start = states(1)
    end = ShallowWater().solve(start.float(), SMALL, HOUR)
    assert end.dtype == torch.float32
    assert difference(end.double(), ShallowWater().solve(start, SMALL, HOUR)) < 1e-5


def test_the_jet_is_balanced_and_as_fast_as_published():
    equation, grid = ShallowWater(), SphereGrid(128, 256)
    state = galewsky(equation, grid, perturbed=False)
    wind = equation.velocity(state, grid)
    latitude = grid.points()[0]
    south, north = math.pi / 7, math.pi / 2 - math.pi / 7
    exponent = 4 / (north - south) ** 2 + 1 / ((latitude - south) * (latitude - north))
    inside = (latitude > south) & (latitude < north)
    profile = torch.where(inside, 80 * exponent.exp(), 0.0)
    assert (wind[0] - profile[:, None]).abs().max() < 0.01
    assert wind[1].abs().max() < 1e-9
    area = 4 * math.pi * equation.radius**2
    assert (equation.mass(state, grid) / area).item() == pytest.approx(10e3, abs=0.01)
    by_spectrum = balanced(equation, state[None, 0], grid)[0]
    assert (by_spectrum[2] - state[2]).abs().max() < 0.05  # m²/s², of 1.1e4 across the jet
    bump = (galewsky(equation, grid) - state)[2] / equation.gravity
    assert bump[:, 0].max().item() == pytest.approx(120 * math.cos(math.pi / 4), rel=0.04)
    assert bump[:, 64:192].max() < 1e-7


def test_random_states_are_balanced_winds_of_the_speed_asked_for():
    equation, grid = ShallowWater(), SphereGrid(32, 64)
    start = random_states(equation, grid, [stream(1, i) for i in range(40)], speed=25.0)
    wind = equation.velocity(start, grid)
    area = grid.quadrature() / (4 * math.pi)
    square = (wind.square().sum(1) * area).sum((-2, -1))
    assert square.mean().sqrt().item() == pytest.approx(25.0, rel=0.03)
    assert start[:, 1].abs().max() < 1e-20
    vorticity, divergence = vorticity_and_divergence(wind, equation.sphere(grid))
    assert torch.allclose(vorticity, start[:, 0], atol=1e-16)
    assert divergence.abs().max() < 1e-16
    assert (equation.height(start, grid) * area).sum((-2, -1)).tolist() == pytest.approx([1e4] * 40)
    soon = equation.solve(start[:4], grid, HOUR)
    assert soon[:, 1].abs().max() < 0.05 * soon[:, 0].abs().max()
    finer = random_states(equation, SphereGrid(48, 96), [stream(1, 0)], speed=25.0)
    low = [g.to_modes(s[0])[..., :100] for g, s in ((grid, start), (SphereGrid(48, 96), finer))]
    assert torch.allclose(low[0][0], low[1][0], rtol=1e-10, atol=1e-18)


def test_diagnostics_of_a_layer_at_rest():
    equation, grid = ShallowWater(), SphereGrid(12, 24)
    rest = torch.zeros(2, 3, 12, 24, dtype=torch.float64)
    rest[:, 2] = 9.80616 * 1000.0
    area = 4 * math.pi * equation.radius**2
    assert equation.height(rest, grid).mean().item() == pytest.approx(1000.0)
    assert equation.mass(rest, grid).tolist() == pytest.approx([1000.0 * area] * 2)
    assert equation.energy(rest, grid)[0].item() == pytest.approx(9.80616 * 1000.0**2 / 2 * area)
    enstrophy = (2 * equation.rotation) ** 2 / 3 / 2000.0 * area  # the mean of sin² is a third
    assert equation.potential_enstrophy(rest, grid)[0].item() == pytest.approx(enstrophy)
    assert equation.velocity(rest, grid).abs().max() == 0


def test_samples_that_blow_up_are_named_and_the_others_kept(monkeypatch):
    monkeypatch.setattr("sobolev.solvers.shallow_water.equation.LARGEST_COURANT", math.inf)
    rest = torch.zeros(1, 3, 16, 32, dtype=torch.float64)
    rest[:, 2] = 9e4
    start = torch.cat((rest, states(2, speed=80.0)))
    solver, times = ShallowWater(hyperdiffusion=0.0, step=5 * HOUR), [0.0, HOUR, 20 * DAY]
    with pytest.raises(SolutionError, match=r"sample 1, 2 blew up .* by t = 1.728e\+06 s") as error:
        solver.solve(start, SMALL, times)
    solution = error.value.solution
    assert error.value.status.tolist() == [0, 1, 1]
    assert error.value.status.dtype == torch.int8
    assert solution.shape == (3, 3, 3, 16, 32)
    assert solution[1:, 2].isnan().all()
    assert solution[:, :2].isfinite().all()
    assert (solution[0] - rest).abs().max() < 1.0  # m²/s², of 9e4


def test_a_layer_that_runs_dry_is_a_failure():
    rest = torch.zeros(1, 3, 16, 32, dtype=torch.float64)
    latitude = SMALL.points()[0][:, None]
    rest[0, 2] = 1000.0 * (1 + 0.95 * latitude.sin())
    rest[0, 1] = 1e-4 * latitude.sin()
    with pytest.raises(SolutionError, match="ran dry"):
        ShallowWater().solve(rest, SMALL, [i * HOUR for i in range(1, 13)])


def test_gradients_are_those_of_differences(monkeypatch):
    """In the state, its mean depth included, the rotation and the hyperdiffusion."""
    grid = SphereGrid(8, 16)
    start, unit = (
        states(3, grid, scale=3.0),
        torch.tensor([1e-5, 1e-5, 1e3]).double()[:, None, None],
    )
    start, direction = start[:2], (start[2:] / unit).expand(2, -1, -1, -1)

    def size(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        equation = ShallowWater(rotation=7e-5 * (1 + b), hyperdiffusion=(1 + c) / 7200, step=1200.0)
        ends = equation.solve(start + a * unit * direction, grid, [HOUR, 2 * HOUR]) / unit
        return ends.pow(3).mean()

    zero = torch.zeros((), dtype=torch.float64)
    inputs = [zero.clone().requires_grad_() for _ in range(3)]
    gradients = torch.autograd.grad(size(*inputs), inputs)
    for i, gradient in enumerate(gradients):
        ahead, behind = ([zero + h * (i == j) for j in range(3)] for h in (1e-4, -1e-4))
        difference = (size(*ahead) - size(*behind)) / 2e-4
        assert gradient.item() == pytest.approx(difference.item(), rel=1e-6)


def test_work_stays_where_its_input_is():
    start = states(2)
    grid = SphereGrid(14, 26)  # no cached table fits
    start = SMALL.resample(start, grid)
    with torch.device("meta"):
        got = ShallowWater().solve(start, grid, HOUR)
        energy = ShallowWater().energy(start, grid)
        jet = galewsky(ShallowWater(), grid)
        drawn = random_states(ShallowWater(), grid, [stream(0, 0)])
    assert torch.equal(got, ShallowWater().solve(start, grid, HOUR))
    assert {energy.device.type, jet.device.type, drawn.device.type} == {"cpu"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ShallowWater(radius=0.0), "positive radius and gravity"),
        (lambda: ShallowWater(hyperdiffusion=-1.0), "at least 0, got -1.0"),
        (lambda: ShallowWater(step=0.0), "step must be positive"),
        (lambda: ShallowWater(courant=3.0), r"courant must lie in \(0, 2.8\]"),
        (lambda: ShallowWater(rotation=math.nan), "finite rotation"),
        (
            lambda: ShallowWater().solve(states(1)[0], SMALL, 1.0),
            r"\(batch, 3, lat, lon\), got \(3, 16, 32\)",
        ),
        (
            lambda: ShallowWater().solve(states(1)[:, :2], SMALL, 1.0),
            "vorticity, divergence, geopotential – got",
        ),
        (lambda: ShallowWater().solve(states(1), SphereGrid(16, 32, radius=2.0), 1.0), "radius 2"),
        (
            lambda: ShallowWater().solve(torch.ones(1, 3, 4, 8), SphereGrid(4, 8), 1.0),
            "at least 5 × 10 Gauss nodes",
        ),
        (
            lambda: ShallowWater().solve(states(2) - 9.8e4, SMALL, 1.0),
            r"depth of sample [01] is not positive.*not its deviation",
        ),
        (lambda: ShallowWater().solve(states(1) * math.nan, SMALL, 1.0), "not finite"),
        (lambda: ShallowWater().solve(states(1), SMALL, [2.0, 1.0]), "finite and rising"),
        (
            lambda: ShallowWater(step=1e6).solve(states(1), SMALL, 1.0),
            r"step=1e\+06 s is unstable for sample 0; the largest stable step is 1\.206e\+04 s",
        ),
        (lambda: galewsky(ShallowWater(tilt=0.1), SMALL), "tilt=0"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_only_spheres_are_accepted():
    with pytest.raises((ValueError, TypeError)):
        ShallowWater().mass(states(1), Grid.periodic(16, 32))
