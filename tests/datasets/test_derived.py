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


@pytest.fixture(scope="module")
def planet(tmp_path_factory):
    recipe = ShallowWaterRecipe(hours=1, solver_resolution=16, stored_resolution=16)
    path = generate(recipe, tmp_path_factory.mktemp("swe") / "d", {"test": 2}, progress=False)
    return open_dataset(path, "test").load()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.transpose("x", "time", "sample", "y"),
        lambda d: d.sortby("y", ascending=False),
        lambda d: d.roll(x=5, roll_coords=True),
        lambda d: d.sortby(["x", "y"], ascending=False).transpose("sample", "x", "time", "y"),
    ],
    ids=["dimensions", "descending", "rolled", "both"],
)
def test_the_order_of_dimensions_and_nodes_does_not_matter(flow_data, change):
    data = open_dataset(flow_data).isel(sample=[0, 3], time=[1, 2]).load()
    right = diagnostics(data)
    found = diagnostics(change(data))
    assert found.velocity_x.dims == change(data).vorticity.dims
    for name in ("velocity_x", "velocity_y", "stream_function"):
        back = found[name].transpose(*right[name].dims).sortby(["y", "x"])
        np.testing.assert_allclose(back, right[name], rtol=1e-6, atol=1e-7)
        assert back.x.equals(right.x)


def test_a_sphere_from_south_to_north_and_a_variable_of_other_order(planet):
    right = diagnostics(planet)
    northward = planet.sortby("lat")
    northward["divergence"] = northward.divergence.transpose("time", "lon", "sample", "lat")
    found = diagnostics(northward)
    for name in ("eastward_wind", "northward_wind", "depth"):
        back = found[name].sortby("lat", ascending=False)
        np.testing.assert_allclose(back, right[name], rtol=1e-6)


def test_integers_give_floats(flow_data):
    data = open_dataset(flow_data).isel(sample=[0], time=[2]).load()
    whole = data.assign(vorticity=(1000 * data.vorticity).round().astype("int16"))
    found = diagnostics(whole).velocity_x
    right = diagnostics(data).velocity_x
    assert found.dtype == np.float32
    np.testing.assert_allclose(found / 1000, right, atol=2e-3 * float(np.abs(right).max()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.isel(x=slice(0, 8)), "the 8 nodes of 'x' run from 0 to 0.4375; expected"),
        (lambda d: d.isel(x=3), "the dimension 'x'"),
        (lambda d: d.drop_vars("y"), "no coordinate 'y'"),
        (lambda d: d.drop_vars("vorticity"), "diagnostics need vorticity, which the dataset lacks"),
        (lambda d: d.astype(complex), "vorticity has dtype complex128; expected real numbers"),
        (
            lambda d: d.assign(vorticity=d.vorticity.assign_attrs(units="s-1")),
            "vorticity is in units 's-1'; expected '1'",
        ),
    ],
)
def test_what_is_no_whole_field_is_refused_by_name(flow_data, change, message):
    data = open_dataset(flow_data).isel(sample=[0], time=[0]).load()
    with pytest.raises(ValueError, match=message):
        diagnostics(change(data))


def test_variables_of_other_samples_are_refused(planet):
    with pytest.raises(ValueError, match=r"divergence has dimensions .*expected sample, time, lat"):
        diagnostics(planet.assign(divergence=planet.divergence.isel(time=0, drop=True)))
