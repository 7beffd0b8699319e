"""ETDRK4 on an equation with an exact solution and a complex linear part."""

from __future__ import annotations

import cmath
import math

import pytest
import torch

from sobolev.solvers import ETDRK4


@pytest.mark.parametrize("eigenvalue", [-2.0, 3j, -1 + 2j], ids=str)
def test_fourth_order_for_real_and_complex_symbols(eigenvalue):
    """v' = λv − v² (Bernoulli): v = λ / (1 + (λ/v₀ − 1) e^{−λt})."""
    kind = torch.complex128
    symbol = torch.tensor(
        [eigenvalue], dtype=torch.float64 if isinstance(eigenvalue, float) else kind
    )
    start, end = 0.5 + 0.2j, 1.0
    truth = eigenvalue / (1 + (eigenvalue / start - 1) * cmath.exp(-eigenvalue * end))

    def error(steps: int) -> float:
        stepper = ETDRK4(symbol, lambda v: -(v**2), end / steps)
        v = torch.tensor([start], dtype=kind)
        for _ in range(steps):
            v = stepper.step(v)
        return abs(v.item() - truth)

    assert math.log2(error(20) / error(40)) == pytest.approx(4, abs=0.2)
    assert error(200) < 1e-9


def test_linear_part_is_exact_whatever_the_step():
    symbol = torch.tensor([-5.0, -500.0], dtype=torch.float64)
    stepper = ETDRK4(symbol, torch.zeros_like, 0.3)
    assert torch.allclose(
        stepper.step(torch.ones(2, dtype=torch.complex128)).real,
        torch.exp(0.3 * symbol),
        atol=1e-15,
    )
