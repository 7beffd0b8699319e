"""``integrate`` over one table of equations: exact solutions, orders, what is conserved, symmetries, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jaxtyping
import numpy as np
import pytest
import scipy.integrate
import torch
from support.rotations import nodes, rotation, value_at
from torch import Tensor

from sobolev.grids import Axis, Grid, SphereGrid
from sobolev.solvers import (
    AdvectionDiffusion,
    AllenCahn,
    BarotropicVorticity,
    Burgers,
    CahnHilliard,
    FisherKPP,
    FitzHughNagumo,
    GrayScott,
    Heat,
    KdV,
    KleinGordon,
    KolmogorovFlow,
    KuramotoSivashinsky,
    NavierStokes,
    Schroedinger,
    Semilinear,
    SolutionError,
    SwiftHohenberg,
    VectorBurgers,
    evolution,
    integrate,
)

CIRCLE = Grid.periodic(48, length=2 * math.pi)
SQUARE = Grid.periodic(16, 16, length=2 * math.pi)
WALLS = Grid.neumann(24, length=3.0)
ENDS = Grid.dirichlet(33, length=3.0)
BALL = SphereGrid(16, 32)
MIXED = Grid(Axis("y", 12, boundary="neumann"), Axis("x", 16, length=2.0))


def smooth(grid: Grid | SphereGrid, channels: int = 0, batch: int = 2) -> Tensor:
    """Fields of the lowest modes."""
    torch.manual_seed(0)
    shape = (batch, *([channels] if channels else []), *grid.mode_shape)
    eigenvalues = grid.eigenvalues().flatten()
    limit = eigenvalues.sort().values[min(6, len(eigenvalues) - 1)]
    low = (grid.eigenvalues() <= limit * (1 + 1e-9)).double()
    return 0.5 * grid.from_modes(torch.randn(shape, dtype=torch.float64) * low)


@dataclass(frozen=True)
class Case:
    """An equation, a grid and the step at which its order shows."""

    equation: Semilinear
    grid: Grid | SphereGrid
    step: float
    conserved: Callable[[Tensor, Grid], Tensor] | None = None


def mean(u: Tensor, grid: Grid | SphereGrid) -> Tensor:
    return (u * grid.quadrature()).flatten(1).sum(1)


def mass(h: Tensor, grid: Grid) -> Tensor:
    return mean((h**2).sum(1), grid)


def enstrophy(w: Tensor, grid: Grid | SphereGrid) -> Tensor:
    return mean(w**2, grid)


def slope(u: Tensor, grid: Grid) -> Tensor:
    """u_x on a circle."""
    k = 2 * math.pi / grid.axes[0].length * torch.arange(grid.shape[0] // 2 + 1)
    return torch.fft.irfft(1j * k * torch.fft.rfft(u), n=grid.shape[0])


def kdv_energy(u: Tensor, grid: Grid) -> Tensor:
    return mean(u**3 / 3 - 0.1 * slope(u, grid) ** 2, grid)


def klein_gordon_energy(state: Tensor, grid: Grid) -> Tensor:
    u, v = state.unbind(1)
    c = grid.to_modes(u)
    elastic = (grid.eigenvalues() * c**2).flatten(1).sum(1) / 2
    return mean(v**2 / 2 + u**2 / 2 + u**4 / 8, grid) + elastic


CASES = {
    "kdv": Case(KdV(0.1), CIRCLE, 0.01, kdv_energy),
    "ks": Case(KuramotoSivashinsky(), CIRCLE, 0.01, mean),
    "ks-2d": Case(KuramotoSivashinsky(), SQUARE, 0.01),
    "burgers": Case(Burgers(0.1), CIRCLE, 0.05, mean),
    "allen-cahn": Case(AllenCahn(0.05, 2.0), CIRCLE, 0.1),
    "allen-cahn-walls": Case(AllenCahn(0.05, 2.0), WALLS, 0.03),
    "allen-cahn-ends": Case(AllenCahn(0.05, 2.0), ENDS, 0.03),
    "allen-cahn-ball": Case(AllenCahn(0.05, 2.0), BALL, 0.1),
    "allen-cahn-mixed": Case(AllenCahn(0.05, 2.0), MIXED, 0.02),
    "cahn-hilliard": Case(CahnHilliard(0.5), CIRCLE, 0.002, mean),
    "cahn-hilliard-walls": Case(CahnHilliard(0.5), WALLS, 0.0002, mean),
    "swift-hohenberg": Case(SwiftHohenberg(0.5, 0.5), SQUARE, 0.02),
    "fisher": Case(FisherKPP(0.1, 1.5), WALLS, 0.1),
    "gray-scott": Case(GrayScott(0.5, 0.3, (0.1, 0.05)), CIRCLE, 0.1),
    "gray-scott-ball": Case(GrayScott(0.5, 0.3, (0.1, 0.05)), BALL, 0.1),
    "fitzhugh-nagumo": Case(FitzHughNagumo(0.1), WALLS, 0.2),
    "schroedinger": Case(Schroedinger(), CIRCLE, 0.02, mass),
    "klein-gordon": Case(KleinGordon(1.0, 1.0, 0.5), CIRCLE, 0.05, klein_gordon_energy),
    "klein-gordon-ends": Case(KleinGordon(1.0, 1.0, 0.5), ENDS, 0.05, klein_gordon_energy),
    "vector-burgers": Case(VectorBurgers(0.2), SQUARE, 0.05),
    "kolmogorov": Case(KolmogorovFlow(0.1, waves=2, drag=0.1), SQUARE, 0.1),
    "barotropic": Case(BarotropicVorticity(2.0), BALL, 0.03, enstrophy),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def start(case: Case) -> Tensor:
    u = smooth(case.grid, len(case.equation.channels))
    return u**2 if isinstance(case.equation, FisherKPP) else u  # a population is not negative


@each_case
def test_steps_are_of_fourth_order(case):
    u, end = start(case), 8 * case.step
    solutions = [
        integrate(case.equation, u, case.grid, end, step=case.step / n) for n in (1, 2, 16)
    ]
    errors = [float((s - solutions[2]).norm()) for s in solutions[:2]]
    assert errors[0] > 1e-12 * float(u.norm())  # beyond rounding
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.6)


@each_case
def test_steps_of_second_order_are_so(case):
    """Against steps of the other method."""
    u, end = start(case), 8 * case.step
    right = integrate(case.equation, u, case.grid, end, step=case.step / 8)
    errors = [
        float(
            (
                integrate(case.equation, u, case.grid, end, step=case.step / n, order=2) - right
            ).norm()
        )
        for n in (2, 4)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.3)


@each_case
def test_the_step_is_found_where_none_is_given(case):
    u, end = start(case), 8 * case.step
    found = integrate(case.equation, u, case.grid, end)
    right = integrate(case.equation, u, case.grid, end, step=case.step / 16)
    assert float((found - right).norm()) < 2e-6 * float(right.norm())


@pytest.mark.parametrize(
    "case",
    [c for c in CASES.values() if c.conserved],
    ids=[n for n, c in CASES.items() if c.conserved],
)
def test_what_the_equation_conserves(case):
    u = start(case)
    end = integrate(case.equation, u, case.grid, 8 * case.step, step=case.step / 8)
    before, after = (case.conserved(v, case.grid) for v in (u, end))
    scale = case.conserved(u.abs(), case.grid).abs() + before.abs()
    assert (end - u).norm() > 1e-3 * u.norm()
    assert torch.allclose(before / scale, after / scale, rtol=0, atol=1e-7)


LINES = Grid.periodic(256, length=40.0, origin=-20.0)
LINE = LINES.points()[0]


@pytest.mark.parametrize(
    ("equation", "grid", "solution"),
    [
        (
            KdV(0.5),
            LINES,
            lambda t: (3 / torch.cosh(math.sqrt(2) / 2 * (LINE - t)) ** 2)[None],
        ),
        (
            Schroedinger(),
            LINES,
            lambda t: torch.stack([math.cos(t / 2) / LINE.cosh(), math.sin(t / 2) / LINE.cosh()])[
                None
            ],
        ),
        (FisherKPP(0.3), BALL, lambda t: torch.full((1, 16, 32), 1 / (1 + math.exp(-t))).double()),
        (
            KleinGordon(2.0),  # a standing wave between walls where it vanishes
            Grid.dirichlet(17),
            lambda t: torch.stack(
                [
                    math.cos(2 * math.pi * t) * (math.pi * Grid.dirichlet(17).points()[0]).sin(),
                    -2
                    * math.pi
                    * math.sin(2 * math.pi * t)
                    * (math.pi * Grid.dirichlet(17).points()[0]).sin(),
                ]
            )[None],
        ),
    ],
    ids=["soliton", "bright soliton", "logistic", "standing wave"],
)
def test_exact_solutions(equation, grid, solution):
    times = [0.0, 0.4, 1.0]
    found = integrate(equation, solution(0.0), grid, times)
    for i, t in enumerate(times):
        assert torch.allclose(found[:, i], solution(t), atol=3e-6), t


@pytest.mark.parametrize("grid", [CIRCLE, SQUARE, WALLS, ENDS, BALL, MIXED], ids=str)
def test_linear_equations_are_exact_on_every_grid(grid):
    """Every mode that the grid has decays by itself."""
    torch.manual_seed(0)
    c = torch.randn(2, *grid.mode_shape, dtype=torch.float64)
    if grid in (CIRCLE, SQUARE):  # whose highest cosines are not kept
        c = c * (grid.eigenvalues() < 0.9 * (min(grid.shape) / 2) ** 2)
    found = integrate(Heat(0.03), grid.from_modes(c), grid, [0.5, 2.0])
    for i, t in enumerate((0.5, 2.0)):
        right = grid.from_modes(torch.exp(-0.03 * t * grid.eigenvalues()) * c)
        assert torch.allclose(found[:, i], right, rtol=0, atol=1e-12)


def test_advection_is_a_shift():
    y, x = torch.meshgrid(*SQUARE.points(), indexing="ij")
    u = (torch.sin(x + 2 * y) + torch.cos(3 * x))[None]
    found = integrate(AdvectionDiffusion((0.5, -1.0)), u, SQUARE, 0.8)
    moved = torch.sin((x + 0.8) + 2 * (y - 0.4)) + torch.cos(3 * (x + 0.8))
    assert torch.allclose(found[0], moved, atol=1e-12)


def cole_hopf(t: float) -> Tensor:
    """−2ν ∇ ln φ for φ = 2 + e^(−2νt) cos x cos y + ½ e^(−5νt) sin(x + 2y), ν = 0.2."""
    y, x = torch.meshgrid(*FINE.points(), indexing="ij")
    slow, fast = math.exp(-0.4 * t), 0.5 * math.exp(-1.0 * t)
    phi = 2 + slow * x.cos() * y.cos() + fast * (x + 2 * y).sin()
    along_y = -slow * x.cos() * y.sin() + 2 * fast * (x + 2 * y).cos()
    along_x = -slow * x.sin() * y.cos() + fast * (x + 2 * y).cos()
    return torch.stack([-0.4 * along_y / phi, -0.4 * along_x / phi])[None]


def rossby_haurwitz(t: float) -> Tensor:
    """A wave of order 4 on a wind of solid rotation 2 sin φ, Ω = 1.5, on a sphere of radius 2."""
    latitude, longitude = GLOBE.points()
    speed = (4 * 7 * 1.0 - 2 * 1.5) / (5 * 6)
    wave = latitude.cos() ** 4 * latitude.sin()
    turned = (4 * (longitude - speed * t)).cos()
    return (2 * latitude.sin()[:, None] - 0.9 * wave[:, None] * turned)[None]


FINE, GLOBE = Grid.periodic(64, 64, length=2 * math.pi), SphereGrid(16, 32, radius=2.0)


@pytest.mark.parametrize(
    ("equation", "grid", "solution"),
    [
        (VectorBurgers(0.2), FINE, cole_hopf),
        (BarotropicVorticity(1.5), GLOBE, rossby_haurwitz),
    ],
    ids=["Cole–Hopf", "Rossby–Haurwitz"],
)
def test_exact_flows(equation, grid, solution):
    found = integrate(equation, solution(0.0), grid, 1.0, step=0.02)
    assert (solution(1.0) - solution(0.0)).norm() > 0.1 * solution(0.0).norm()
    assert torch.allclose(found, solution(1.0), atol=2e-7)


def test_kolmogorov_flow_is_that_of_the_tuned_solver():
    equation = KolmogorovFlow(0.05, waves=2, drag=0.1, amplitude=0.7)
    w = start(Case(equation, SQUARE, 0.02))
    w = w - w.mean((1, 2), keepdim=True)
    flow = NavierStokes(0.05, lambda y, x: -0.7 * 2 * (2 * y).cos() + 0 * x, drag=0.1, step=0.02)
    found = integrate(equation, w, SQUARE, [0.4, 1.0], step=0.02)
    assert torch.allclose(found, flow.solve(w, SQUARE, [0.4, 1.0]), atol=1e-12)


def test_against_an_integrator_that_knows_nothing_of_it():
    """Gray–Scott on walls by second differences and an implicit method of SciPy's: first order in h²."""
    equation, n = GrayScott(0.04, 0.06, (2e-3, 1e-3)), 256
    grid = Grid.neumann(n)
    x = grid.points()[0]
    u = torch.stack([1 - 0.5 * torch.cos(math.pi * x) ** 2, 0.25 * (1 + torch.cos(math.pi * x))])

    def rate(_: float, flat: np.ndarray) -> np.ndarray:
        u, v = flat.reshape(2, n)
        second = [np.diff(np.pad(w, 1, mode="edge"), 2) * n**2 for w in (u, v)]
        reaction = u * v**2
        return np.concatenate([
            2e-3 * second[0] - reaction + 0.04 * (1 - u), 1e-3 * second[1] + reaction - 0.1 * v
        ])  # fmt: skip

    other = scipy.integrate.solve_ivp(
        rate, (0, 20), u.flatten().numpy(), method="BDF", rtol=1e-8, atol=1e-10
    )
    found = integrate(equation, u[None], grid, 20.0)
    np.testing.assert_allclose(found.flatten().numpy(), other.y[:, -1], atol=5e-5)


def test_phases_on_the_sphere_commute_with_rotations():
    """u³ of a state within a third of the degrees is free of aliasing; what it makes beyond decays."""
    turn = rotation()

    def turned(u: Tensor) -> Tensor:
        return value_at((nodes(BALL) @ turn).flatten(0, 1), u, BALL).reshape(u.shape)

    u, equation = 0.1 * smooth(BALL), AllenCahn(0.05, 2.0)
    after = turned(integrate(equation, u, BALL, 0.3, step=0.05))
    found = integrate(equation, turned(u), BALL, 0.3, step=0.05)
    assert (turned(u) - u).norm() > 0.1 * u.norm()
    assert (found - after).norm() < 1e-9 * after.norm()


@pytest.mark.parametrize("name", ["kdv", "allen-cahn-ends", "gray-scott-ball", "schroedinger"])
def test_gradients_are_those_of_differences(name):
    case = CASES[name]
    u = start(case)[:1].requires_grad_()

    def size(u: Tensor) -> Tensor:
        return integrate(case.equation, u, case.grid, 4 * case.step, step=case.step).pow(3).sum()

    (gradient,) = torch.autograd.grad(size(u), u)
    low = smooth(case.grid, len(case.equation.channels), batch=1)  # within the kept modes
    difference = (size(u + 1e-5 * low) - size(u - 1e-5 * low)) / 2e-5
    assert float((gradient * low).sum()) == pytest.approx(difference.item(), rel=1e-6)


@pytest.mark.parametrize(("step", "order"), [(0.1, 4), (None, 4), (0.1, 2)])
def test_parameters_have_gradients(step, order):
    u = smooth(CIRCLE)
    diffusivity = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(
        lambda d, r: (
            integrate(AllenCahn(d, r), u, CIRCLE, [0.2, 0.5], step=step, order=order).pow(3).sum()
        ),
        (diffusivity, rate),
    )


def test_the_older_solvers_have_gradients_too():
    u = smooth(CIRCLE)[:1].requires_grad_()
    viscosity = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(
        lambda u, v: Burgers(v, steps=4).solve(u, CIRCLE, [0.1, 0.3]), (u, viscosity)
    )
    grid = Grid.periodic(12, 12, length=2 * math.pi)
    low = ((grid.eigenvalues() > 0) & (grid.eigenvalues() < 9.5)).double()
    band = lambda u: grid.from_modes(grid.to_modes(u) * low)  # noqa: E731
    w = smooth(grid)[:1].requires_grad_()
    force = (0.1 * smooth(grid)[1]).requires_grad_()
    for step in (0.05, None):
        torch.autograd.gradcheck(
            lambda w, f, v, step=step: NavierStokes(v, band(f), step=step).solve(
                band(w), grid, [0.1, 0.5]
            ),
            (w, force, viscosity),
            fast_mode=True,
        )


def test_memory_of_a_gradient_grows_as_the_root_of_the_steps():
    """Of 400 steps some 20 states are kept, and the tensors of 20 steps at a time."""
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    u = smooth(CIRCLE, batch=1).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        integrate(AllenCahn(0.05, 2.0), u, CIRCLE, 4.0, step=0.01)
    assert kept < 100 * u.numel()


def test_several_times_and_single_precision():
    u = smooth(CIRCLE)
    whole = integrate(AllenCahn(0.05), u.float(), CIRCLE, [0.0, 0.3, 0.9])
    assert (whole.dtype, whole.shape) == (torch.float32, (2, 3, 48))
    assert torch.equal(whole[:, 0], u.float())
    alone = integrate(AllenCahn(0.05), u, CIRCLE, 0.9)
    assert torch.allclose(whole[:, 2].double(), alone, atol=1e-6)


class Driven(AllenCahn):
    """Each sample under its own force."""

    def __init__(self, force: Tensor) -> None:
        super().__init__(0.05)
        self.force = force

    def nonlinear(self, u, space):
        return super().nonlinear(u, space) + self.force


@pytest.mark.parametrize("equation", [GrayScott(0.5, 0.3), Driven(smooth(SQUARE))], ids=["", "own"])
def test_a_batch_in_parts_is_the_whole(equation, monkeypatch):
    u = smooth(SQUARE, len(equation.channels))
    whole = integrate(equation, u, SQUARE, 0.5, step=0.1)
    monkeypatch.setattr(evolution, "_AT_ONCE", 1)
    assert torch.allclose(integrate(equation, u, SQUARE, 0.5, step=0.1), whole, atol=1e-14)


def test_samples_that_blow_up_are_flagged_and_the_others_kept():
    class Explosion(Semilinear):
        def symbol(self, eigenvalues):
            return -eigenvalues

        def nonlinear(self, u, space):
            return u**2

    u = torch.tensor([0.1, 5.0, 0.2]).double()[:, None].expand(3, 16).contiguous()
    with pytest.raises(
        SolutionError, match=r"1 of 3 samples blew up \(1; sample 1 by time 1\)"
    ) as e:
        integrate(Explosion(), u, Grid.periodic(16), [0.1, 1.0], step=0.01)
    assert e.value.status.tolist() == [0, 1, 0]
    right = 1 / (1 / u[[0, 2], :1] - 1.0)
    assert torch.allclose(e.value.solution[[0, 2], 1], right.expand(2, 16), rtol=1e-8)
    assert torch.isfinite(e.value.solution[1, 0]).all()


def test_a_step_is_named_where_some_samples_are_too_fast_for_it():
    u = torch.stack([0.01 * smooth(CIRCLE)[0], 3 * smooth(CIRCLE)[0]])
    with pytest.raises(
        SolutionError, match=r"\(1; sample 1 by time 1\): a step of 0.\d+ keeps"
    ) as e:
        integrate(Stiff(0.1), u, CIRCLE, 1.0, step=0.25)
    stable = float(str(e.value).split("a step of ")[1].split()[0])
    assert torch.isfinite(integrate(Stiff(0.1), u, CIRCLE, 1.0, step=stable)).all()


def test_shocks_that_the_grid_does_not_resolve_are_flagged():
    u = CIRCLE.points()[0].sin()[None] * torch.tensor([[1.0], [0.1]]).double()
    with pytest.raises(
        SolutionError, match=r"1 of 2 samples are not resolved \(0; sample 0 by time 2\).*about 97"
    ) as e:
        integrate(Burgers(0.005), u, CIRCLE, [0.5, 2.0], step=0.01)
    assert e.value.status.tolist() == [2, 0]
    assert torch.isfinite(e.value.solution[0, 0]).all()
    assert torch.isnan(e.value.solution[0, 1]).all()
    assert torch.isfinite(e.value.solution[1]).all()
    grid = Grid.periodic(512, length=2 * math.pi)
    integrate(Burgers(0.005), grid.points()[0].sin()[None], grid, 2.0, step=0.01)


class WrongShape(AllenCahn):
    def nonlinear(self, u, space):
        return (u**3)[..., :-1]


class WrongSymbol(AllenCahn):
    def symbol(self, eigenvalues):
        return eigenvalues[..., :-1]


class Stiff(AllenCahn):
    def nonlinear(self, u, space):
        return -20.0 * u**3


@pytest.mark.parametrize(
    ("equation", "initial", "grid", "options", "message"),
    [
        (KdV(1.0), smooth(WALLS), WALLS, {}, "no symbol on axes with walls.*needs periodic axes"),
        (KdV(1.0), smooth(SQUARE), SQUARE, {}, "KdV lives on one axis, the grid has 2"),
        (Burgers(0.1), smooth(ENDS), ENDS, {}, "flux through walls belongs to another basis"),
        (KuramotoSivashinsky(), smooth(BALL), BALL, {}, "on a sphere is a wind"),
        (AllenCahn(-1.0), smooth(CIRCLE), CIRCLE, {}, "not well-posed: its mode with the wavenumber 15"),
        (WrongShape(0.1), smooth(CIRCLE), CIRCLE, {}, r"returned \(2, 47\); it must return \(2, 48\)"),
        (WrongSymbol(0.1), smooth(CIRCLE), CIRCLE, {}, r"needs the shape \(16,\) for 1 channels here"),
        (Stiff(0.1), smooth(CIRCLE) * 3, CIRCLE, {"step": 0.25}, r"no sample stays finite; use step <= "),
        (AllenCahn(0.1), torch.randn(2, 48), CIRCLE, {}, r"beyond the lowest two thirds .* on 73 nodes"),
        (AllenCahn(0.1), smooth(CIRCLE)[0], CIRCLE, {}, r"fields of shape \(batch, 48\), got \(48,\)"),
        (GrayScott(1, 1), smooth(CIRCLE), CIRCLE, {}, r"shape \(batch, 2, 48\), got \(2, 48\)"),
        (AllenCahn(0.1), smooth(CIRCLE) * math.nan, CIRCLE, {}, "not finite"),
        (AllenCahn(0.1), smooth(CIRCLE), CIRCLE, {"step": 0.0}, "time step must be positive"),
        (AllenCahn(0.1), smooth(CIRCLE), CIRCLE, {"order": 3}, "steps are of order 2 or 4, got order=3"),
        (VectorBurgers(0.1, ("x",)), smooth(SQUARE, 1), SQUARE, {}, r"along x, and the grid the axes y, x"),
        (KolmogorovFlow(0.1), smooth(CIRCLE), CIRCLE, {}, "vorticity on two axes, the grid has 1"),
        (KolmogorovFlow(0.1), smooth(BALL), BALL, {}, "on two periodic axes; use BarotropicVorticity"),
        (KolmogorovFlow(0.1), smooth(MIXED), MIXED, {}, "passes through walls here"),
        (BarotropicVorticity(1.0), smooth(SQUARE), SQUARE, {}, "lives on a SphereGrid"),
        (AdvectionDiffusion((1.0,)), smooth(SQUARE), SQUARE, {}, "has 1 parts, and the grid 2 axes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(equation, initial, grid, options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        integrate(equation, initial, grid, 1.0, **options)
