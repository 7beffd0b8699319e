"""Diagnostic fields have the stored ones as their curl, and units."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sobolev.datasets import ShallowWaterRecipe, diagnostics, generate, open_dataset
from sobolev.grids.spherical_vectors import vorticity_and_divergence
from sobolev.solvers import Grid, SphereGrid


def test_the_curl_of_the_velocity_is_the_vorticity(flow_data):
    data = open_dataset(flow_data).isel(sample=[0, 3], time=[2])
    found = diagnostics(data)
    assert found.velocity_x.dims == data.vorticity.dims
    u, v = (torch.from_numpy(found[n].values).double() for n in ("velocity_x", "velocity_y"))
    grid = Grid.periodic(16, 16)
    k = 2j * np.pi * np.fft.fftfreq(16, 1 / 16)
    curl = np.fft.ifft2(k * np.fft.fft2(v) - k[:, None] * np.fft.fft2(u)).real
    np.testing.assert_allclose(curl, data.vorticity.values, atol=1e-4 * np.abs(curl).max())
    assert grid.shape == (16, 16)


@pytest.mark.slow
def test_the_wind_has_the_state_s_vorticity_and_divergence(tmp_path):
    recipe = ShallowWaterRecipe(
        hours=1, solver_resolution=32, stored_resolution=32, scale=4.0, smoothness=8.0
    )
    path = generate(recipe, tmp_path / "d", {"train": 2}, dtype="float64", progress=False)
    data = open_dataset(path)
    found = diagnostics(data)
    assert (found.eastward_wind.units, found.depth.units) == ("m s-1", "m")
    np.testing.assert_allclose(found.depth * 9.80616, data.geopotential, rtol=1e-12)
    wind = torch.stack(
        [torch.from_numpy(found[n].values) for n in ("eastward_wind", "northward_wind")], dim=-3
    )
    vorticity, divergence = vorticity_and_divergence(wind, SphereGrid(32, 64, radius=6.37122e6))
    np.testing.assert_allclose(vorticity, data.vorticity, atol=1e-14)
    np.testing.assert_allclose(divergence, data.divergence, atol=1e-14)


def test_nothing_follows_from_other_data(burgers_data, flow_data):
    with pytest.raises(ValueError, match="these have the recipe 'BurgersRecipe'"):
        diagnostics(open_dataset(burgers_data))
    with pytest.raises(ValueError, match="whole fields"):
        diagnostics(open_dataset(flow_data).isel(x=slice(0, 8)))
