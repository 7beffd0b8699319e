"""Moments that come in pieces agree with those of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from sobolev.grids.moments import Moments


@pytest.mark.parametrize("mean", [0.0, 1e9])
def test_merged_pieces_have_the_moments_of_the_whole(mean):
    """Beside a mean of 1e9, E[u²] − E[u]² would leave no digit of a variance of 1."""
    values = mean + np.random.default_rng(0).standard_normal(1000)
    pieces = np.split(values, [1, 10, 400, 400])
    merged = sum((Moments.of(piece) for piece in pieces), Moments.none())
    assert merged.count == 1000
    assert merged.mean == pytest.approx(values.mean(), rel=1e-15, abs=1e-15)
    assert merged.variance == pytest.approx(np.var(values - mean), rel=1e-6)


def test_moments_of_nothing_are_the_neutral_element():
    some = Moments.of(np.array([1.0, 4.0]))
    assert some + Moments.none() == some == Moments.none() + some
    assert Moments.of(np.array([])) == Moments.none()
    assert Moments.none().variance == 0


def test_float32_values_are_summed_in_float64():
    values = np.full(10**6, 0.1, dtype=np.float32)
    moments = Moments.of(values)
    assert moments.mean == pytest.approx(float(np.float32(0.1)), rel=1e-12)
    assert moments.variance < 1e-20


def test_arrays_are_merged_entry_by_entry():
    values = np.random.default_rng(1).standard_normal((6, 3))
    merged = Moments.none()
    for row in values:
        merged = merged + Moments(1, row, np.zeros(3))
    np.testing.assert_allclose(merged.mean, values.mean(axis=0))
    np.testing.assert_allclose(merged.variance, values.var(axis=0))
