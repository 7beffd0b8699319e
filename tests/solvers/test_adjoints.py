"""Adjoints of time steps against what torch records of the same steps, differences and known derivatives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sobolev.solvers import (
    AllenCahn,
    Burgers,
    Grid,
    KleinGordon,
    NavierStokes,
    Schroedinger,
    Semilinear,
    ShallowWater,
    integrate,
)
from sobolev.solvers.adjoints import ByAutograd, advanced
from sobolev.solvers.integrators import ETDRK4, CoupledETDRK4

CIRCLE = Grid.periodic(16, length=2 * math.pi)
TORUS = Grid.periodic(12, 12, length=2 * math.pi)
WAVE = torch.sin(CIRCLE.points()[0])[None]


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def low(u: Tensor) -> Tensor:
    """Fields of the lowest modes of the torus, without a mean."""
    eigenvalues = TORUS.eigenvalues()
    return TORUS.from_modes(TORUS.to_modes(u) * ((eigenvalues > 0) & (eigenvalues < 2.5)))


def eddies(count: int = 1) -> Tensor:
    torch.manual_seed(0)
    return 0.3 * low(torch.randn(count, 12, 12, dtype=torch.float64))


@pytest.fixture
def recorded(monkeypatch):
    """Make the solvers step under torch's eyes, without adjoints."""

    def every_step(stepper, v, count):
        for _ in range(count):
            v = stepper.step(v)
        return v

    def switched_on() -> None:
        for module in (
            "evolution", "equations.burgers", "navier_stokes.flow", "shallow_water.equation",
        ):  # fmt: skip
            monkeypatch.setattr(f"sobolev.solvers.{module}.advanced", every_step)

    return switched_on


def stepper(kind: str, symbol: Tensor, rate: Tensor) -> ETDRK4 | CoupledETDRK4:
    term = ByAutograd(lambda v: rate * v**2 * v.conj() + 0.1, (rate,))
    if kind == "coupled":
        return CoupledETDRK4(symbol, term, 0.1)
    return ETDRK4(symbol, term, 0.1, real_modes=kind == "real modes")


@pytest.mark.parametrize("kind", ["real symbol", "complex symbol", "real modes", "coupled"])
def test_the_adjoint_is_the_transpose_of_the_steps(kind):
    torch.manual_seed(0)
    shape = (2, 2, 5) if kind == "coupled" else (5,)
    complex_symbol = kind in ("complex symbol", "coupled")
    symbol = torch.randn(shape, dtype=torch.complex128 if complex_symbol else torch.float64)
    modes = torch.float64 if kind == "real modes" else torch.complex128
    v = (0.5 * torch.randn(3, 2, 5, dtype=modes)).requires_grad_()
    symbol.requires_grad_()
    rate = number(-0.7)
    steps = stepper(kind, symbol, rate)
    weight = torch.randn_like(v)
    ends = [advanced(steps, v, 6), v]
    for _ in range(6):
        ends[1] = steps.step(ends[1])
    assert torch.equal(*ends)
    found, expected = (
        torch.autograd.grad((end * weight).sum().abs(), (v, symbol, rate), retain_graph=True)
        for end in ends
    )
    for gradient, oracle in zip(found, expected, strict=True):
        assert (gradient - oracle).norm() < 1e-13 * oracle.norm()


def test_coefficients_have_the_derivatives_of_their_series():
    """At L = 0, with φ_j(x) = Σ xⁿ/(n + j)!: Q = ½ h φ₁(½ h L), f1 = h (φ₁ − 3φ₂ + 4φ₃), f2 = h (2φ₂ − 4φ₃) and
    f3 = h (4φ₃ − φ₂)."""
    symbol, h = torch.zeros(1, dtype=torch.float64, requires_grad=True), 0.3
    first = (h**2 / 8, h**2 / 6, h**2 / 6, 0.0)
    second = (h**3 / 24, h**3 * 0.15, h**3 / 10, -(h**3) / 60)
    for c, slope, bend in zip(
        ETDRK4(symbol, lambda v: v, h, real_modes=True).coefficients[2:], first, second, strict=True
    ):
        (found,) = torch.autograd.grad(c.sum(), symbol, create_graph=True)
        assert found.item() == pytest.approx(slope, abs=1e-14)
        (again,) = torch.autograd.grad(found.sum(), symbol)
        assert again.item() == pytest.approx(bend, abs=1e-14)


@pytest.mark.parametrize("beta", [None, 0.5], ids=["real symbol", "complex symbol"])
def test_the_adjoint_of_a_flow_is_what_torch_records(beta, recorded):
    """Many steps, several frames, and a forcing that all samples share."""
    w, force = eddies(2).requires_grad_(), (0.1 * eddies()[0]).requires_grad_()
    viscosity, drag = number(0.1), number(0.05)
    inputs = [w, force, viscosity, drag]
    if beta:
        inputs.append(number(beta))

    def gradients() -> tuple[Tensor, ...]:
        flow = NavierStokes(
            viscosity, low(force), drag=drag, beta=inputs[-1] if beta else 0.0, step=0.04
        )
        frames = flow.solve(low(w), TORUS, [0.3, 1.0])
        return torch.autograd.grad((frames**3 + frames).square().sum(), inputs)

    found = gradients()
    recorded()
    for gradient, oracle in zip(found, gradients(), strict=True):
        assert (gradient - oracle).norm() < 1e-11 * oracle.norm()


def test_gradients_have_gradients():
    flow = lambda w, v, b: NavierStokes(v, drag=v, beta=b, step=0.1).solve(low(w), TORUS, 0.2)  # noqa: E731
    torch.autograd.gradgradcheck(
        flow, (eddies().requires_grad_(), number(0.1), number(0.5)), fast_mode=True
    )
    torch.autograd.gradgradcheck(
        lambda u, d, r: integrate(AllenCahn(d, r), u, CIRCLE, 0.2, step=0.1),
        (WAVE.clone().requires_grad_(), number(0.1), number(0.7)),
        fast_mode=True,
    )


def test_coupled_equations_have_gradients_in_a_number_that_is_there_thrice():
    u = torch.cat([WAVE, 0.3 * WAVE])[None].requires_grad_()
    torch.autograd.gradcheck(
        lambda u, s: integrate(KleinGordon(s, s, s), u, CIRCLE, 0.3, step=0.1),
        (u, number(1.1)),
        fast_mode=True,
    )
    torch.autograd.gradcheck(
        lambda u: integrate(Schroedinger(), u, CIRCLE, 0.3, step=0.1), (u,), fast_mode=True
    )


class Learnt(Semilinear):
    """u_t = 0.1 u_xx + r tanh(w u + b), where the network and r lie deeper than its attributes."""

    def __init__(self, rate: Tensor) -> None:
        self.net = nn.Linear(1, 1).double()
        self.rates = [2 * rate]

    def symbol(self, eigenvalues):
        return -0.1 * eigenvalues

    def nonlinear(self, u, space):
        return self.rates[0] * self.net(u[..., None])[..., 0].tanh()


def test_tensors_deep_within_an_equation_are_found(recorded):
    torch.manual_seed(0)
    rate = number(0.3)
    equation = Learnt(rate)

    def gradients() -> tuple[Tensor, ...]:
        end = integrate(equation, WAVE, CIRCLE, 1.0, step=0.1)
        return torch.autograd.grad(end.square().sum(), (rate, *equation.net.parameters()))

    found = gradients()
    recorded()
    for gradient, oracle in zip(found, gradients(), strict=True):
        assert torch.allclose(gradient, oracle, rtol=1e-12, atol=0)


def states_kept(solve) -> float:
    """The tensors that wait for the backward pass, in fields of 64 × 64 or 1024 nodes."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        alive = solve()
    return sum(kept.values()) / alive.untyped_storage().nbytes()


def test_a_gradient_keeps_few_states():
    """Of 200 steps: the modes of every eighth, 43 × 22 complex numbers each."""
    grid = Grid.periodic(64, 64, length=2 * math.pi)
    w = TORUS.resample(eddies(), grid)
    w.requires_grad_()
    flow = NavierStokes(number(1e-2), step=0.005)
    assert states_kept(lambda: flow.solve(w, grid, 1.0)) < 25
    circle = Grid.periodic(1024, length=2 * math.pi)
    u = torch.sin(circle.points()[0])[None].requires_grad_()
    assert states_kept(lambda: Burgers(number(0.1), steps=200).solve(u, circle, 1.0)) < 25


@pytest.mark.parametrize(
    ("solve", "name"),
    [
        (lambda t: integrate(AllenCahn(0.1), WAVE, CIRCLE, t), "times"),
        (lambda t: integrate(AllenCahn(0.1), WAVE, CIRCLE, [0.1, t]), "times"),
        (lambda t: integrate(AllenCahn(0.1), WAVE, CIRCLE, 1.0, step=t), "step"),
        (lambda t: NavierStokes(0.1, step=t), "step"),
        (lambda t: NavierStokes(0.1, courant=t), "courant"),
        (lambda t: Burgers(0.1, courant=t), "courant"),
        (lambda t: ShallowWater(radius=t), "radius"),
        (lambda t: ShallowWater(tilt=t), "tilt"),
    ],
)
def test_gradients_that_would_be_cut_are_refused(solve, name, monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(ValueError, match=f"{name} wants gradients, and a solve has none in it"):
        solve(number(0.5))
