"""Fields in whatever names and order a user has them: the same predictions, at the same places, in his own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from sobolev import Grid, SphereGrid, Surrogate
from sobolev.grids import Axis
from sobolev.grids.variables import Variable
from sobolev.operators import FNO, SFNO

HEAT = Variable("heat", "heat", "K")
SCALES = {"heat": (0.0, 1.0)}
SPHERE = SphereGrid(9, 16, "equiangular")  # with both poles


@pytest.fixture(scope="module")
def planet() -> Surrogate:
    torch.manual_seed(0)
    return Surrogate(
        SFNO(1, 1, grid=SPHERE, width=4, depth=2), SPHERE, [HEAT], [HEAT], SCALES
    ).eval()


@pytest.fixture(scope="module")
def plate() -> Surrogate:
    torch.manual_seed(0)
    grid = Grid.dirichlet(9, 12)
    fno = FNO(1, 1, modes=(3, 3), width=4, boundary="dirichlet")
    return Surrogate(fno, grid, [HEAT], [HEAT], SCALES).eval()


def weather() -> xr.Dataset:
    """Three fields of a globe, as sobolev stores them."""
    lat, lon = (np.degrees(x.numpy()) for x in SPHERE.points())
    values = np.random.default_rng(0).normal(size=(3, 9, 16))
    values[:, [0, -1]] = values[:, [0, -1], :1]
    coords = {
        "lat": ("lat", lat, {"units": "degrees_north"}),
        "lon": ("lon", lon, {"units": "degrees_east"}),
        "day": ("day", [4, 5, 6]),
    }
    return xr.Dataset({"heat": (("day", "lat", "lon"), values)}, coords)


def from_the_date_line(data: xr.Dataset) -> xr.Dataset:
    west = (data.lon + 180) % 360 - 180
    return data.assign_coords(lon=west.assign_attrs(data.lon.attrs)).sortby("lon")


def closed(data: xr.Dataset) -> xr.Dataset:
    """The first meridian once more at 360°."""
    end = data.isel(lon=[0])
    whole = xr.concat([data, end.assign_coords(lon=end.lon + 360)], "lon")
    return whole.assign_coords(lon=whole.lon.assign_attrs(data.lon.attrs))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.sortby("lat"),
        from_the_date_line,
        closed,
        lambda d: closed(d).rename(lat="latitude", lon="longitude").sortby("latitude"),
        lambda d: (
            from_the_date_line(d).rename(lat="phi", lon="theta").transpose("theta", "day", "phi")
        ),
    ],
    ids=["rising", "date line", "closed", "names", "units"],
)
def test_a_globe_comes_back_as_it_was_given(planet, change):
    given = change(weather())
    found, expected = planet.predict(given), change(planet.predict(weather()))
    xr.testing.assert_allclose(found.heat, expected.heat.transpose(*found.heat.dims), atol=1e-6)
    for dim in set(given.dims) - {"day"}:
        xr.testing.assert_allclose(found[dim].variable, given[dim].variable)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.sortby("y", ascending=False),
        lambda d: d.sortby(["x", "y"], ascending=False).transpose("x", "y"),
        lambda d: d.isel(x=slice(None, None, -1)),
    ],
)
def test_a_box_whose_coordinates_fall_comes_back_so(plate, change):
    y, x = (points.numpy() for points in plate.grid.points())
    data = xr.Dataset({"heat": (("y", "x"), np.add.outer(y**2, x))}, {"y": y, "x": x})
    found = plate.predict(change(data))
    xr.testing.assert_allclose(found.heat, change(plate.predict(data)).heat.transpose("y", "x"))
    assert found.x.values[0] == change(data).x.values[0]


def test_rollouts_come_back_as_they_were_given(planet):
    window = {"data": {"window": [1, 1, 1], "interval": 2.0, "time_units": "h"}}
    stepping = Surrogate(planet.operator, SPHERE, [HEAT], [HEAT], SCALES, window).eval()
    given = weather().expand_dims(time=[3.0]).transpose("day", "time", "lat", "lon")
    change = lambda d: from_the_date_line(d.sortby("lat")).rename(lon="longitude")  # noqa: E731
    found, expected = stepping.rollout(change(given), 3), change(stepping.rollout(given, 3))
    np.testing.assert_allclose(found.time, [5.0, 7.0, 9.0])
    xr.testing.assert_allclose(found.heat, expected.heat, atol=1e-6)
    xr.testing.assert_allclose(found.heat_drift, expected.heat_drift, atol=1e-6)


def test_other_resolutions_come_in_the_grid_s_order_under_the_given_names(planet):
    given = weather().rename(lat="latitude", lon="longitude").sortby("latitude")
    found = planet.predict(given, resolution=(5, 8))
    assert found.heat.dims == ("day", "latitude", "longitude")
    expected = planet.predict(weather(), resolution=(5, 8))
    np.testing.assert_allclose(found.heat, expected.heat, atol=1e-6)
    assert found.latitude[0] == 90.0


def test_names_made_into_words_are_known_by_the_user_s_own(plate):
    """store_fields calls "x [m]" x__m_, as a name of an axis has to be a word."""
    grid = Grid(Axis("x__m_", 9, boundary="dirichlet"), Axis("x", 12, boundary="dirichlet"))
    surrogate = Surrogate(plate.operator, grid, [HEAT], [HEAT], SCALES).eval()
    nodes = [points.numpy() for points in grid.points()]
    data = xr.Dataset(
        {"heat": (("x [m]", "x"), np.ones((9, 12)))}, {"x [m]": nodes[0], "x": nodes[1]}
    )
    assert surrogate.predict(data).heat.dims == ("x [m]", "x")
