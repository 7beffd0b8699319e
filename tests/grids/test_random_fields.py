"""Covariance and reproducibility of the Gaussian random fields."""

from __future__ import annotations

import math

import pytest
import torch

from sobolev import GaussianRandomField, Grid


@pytest.mark.slow
@pytest.mark.parametrize("grid", [Grid.periodic(16), Grid.dirichlet(17), Grid.neumann(16)], ids=str)
def test_covariance_is_the_inverse_power_of_the_shifted_laplacian(grid):
    count, alpha, tau, sigma = 20_000, 1.5, 3.0, 2.0
    u = GaussianRandomField(grid, alpha, tau, sigma, zero_mean=False).sample(count)
    empirical = u.T @ u / count
    axis = grid.axes[0]
    basis = axis.basis(axis.points())
    if axis.boundary == "periodic":  # on the nodes the Nyquist cosine is one mode, not half of one
        assert basis[axis.size // 2].square().sum() * axis.spacing == pytest.approx(1.0)
    exact = basis.T @ torch.diag(sigma**2 * (grid.eigenvalues() + tau**2) ** -alpha) @ basis
    assert (empirical - exact).abs().max() < 4 * exact.abs().max() * math.sqrt(2 / count)


@pytest.mark.slow
def test_published_fields_have_their_pointwise_deviation():
    burgers = GaussianRandomField(Grid.periodic(1024, length=2 * math.pi), 2.0, 5.0, 25.0).sample(
        400
    )
    assert burgers.std().item() == pytest.approx(1.04, rel=0.02)
    assert burgers.mean(dim=1).abs().max() < 1e-12
    darcy = GaussianRandomField(Grid.neumann(64, 64), 2.0, 3.0, 3.0).sample(2000)
    assert darcy.std().item() == pytest.approx(0.292, rel=0.02)


def test_a_sample_depends_on_seed_and_number_alone():
    field = GaussianRandomField(Grid.periodic(8, 9), 2.0, 3.0)
    few, many = field.sample(2, seed=7), field.sample(5, seed=7)
    assert torch.equal(few, many[:2])
    assert not torch.equal(field.sample(2, seed=8), few)
    assert many.dtype == torch.float64
    assert field.sample(0).shape == (0, 8, 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau": -1.0}, "tau >= 0"),
        ({"tau": 1.0, "sigma": 0.0}, "sigma > 0"),
        ({"tau": 0.0, "zero_mean": False}, "infinite variance"),
    ],
)
def test_bad_parameters_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianRandomField(Grid.periodic(8), 2.0, **arguments)


def test_bad_seeds_are_refused():
    with pytest.raises(ValueError, match="a seed is a whole number"):
        GaussianRandomField(Grid.periodic(8), 2.0, 1.0).sample(1, seed=-1)
