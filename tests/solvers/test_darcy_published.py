"""The released discretisation against its statement, term by term, and against the nodal solve."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.interpolate import CubicSpline

from sobolev import GaussianRandomField, Grid
from sobolev.solvers import Darcy
from sobolev.solvers.elliptic.darcy_published import EllipticityWarning, PublishedDarcy


def centres(n: int) -> np.ndarray:
    return (2 * np.arange(n) + 1) / (2 * n)


def two_phase(n: int, count: int, low: float = 3.0) -> torch.Tensor:
    psi = GaussianRandomField(Grid.neumann(n, n), 2.0, 3.0).sample(count, seed=1)
    return torch.where(psi >= 0, 12.0, low).double()


def smooth(n: int) -> torch.Tensor:
    """A permeability without any symmetry."""
    y, x = torch.from_numpy(centres(n))[:, None], torch.from_numpy(centres(n))
    return (2 + torch.sin(2 * x + 1) * torch.cos(3 * y) + x)[None]


def splined(u: np.ndarray, here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """MATLAB's interp2(…, 'spline'): not-a-knot along one axis, then the other, beyond the ends too.

    (RectBivariateSpline clamps its argument to the data and is constant beyond them.)
    """
    return CubicSpline(here, CubicSpline(here, u, axis=0)(there), axis=1)(there)


def as_in_matlab(a: np.ndarray) -> np.ndarray:
    """The published algorithm written down node by node, with another implementation of the spline."""
    K, x, nodes = len(a), centres(len(a)), np.linspace(0, 1, len(a))
    a = splined(a, x, nodes)
    number = -np.ones((K, K), dtype=int)
    number[1:-1, 1:-1] = np.arange((K - 2) ** 2).reshape(K - 2, K - 2)
    matrix = scipy.sparse.lil_matrix(((K - 2) ** 2, (K - 2) ** 2))
    for i in range(1, K - 1):
        for j in range(1, K - 1):
            for k, l in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                face = (a[i, j] + a[k, l]) / 2 * (K - 1) ** 2
                matrix[number[i, j], number[i, j]] += face
                if number[k, l] >= 0:
                    matrix[number[i, j], number[k, l]] -= face
    inside = np.linalg.solve(matrix.toarray(), np.ones((K - 2) ** 2))
    u = np.pad(inside.reshape(K - 2, K - 2), 1)
    return splined(u, nodes, x)


@pytest.mark.filterwarnings("ignore::sobolev.solvers.elliptic.darcy_published.EllipticityWarning")
@pytest.mark.parametrize("medium", [smooth, lambda n: two_phase(n, 1)], ids=["smooth", "two-phase"])
def test_is_the_published_algorithm(medium):
    a = medium(17)
    u = PublishedDarcy().solve(a)[0].numpy()
    truth = as_in_matlab(a[0].numpy())
    assert np.linalg.norm(u - truth) < 1e-10 * np.linalg.norm(truth)


def test_splines_reproduce_cubics_even_half_a_cell_beyond_the_data():
    x, nodes = torch.from_numpy(centres(9)), torch.linspace(0, 1, 9, dtype=torch.float64)

    def cubic(y, x):
        return (1 + x - 3 * x**2 + 2 * x**3) * (2 - y**3)

    assert torch.allclose(
        PublishedDarcy.on_nodes(cubic(x[:, None], x)[None])[0],
        cubic(nodes[:, None], nodes),
        atol=1e-13,
    )


def test_second_order_for_a_smooth_solution():
    """u = sin(πx) sin(2πy), a = 1 + x y/2, f = −∇·(a∇u) by hand."""

    def error(n: int) -> float:
        y, x = torch.from_numpy(centres(n))[:, None], torch.from_numpy(centres(n))
        pi = math.pi
        a, u = 1 + x * y / 2, torch.sin(pi * x) * torch.sin(2 * pi * y)
        ux = pi * torch.cos(pi * x) * torch.sin(2 * pi * y)
        uy = 2 * pi * torch.sin(pi * x) * torch.cos(2 * pi * y)
        f = -(y / 2 * ux + x / 2 * uy) + a * 5 * pi**2 * u
        solved = PublishedDarcy().solve(a[None], f[None])[0]
        return ((solved - u).norm() / u.norm()).item()

    assert math.log2(error(17) / error(33)) == pytest.approx(2, abs=0.15)
    assert math.log2(error(33) / error(65)) == pytest.approx(2, abs=0.1)


def test_the_pressure_is_aligned_with_the_permeability():
    """The release transposes twice; a single transposition would turn rows into columns."""
    a = torch.ones(1, 32, 32, dtype=torch.float64)
    a[:, :, :16] = 1.5  # the right half is less permeable, so its pressure is higher
    u = PublishedDarcy().solve(a)[0]
    assert u[:, 16:].mean() > 1.1 * u[:, :16].mean()
    assert u[16:].mean().item() == pytest.approx(u[:16].mean().item(), rel=1e-10)


@pytest.mark.parametrize(("low", "least"), [(3.0, 7), (0.6, 8)])
def test_two_phase_media_lose_ellipticity_and_it_is_told(low, least):
    a = two_phase(141, 8, low)
    bad = int((PublishedDarcy.on_nodes(a).amin(dim=(1, 2)) <= 0).sum())
    assert bad >= least
    with pytest.warns(EllipticityWarning, match="1 of 2 permeabilities are not positive"):
        PublishedDarcy().solve(torch.cat([smooth(33), two_phase(33, 1, low)]))


def test_a_smooth_medium_is_solved_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PublishedDarcy().solve(smooth(33))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sobolev.solvers.elliptic.darcy_published.EllipticityWarning")
def test_a_nodal_solve_of_the_same_array_differs_by_half_a_percent():
    a = two_phase(421, 2)
    published, nodal = PublishedDarcy().solve(a), Darcy().solve(a, Grid.dirichlet(421, 421))
    apart = (published - nodal).flatten(1).norm(dim=1) / nodal.flatten(1).norm(dim=1)
    assert apart.min() > 0.003
    assert apart.max() < 0.007
    assert published[:, 0].abs().min() > 0  # not zero on the border of the array
    assert published[:, 0].abs().max() < 3e-4


def test_dtype_device_batch_and_forcing():
    a = torch.cat([smooth(20), smooth(20).flip(1)])
    both = PublishedDarcy().solve(a, 2.0)
    assert torch.allclose(both[1], 2 * PublishedDarcy().solve(a[1:])[0], rtol=1e-12)
    single = PublishedDarcy().solve(a.float(), torch.full((20, 20), 2.0))
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), both, rtol=1e-5)
    with torch.device("meta"):
        assert torch.equal(PublishedDarcy().solve(a, 2.0), both)


@pytest.mark.parametrize(
    ("a", "message"),
    [
        (torch.ones(8, 8), r"shape \(batch, K, K\) on at least 4 x 4 cells, got \(8, 8\)"),
        (torch.ones(1, 8, 9), r"got \(1, 8, 9\)"),
        (torch.ones(1, 3, 3), r"got \(1, 3, 3\)"),
        (-torch.ones(1, 8, 8), "positive and finite on every cell"),
        (torch.ones(1, 8, 8, dtype=torch.float16), "float32 or float64 tensor, got torch.float16"),
    ],
)
def test_bad_permeability_is_refused(a, message):
    with pytest.raises(ValueError, match=message):
        PublishedDarcy().solve(a)


def test_a_forcing_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3, 8, 8\) does not broadcast"):
        PublishedDarcy().solve(torch.ones(1, 8, 8), torch.ones(3, 8, 8))
