"""Metrics against their original definitions, written out on fixed arrays."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from sobolev import Grid, SphereGrid, energy_spectrum
from sobolev.training import RelativeError, SampleMean
from sobolev.training import metrics as m


def pair(*shape):
    return torch.randn(*shape, dtype=torch.float64), torch.randn(*shape, dtype=torch.float64)


def test_metric_weighs_samples_not_batches():
    grid = Grid.periodic(16)
    p, y = torch.randn(7, 1, 16), torch.randn(7, 1, 16)
    metric = RelativeError(grid)
    for part in (slice(0, 5), slice(5, 7)):
        metric.update(p[part], y[part])
    p, y = p.double(), y.double()
    expected = ((p - y).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1)).mean()
    assert metric.compute().item() == pytest.approx(expected.item(), rel=1e-12)
    assert metric.compute().dtype == torch.float64


def test_nrmse_is_pdebenchs():
    """sqrt(mean over space of the squared error) over sqrt(mean of the squared target), per sample and
    channel, then the mean of all (metrics.py of PDEBench)."""
    p, y = pair(5, 3, 12, 8)
    a, b = p.numpy().reshape(5, 3, -1), y.numpy().reshape(5, 3, -1)
    expected = (np.sqrt(((a - b) ** 2).mean(-1)) / np.sqrt((b**2).mean(-1))).mean()
    assert m.nrmse(p, y, Grid.periodic(12, 8)).mean().item() == pytest.approx(expected, rel=1e-12)


def test_vrmse_is_the_wells_but_for_its_epsilon_and_degree_of_freedom():
    p, y = pair(5, 3, 12, 8)
    n = 96
    spread = y.flatten(2).std(-1).square() * (n - 1) / n
    expected = ((p - y).flatten(2).square().mean(-1) / spread).sqrt().mean()
    assert m.vrmse(p, y, Grid.periodic(12, 8)).mean().item() == pytest.approx(
        expected.item(), rel=1e-12
    )


@pytest.mark.parametrize(
    "grid", [Grid.periodic(9, 8), Grid.neumann(7), SphereGrid(16, 32)], ids=str
)
def test_predicting_the_mean_scores_one(grid):
    y = torch.randn(2, 1, *grid.shape, dtype=torch.float64)
    weights = grid.quadrature()
    mean = (y * weights).sum(tuple(range(-grid.ndim, 0)), keepdim=True) / weights.sum()
    assert torch.allclose(m.vrmse(mean.expand_as(y), y, grid), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("grid", [Grid.periodic(16, 12, length=3.0), Grid.neumann(9, 14)], ids=str)
def test_bins_sum_to_the_mean_square_error(grid):
    p, y = pair(3, 2, *grid.shape)
    expected = (p - y).square().mean((1, 2, 3))
    assert torch.allclose(m.binned_error(p, y, grid).sum(-1), expected, rtol=1e-12)


def test_a_single_mode_falls_into_its_bin():
    grid = Grid.periodic(16)
    y = torch.zeros(1, 1, 16, dtype=torch.float64)
    p = 0.2 * torch.cos(6 * torch.pi * grid.points()[0])[None, None]
    bins = m.binned_error(p, y, grid)[0]
    assert bins[3].item() == pytest.approx(0.02)
    assert bins.sum().item() == pytest.approx(0.02)


def test_spectrum_error_counts_decades_and_no_phases():
    grid = Grid.periodic(32)
    y = torch.randn(2, 1, 32, dtype=torch.float64)
    assert torch.allclose(
        m.spectrum_error(10 * y.roll(5, -1), y, grid), torch.full((2,), 2.0).double()
    )


def test_spectrum_error_does_not_count_shells_without_energy():
    grid = Grid.periodic(32)
    y = torch.cos(2 * torch.pi * grid.points()[0])[None, None]
    assert m.spectrum_error(y, y, grid).item() == 0.0
    assert energy_spectrum(y, grid)[1].gt(1e-20).sum() == 1


def test_integral_error_is_the_drift_of_the_integral():
    for grid, volume in (
        (Grid.dirichlet(9, 5, length=2.0), 4.0),
        (SphereGrid(8, 16, radius=2.0), 16 * np.pi),
    ):
        y = torch.randn(2, 3, *grid.shape, dtype=torch.float64)
        drift = m.integral_error(y - 0.25, y, grid)
        assert torch.allclose(drift, torch.full((2, 3), 0.25 * volume, dtype=torch.float64))


def test_correlation_is_numpys_and_its_time_ends_at_the_first_loss():
    grid = Grid.periodic(64)
    x = 2 * torch.pi * grid.points()[0]
    phases = torch.tensor([0.1, 0.5, 0.7, 0.2])  # correlations are their cosines; cos 0.7 < 0.8
    y = torch.sin(x).expand(1, 4, -1)
    p = torch.stack([torch.sin(x + a) for a in phases.double()])[None]
    r = m.correlation(p, y, grid)[0]
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(p[0].numpy(), y[0].numpy(), strict=True)]
    assert np.allclose(r.numpy(), expected)
    assert np.allclose(r.numpy(), phases.cos().numpy())
    assert m.correlation_time(p, y, grid, interval=0.5).tolist() == [1.0]
    assert m.correlation_time(p, y, grid, threshold=0.1).tolist() == [4.0]


def test_largest_error():
    y = torch.zeros(2, 1, 8, dtype=torch.float64)
    p = y.clone()
    p[1, 0, 3] = -0.7
    assert m.max_error(p, y, Grid.periodic(8)).tolist() == [0.0, 0.7]


def test_vector_valued_metrics_keep_their_bins():
    grid = Grid.periodic(16)
    p, y = pair(5, 1, 16)
    metric = SampleMean(m.binned_error, grid, size=9)
    metric.update(p[:3], y[:3])
    metric.update(p[3:], y[3:])
    assert torch.allclose(metric.compute(), m.binned_error(p, y, grid).mean(0))


def test_options_are_bound_by_partial():
    metric = SampleMean(partial(m.correlation_time, interval=2.0), Grid.periodic(16))
    y = torch.randn(2, 3, 16)
    metric.update(y, y)
    assert metric.compute().item() == 6.0


def test_samples_without_a_value_are_left_out_and_lost_predictions_are_not():
    """Nothing is relative to a true field of zero; a prediction of NaN has an infinite error."""
    grid = Grid.periodic(16)
    p, y = pair(5, 2, 16)
    others = [0, 2, 3, 4]
    y[1] = 0.0
    for function in (m.nrmse, m.vrmse, m.spectrum_error, m.relative_error):
        values = function(p, y, grid)
        assert values.isnan().tolist() == [False, True, False, False, False]
        metric = SampleMean(function, grid)
        metric.update(p[:2], y[:2])
        metric.update(p[2:], y[2:])
        assert metric.compute().item() == pytest.approx(values[others].mean().item(), rel=1e-12)
    nothing = RelativeError(grid)
    nothing.update(p[1:2], y[1:2])
    assert nothing.compute().isnan()
    p[3, 0, 0] = torch.nan
    for function in (m.nrmse, m.vrmse, m.spectrum_error, m.relative_error, m.max_error):
        assert function(p, y, grid)[3] == torch.inf
    metric = SampleMean(m.integral_error, grid, size=2)
    metric.update(p, y)
    assert metric.compute().isnan().tolist() == [True, False]
    p[1, 0, 0] = torch.inf
    assert m.relative_error(p, y, grid)[1] == torch.inf


def test_channels_without_a_size_do_not_count():
    grid = Grid.neumann(9)
    p, y = pair(3, 2, 9)
    y[0, 1] = 0.0
    assert torch.allclose(m.nrmse(p, y, grid)[0], m.nrmse(p[:, :1], y[:, :1], grid)[0])
    y[0, 1] = 0.1  # a constant, whose variance is zero but for rounding
    assert torch.allclose(m.vrmse(p, y, grid)[0], m.vrmse(p[:, :1], y[:, :1], grid)[0])


def test_fields_that_do_not_fit_are_refused():
    metric, y = SampleMean(m.nrmse, Grid.periodic(16)), torch.ones(2, 3, 16)
    with pytest.raises(ValueError, match=r"must be \(batch, channels, 16\)"):
        metric.update(y[:1], y)
    with pytest.raises(ValueError, match=r"must be \(batch, channels, 16\)"):
        metric.update(y[..., :8], y[..., :8])
    with pytest.raises(ValueError, match=r"values of shape \(3,\).*SampleMean\(size"):
        SampleMean(m.correlation, Grid.periodic(16)).update(y, y)
