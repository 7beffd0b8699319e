"""Own data: fields of any xr.Dataset arrive at the nodes where they were, and what is not known is asked for."""

from __future__ import annotations

import datetime
import math

import jaxtyping
import numpy as np
import pytest
import xarray as xr

import sobolev.datasets.layouts.storing as storing
from sobolev import Surrogate
from sobolev.datasets import Manifest, OperatorDataModule, open_dataset, store_fields, verify
from sobolev.grids import Axis, Grid, SphereGrid
from sobolev.operators import FNO

X = np.arange(8) / 8
Y = np.arange(6) / 6
ALL = {"boundary": "periodic"}


def stored(dataset, path, **options):
    """Store, check, and open."""
    store_fields(dataset, path, progress=False, **options)
    assert verify(path) == []
    return Manifest.read(path), open_dataset(path).load()


def wave(x, y, run):
    """A function that tells every node and run apart."""
    return np.sin(2 * math.pi * x) + 3 * np.cos(2 * math.pi * y) * x + run


def box(**changes) -> xr.Dataset:
    """Inputs and outputs of 5 runs on (y, x)."""
    run = np.arange(5.0)
    values = wave(X[None, None], Y[None, :, None], run[:, None, None])
    coords = {"x": X, "y": Y, **changes}
    return xr.Dataset(
        {"kappa": (("run", "y", "x"), values), "head": (("run", "y", "x"), 2 * values)}, coords
    )


def assert_are_waves(found: xr.Dataset, name: str = "kappa", factor: float = 1.0) -> None:
    """Compare each value with the function at the coordinates that are stored beside it."""
    expected = factor * wave(found.x, found.y, xr.DataArray(np.arange(5.0), dims="sample"))
    np.testing.assert_allclose(found[name].transpose(*expected.dims), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda ds: ds,
        lambda ds: ds.transpose("x", "run", "y"),
        lambda ds: ds.isel(x=slice(None, None, -1)),
        lambda ds: ds.isel(y=slice(None, None, -1)).transpose("y", "x", "run"),
        lambda ds: ds.astype(">f8"),
        lambda ds: ds.chunk({"run": 2, "x": 3}),
    ],
    ids=["plain", "transposed", "x falls", "y falls", "big-endian", "chunks"],
)
def test_fields_are_where_their_coordinates_say(tmp_path, change):
    manifest, found = stored(change(box()), tmp_path / "d", inputs="kappa", outputs="head", **ALL)
    assert_are_waves(found)
    assert_are_waves(found, "head", 2.0)
    assert {axis.name: axis.size for axis in manifest.grid.axes} == {"x": 8, "y": 6}
    assert manifest.requested == {"train": 5}


def test_coordinates_keep_their_units_in_data_and_in_predictions(tmp_path):
    given = box()
    given.x.attrs["units"] = "km"
    manifest, found = stored(given, tmp_path / "d", inputs="kappa", outputs="head", **ALL)
    assert (found.x.attrs["units"], found.y.attrs["units"]) == ("km", "1")
    data = OperatorDataModule(str(tmp_path / "d"))
    fno = FNO(1, 1, modes=(2, 2), width=4)
    surrogate = Surrogate(fno, data.grid, data.inputs, data.outputs, data.statistics)
    loaded = Surrogate.load(surrogate.save(tmp_path / "s"))
    assert loaded.predict(given.isel(x=slice(None, None, -1))).x.attrs["units"] == "km"
    assert loaded.predict(given).x.attrs["units"] == "km"
    assert loaded.grid == manifest.grid == Manifest.read(str(tmp_path / "d")).grid


def test_numbers_of_samples_may_be_numpy_s(tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    splits = {"train": np.int64(3), "test": np.int64(2)}
    words = {**ALL, "splits": splits}
    manifest, _ = stored(box(), tmp_path / "d", inputs="kappa", outputs="head", **words)
    assert {k: manifest.count(k) for k in splits} == splits


def test_halves_packed_integers_and_fill_values(tmp_path):
    halves = box().astype(np.float16)
    manifest, found = stored(halves, tmp_path / "a", inputs="kappa", outputs="head", **ALL)
    assert manifest.dtype == "float32"
    np.testing.assert_array_equal(found.kappa, halves.kappa.astype("f4"))
    packed = box()
    integers = np.round(packed["head"].values / 0.01).astype(np.int16)
    integers[3, 0, 0] = -999
    attrs = {"scale_factor": 0.01, "_FillValue": np.int16(-999)}
    packed["head"] = (("run", "y", "x"), integers, attrs)
    store_fields(packed, tmp_path / "b", inputs="kappa", outputs="head", progress=False, **ALL)
    found = open_dataset(tmp_path / "b").load()
    assert found.status.values.tolist() == [0, 0, 0, 1, 0]  # the fill value is a gap
    np.testing.assert_allclose(found["head"][0], box()["head"][0], atol=0.006)


def test_a_complex_field_is_two(tmp_path):
    wave_function = np.exp(2j * math.pi * (X[None] + np.arange(3)[:, None] / 7))
    dataset = xr.Dataset(
        {"h": (("sample", "x"), wave_function), "v": (("sample", "x"), wave_function.real)},
        {"x": X},
    )
    _, found = stored(dataset, tmp_path / "d", inputs="v", outputs="h", **ALL)
    np.testing.assert_allclose(found.h_real + 1j * found.h_imag, wave_function, rtol=1e-6)
    assert found.h_imag.attrs["long_name"] == "imaginary part of h"


def test_members_and_starts_are_samples_one_after_another(tmp_path):
    start, member = np.arange(3.0), np.arange(2.0)
    values = 10 * start[:, None, None] + member[None, :, None] + np.sin(2 * math.pi * X)
    dataset = xr.Dataset(
        {
            "u": (("start", "member", "x"), values),
            "v": (("member", "x", "start"), -values.transpose(1, 2, 0)),
            "only": (("start", "x"), values[:, 0]),
        },
        {"x": X},
    )
    _, found = stored(
        dataset,
        tmp_path / "d",
        inputs=["u", "only"],
        outputs="v",
        sample=["start", "member"],
        **ALL,
    )
    np.testing.assert_allclose(found.u, values.reshape(6, 8), rtol=1e-6)
    np.testing.assert_allclose(found.v, -found.u)
    np.testing.assert_allclose(found.only, np.repeat(values[:, 0], 2, axis=0), rtol=1e-6)


def test_inputs_without_samples_profiles_and_other_nodes(tmp_path):
    coarse = (
        np.arange(5.0)[:, None, None] + np.cos(math.pi / 2 * np.arange(4)) + np.zeros((1, 3, 1))
    )
    dataset = box().assign(
        terrain=(("y", "x"), np.add.outer(Y, X)),
        profile=("y", Y**2),
        coarse=(("run", "b", "a"), coarse),
    ).assign_coords(a=np.arange(4) / 4, b=np.arange(3) / 3)  # fmt: skip
    _, found = stored(
        dataset, tmp_path / "d", inputs=["terrain", "profile", "coarse"], outputs="head", sample="run", **ALL
    )  # fmt: skip
    np.testing.assert_allclose(found.terrain[4], found.y + found.x, rtol=1e-6)
    np.testing.assert_allclose(found.profile[2], (found.y + 0 * found.x) ** 2, rtol=1e-6)
    expected = found.sample + np.cos(2 * math.pi * found.x) + 0 * found.y
    np.testing.assert_allclose(found.coarse, expected.transpose(*found.coarse.dims), atol=1e-6)


def test_trajectories_start_from_their_own_frames(tmp_path):
    hours = np.array([3.0, 9.0, 15.0])
    values = np.arange(2.0)[:, None, None] + hours[None, :, None] * np.sin(2 * math.pi * X)
    dataset = xr.Dataset(
        {"u": (("run", "when", "x"), values), "a": (("run", "x"), values[:, 0])},
        {
            "x": X,
            "when": ("when", hours, {"units": "hours since 1900-01-01", "calendar": "noleap"}),
        },
    )
    manifest, found = stored(dataset, tmp_path / "d", inputs="a", outputs="u", **ALL)
    assert (manifest.times, manifest.time_units) == ([0.0, 6.0, 12.0], "hours")
    np.testing.assert_allclose(found.u, values, rtol=1e-6)
    data = OperatorDataModule(tmp_path / "d", batch_size=2)
    assert [v.name for v in data.inputs] == ["a", "u"]
    with pytest.raises(ValueError, match="input 'u' moves along 'when'"):
        store_fields(dataset.assign(v=dataset.u), tmp_path / "e", inputs="u", outputs="v", **ALL)


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (np.array(["2001-01-01", "2001-01-31"], "datetime64[ns]"), ([0.0, 30.0], "days")),
        (np.array(["2001-01-01T00:00", "2001-01-01T00:30"], "datetime64[s]"), ([0.0, 30.0], "minutes")),
        # cftime's dates are such objects
        ([datetime.datetime(1, 2, 1), datetime.datetime(1, 2, 1, 6)], ([0.0, 6.0], "hours")),
        (np.array([0.25, 0.5]), ([0.25, 0.5], "1")),
    ],
    ids=["days", "minutes", "objects", "numbers"],
)  # fmt: skip
def test_times_are_read_from_dates_of_any_calendar(tmp_path, dates, expected):
    coordinate = xr.Variable(
        "time", np.array(dates, dtype=object if isinstance(dates, list) else None)
    )
    dataset = xr.Dataset(
        {"u": (("time", "x"), np.sin(X) + np.ones((2, 1)))}, {"x": X, "time": coordinate}
    )
    manifest, _ = stored(dataset, tmp_path / "d", outputs="u", **ALL)
    assert (manifest.times, manifest.time_units) == expected


def forecasts() -> xr.Dataset:
    """Two members of forecasts from three starts, six hours apart."""
    values = np.arange(3.0)[:, None, None, None] + np.arange(2.0)[:, None, None] / 7
    values = values + np.arange(4.0)[:, None] * np.sin(2 * math.pi * X)
    return xr.Dataset(
        {"u": (("time", "number", "step", "x"), values)},
        {
            "x": X,
            "time": np.array(["2001-01-01", "2001-01-02", "2001-01-03"], "datetime64[ns]"),
            "step": ("step", 6 * np.arange(4.0), {"units": "hours", "standard_name": "forecast_period"}),
        },
    )  # fmt: skip


def test_starts_of_forecasts_are_samples_where_their_leads_are_the_time(tmp_path):
    both = forecasts()
    with pytest.raises(ValueError, match=r"look like time; pass time='step' \(--time step\)"):
        store_fields(both, tmp_path / "d", outputs="u", **ALL)
    with pytest.raises(ValueError, match=r"pass sample=\['number', 'time'\]"):
        store_fields(both, tmp_path / "d", outputs="u", time="step", sample="number", **ALL)
    manifest, found = stored(both, tmp_path / "d", outputs="u", time="step", **ALL)
    assert (manifest.times, manifest.time_units) == ([0.0, 6.0, 12.0, 18.0], "hours")
    np.testing.assert_allclose(found.u, both.u.values.reshape(6, 4, 8), rtol=1e-6)


@pytest.mark.parametrize(
    "attrs", [{"units": "hours"}, {"units": "s"}, {"standard_name": "forecast_period"}]
)
def test_a_dimension_that_is_measured_in_hours_is_time(tmp_path, attrs):
    one = forecasts().isel(time=0, drop=True).rename(step="ahead")
    one["ahead"] = ("ahead", 6 * np.arange(4.0), attrs)
    manifest, _ = stored(one, tmp_path / "d", outputs="u", **ALL)
    assert manifest.times == [0.0, 6.0, 12.0, 18.0]
    assert manifest.title == "Imported from a dataset in memory"


def globe(latitudes, longitudes) -> xr.Dataset:
    """A harmonic of degree 3 in two members, at these degrees."""
    phi, lam = np.radians(latitudes)[:, None], np.radians(longitudes)[None]
    values = np.sin(phi) * np.cos(phi) ** 2 * np.cos(2 * lam)
    both = np.stack([values, 2 * values + 1])
    return xr.Dataset(
        {"a": (("member", "latitude", "longitude"), both), "b": (("member", "latitude", "longitude"), -both)},
        {"latitude": latitudes, "longitude": longitudes},
    )  # fmt: skip


NORTH_FIRST = np.linspace(90, -90, 13)


@pytest.mark.parametrize(
    ("latitudes", "longitudes", "options"),
    [
        (NORTH_FIRST, np.arange(24) * 15.0, {}),
        (NORTH_FIRST[::-1], np.arange(-12, 12) * 15.0, {}),
        (NORTH_FIRST, np.arange(25) * 15.0, {}),
        (np.degrees(SphereGrid(12, 24).points()[0].numpy())[::-1], np.arange(24) * 15.0, {}),
        (np.arange(-88.75, 90, 2.5), np.arange(1.25, 360, 2.5), {"regrid": {"latitude": 13, "longitude": 24}}),
    ],
    ids=["north first", "south first, from -180", "circle closed", "Gauss", "cells, interpolated"],
)  # fmt: skip
def test_a_globe_is_a_sphere_from_north_to_south_and_from_zero(
    tmp_path, latitudes, longitudes, options
):
    manifest, found = stored(
        globe(latitudes, longitudes),
        tmp_path / "d",
        inputs="a",
        outputs="b",
        radius=6.371e6,
        **options,
    )
    kind = "legendre-gauss" if len(latitudes) == 12 else "equiangular"
    assert manifest.grid == SphereGrid(12 + (kind == "equiangular"), 24, kind, 6.371e6)
    right = globe(found.lat.values, found.lon.values)
    np.testing.assert_allclose(found.a, right.a, atol=2e-4 if options else 1e-6)


def test_a_globe_of_cells_and_a_channel_are_told_what_to_do(tmp_path):
    cells = globe(np.arange(-85.0, 90, 10), np.arange(36) * 10.0)
    with pytest.raises(
        ValueError, match=r"neither Gauss .* pass regrid={'latitude': 19, 'longitude': 36}"
    ):
        store_fields(cells, tmp_path / "d", inputs="a", outputs="b")
    channel = cells.sel(latitude=slice(-60, 60))
    with pytest.raises(ValueError, match="boundary of axis 'latitude' is not known"):
        store_fields(channel, tmp_path / "d", inputs="a", outputs="b")
    walls = {"latitude": "neumann", "longitude": "periodic"}
    manifest, _ = stored(channel, tmp_path / "e", inputs="a", outputs="b", boundary=walls)
    assert manifest.grid.axes[1] == Axis("longitude", 36, 360.0)


def test_the_end_of_a_circle_is_left_out_once(tmp_path):
    x = np.linspace(0, 1, 9)
    values = np.arange(3.0)[:, None] + np.sin(2 * math.pi * x)
    dataset = xr.Dataset({"a": (("run", "x"), values), "b": (("run", "x"), values)}, {"x": x})
    manifest, found = stored(dataset, tmp_path / "d", inputs="a", outputs="b", **ALL)
    assert manifest.grid == Grid.periodic(8)
    np.testing.assert_allclose(found.a, values[:, :-1], rtol=1e-6)
    manifest, _ = stored(dataset, tmp_path / "e", inputs="a", outputs="b", boundary="neumann")
    assert manifest.grid.shape == (9,)


def test_uneven_nodes_are_refused_until_they_are_interpolated(tmp_path):
    x = np.linspace(0, 1, 9) ** 2
    cubic = (1 - x) * x * (2 + x)
    dataset = xr.Dataset({"a": ("x", cubic + 1), "b": ("x", cubic)}, {"x": x})
    with pytest.raises(
        ValueError, match=r"not evenly spaced.* pass regrid={'x': 9} \(--regrid x=9\)"
    ):
        store_fields(dataset, tmp_path / "d", inputs="a", outputs="b", boundary="dirichlet")
    _, found = stored(
        dataset, tmp_path / "d", inputs="a", outputs="b", boundary="dirichlet", regrid={"x": 5}
    )
    there = found.x.values  # a cubic is its own spline
    np.testing.assert_allclose(found.b[0], (1 - there) * there * (2 + there), atol=1e-7)
    with pytest.raises(ValueError, match=r"a is not|b is not zero at the ends of 'x'"):
        store_fields(
            dataset, tmp_path / "e", inputs="b", outputs="a", boundary="dirichlet", regrid={"x": 5}
        )


def test_splits_by_shares_or_by_sources(tmp_path):
    manifest, found = stored(
        box(),
        tmp_path / "d",
        inputs="kappa",
        outputs="head",
        splits={"train": 0.6, "test": 0.4},
        **ALL,
    )
    assert manifest.requested == {"train": 3, "test": 2}
    np.testing.assert_allclose(
        open_dataset(tmp_path / "d", "test").kappa,
        box().kappa[3:].transpose("run", "y", "x"),
        rtol=1e-6,
    )
    parts = {"train": [box(), box()], "valid": box()}
    manifest, found = stored(parts, tmp_path / "e", inputs="kappa", outputs="head", **ALL)
    assert manifest.requested == {"train": 10, "valid": 5}
    np.testing.assert_array_equal(found.kappa[5:], found.kappa[:5])


def test_what_is_known_of_the_equation_is_declared(tmp_path):
    data = {"inputs": "kappa", "outputs": "head", **ALL}
    manifest, _ = stored(
        box(), tmp_path / "d", symmetries=["reflections"], conserved={"head": "kappa"}, **data
    )
    assert (manifest.symmetries, manifest.conserved) == (["reflections"], {"head": "kappa"})
    with pytest.raises(ValueError, match="the symmetries are"):
        store_fields(box(), tmp_path / "e", symmetries=["mirror"], **data)
    with pytest.raises(ValueError, match=r"integral of 'head' cannot be that of 'mass'"):
        store_fields(box(), tmp_path / "e", conserved={"head": "mass"}, **data)
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("dataset", "options", "said"),
    [
        (box(), {"inputs": "kapa", "outputs": "head"}, r"no variable 'kapa'; there are .*did you mean 'kappa'"),
        (box(), {"inputs": "head", "outputs": "head"}, "head cannot be input and output at once"),
        (box(), {"outputs": "head"}, r"nothing to predict head from: name inputs"),
        (box(), {"inputs": "kappa", "outputs": "head", "sample": "runn"}, r"'runn', which none .*did you mean 'run'"),
        (box(), {"inputs": "kappa", "outputs": "head", "boundary": None}, "boundary of axis 'y' is not known"),
        (box().drop_vars("x"), {"inputs": "kappa", "outputs": "head"}, "length of axis 'x' is not known"),
        (box().rename(run="probes"), {"inputs": "kappa", "outputs": "head"}, "'probes' .* space or of samples"),
        (box().expand_dims(a=2, b=2), {"inputs": "kappa", "outputs": "head"}, "would have 4 dimensions of space"),
        (box(), {"inputs": "kappa", "outputs": "head", "splits": {"train": 5, "test": 1}}, "at least 1 sample each"),
        (box(x=[*"abcdefgh"]), {"inputs": "kappa", "outputs": "head"}, "must be two or more finite numbers"),
        (xr.Dataset({"u": ((), 1.0), "v": ((), 1.0)}), {"inputs": "u", "outputs": "v"}, "no dimension of space"),
        (box().assign(n=("q", [1.0, 2])), {"inputs": "n", "outputs": "head"}, r"'n' has the dimensions \('q',\)"),
        (box(), {"inputs": "kappa", "outputs": "head", "regrid": {"z": 4}}, "regrid names the dimension 'z'"),
        (box(), {"inputs": "kappa", "outputs": "head", "boundary": {"x": "periodic", "y": "periodic", "z": "neumann"}},
         r"boundary names the axes \['z'\]"),
        (box(), {"inputs": "kappa", "outputs": "head", "radius": 6.4e6}, "radius is of a sphere"),
        ([box(), box().isel(x=slice(0, 4))], {"inputs": "kappa", "outputs": "head"}, "differs from .* in its grid"),
    ],
)  # fmt: skip
def test_what_cannot_be_known_is_asked_for_by_name(tmp_path, dataset, options, said):
    with pytest.raises(ValueError, match=said):
        store_fields(dataset, tmp_path / "d", progress=False, **{**ALL, **options})
    assert not (tmp_path / "d").exists()


def test_an_array_is_no_dataset(tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"takes xr.Dataset, got DataArray; .*to_dataset"):
        store_fields(box().kappa, tmp_path / "d", outputs="kappa")


def test_a_large_dataset_is_read_a_shard_at_a_time(tmp_path, monkeypatch):
    da = pytest.importorskip("dask.array")
    monkeypatch.setattr(storing, "BYTES", 3 * 4 * 8 * 2)  # three samples of two fields
    held: list[int] = []

    def block(block_info=None):
        (start, stop), _ = block_info[None]["array-location"]
        held.append(start)
        return np.full((stop - start, 8), start, np.float32)

    lazy = da.map_blocks(block, chunks=((1,) * 10, (8,)), dtype=np.float32)
    dataset = xr.Dataset({"a": (("run", "x"), lazy), "b": (("run", "x"), lazy)}, {"x": X})
    reads: list[int] = []
    write = storing.write_shard

    def written(path, file, shard, versions):
        reads.append(len(held))
        return write(path, file, shard, versions)

    monkeypatch.setattr(storing, "write_shard", written)
    _, found = stored(dataset, tmp_path / "d", inputs="a", outputs="b", **ALL)
    np.testing.assert_array_equal(found.a[:, 0], np.arange(10.0))
    assert len(reads) == 4
    assert max(np.diff([reads[0], *reads])) <= 6  # of each field three blocks between two shards
