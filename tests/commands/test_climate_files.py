"""Files whose times xarray cannot decode, as climate models write them: no one asked for the date."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sobolev import Grid, Surrogate
from sobolev.__main__ import main
from sobolev.grids.description import axis_coords
from sobolev.grids.variables import Variable
from sobolev.operators import FNO

HEAT, RAIN = Variable("heat", "temperature", "K"), Variable("rain", "duration of rain", "s")
LINE = Grid.periodic(8)


def saved(folder, inputs, outputs, record=None):
    scales = {v.name: (0.0, 1.0) for v in (*inputs, *outputs)}
    operator = FNO(len(inputs), len(outputs), modes=(3,), width=2, depth=1)
    surrogate = Surrogate(operator, LINE, inputs, outputs, scales, record).eval()
    surrogate.save(folder / "surrogate")
    return surrogate


@pytest.mark.parametrize(
    ("units", "calendar"),
    [
        ("days", None),
        ("days since 2000-01-01", "noleap"),
        ("months since 2000-01-01", None),
        ("days since 2000-01-01", "standard"),
    ],
)
def test_a_label_in_any_calendar_is_kept_as_it_is(tmp_path, units, calendar):
    surrogate = saved(tmp_path, [RAIN], [HEAT])
    about = {"units": units, **({"calendar": calendar} if calendar else {})}
    given = xr.Dataset(
        {"rain": (("sample", "x"), np.random.default_rng(0).random((3, 8)), {"units": "s"})},
        {"when": ("sample", np.arange(3.0), about), **axis_coords(LINE)},
    )
    given.to_netcdf(tmp_path / "in.nc", engine="h5netcdf")
    files = [str(tmp_path / name) for name in ("surrogate", "in.nc", "out.nc")]
    assert main(["predict", *files]) == 0
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf", decode_times=False) as found:
        np.testing.assert_array_equal(found.when, np.arange(3.0))
        assert {k: found.when.attrs[k] for k in about} == about
        np.testing.assert_allclose(found.heat, surrogate.predict(given).heat, rtol=1e-6)


def test_frames_of_a_calendar_without_leap_days_go_on_in_it(tmp_path):
    saved(
        tmp_path, [HEAT], [HEAT],
        {"data": {"window": [1, 1, 1], "interval": 6.0, "time_units": "hours"}},
    )  # fmt: skip
    about = {"units": "hours since 2001-02-28", "calendar": "noleap"}
    given = xr.Dataset(
        {"heat": (("time", "x"), np.ones((3, 8)))},
        {"time": ("time", [12.0, 18.0, 24.0], about), **axis_coords(LINE)},
    )
    given.to_netcdf(tmp_path / "in.nc", engine="h5netcdf")
    files = [str(tmp_path / name) for name in ("surrogate", "in.nc", "out.nc")]
    assert main(["predict", *files]) == 0
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf", decode_times=False) as found:
        np.testing.assert_array_equal(found.time, [18.0, 24.0, 30.0])
        assert {k: found.time.attrs[k] for k in about} == about
    wrong = given.assign_coords(
        time=("time", [12.0, 18.0, 24.0], {"units": "days since 2001-01-01"})
    )
    with pytest.raises(ValueError, match=r"time is in units 'days since.*trained on 'hours'"):
        Surrogate.load(tmp_path / "surrogate").predict(wrong)
