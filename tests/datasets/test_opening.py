"""Files of every format give the same fields, and run no code."""

from __future__ import annotations

import pickle
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
import xarray as xr

from sobolev.__main__ import main
from sobolev.datasets import open_dataset
from sobolev.datasets.layouts.opening import open_fields

DICE = np.random.default_rng(0)
A = DICE.standard_normal((6, 8)).astype("f4")
U = DICE.standard_normal((6, 3, 8)).astype("f4")
X = np.arange(8) / 8
T = np.array([0.0, 0.5, 2.0])
PLAIN = {"a": A, "u": U, "x": X, "t": T}


def as_dataset() -> xr.Dataset:
    fields = {"a": (("run", "x"), A), "u": (("run", "time", "x"), U)}
    return xr.Dataset(fields, {"x": X, "time": T})


def write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, values in PLAIN.items():
            file[f"fields/{name}" if values.ndim > 1 else name] = values


def write_matlab73(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in PLAIN.items():
            file[name] = np.atleast_2d(values).T


def write_zarr(path: Path) -> None:
    pytest.importorskip("zarr")
    as_dataset().to_zarr(path)


WRITERS = {
    "netcdf4.nc": lambda p: as_dataset().to_netcdf(p, engine="h5netcdf"),
    "netcdf3.nc": lambda p: as_dataset().to_netcdf(p, engine="scipy"),
    "store.zarr": write_zarr,
    "grouped.h5": write_hdf5,
    "arrays.npz": lambda p: np.savez(p, **PLAIN),
    "old.mat": lambda p: scipy.io.savemat(p, PLAIN),
    "new.mat": write_matlab73,
    "tensors.pt": lambda p: torch.save({k: torch.from_numpy(v) for k, v in PLAIN.items()}, p),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_each_format_gives_the_same_fields(tmp_path, name):
    WRITERS[name](tmp_path / name)
    names = ("fields/a", "fields/u") if name == "grouped.h5" else ("a", "u")
    options = ["--inputs", names[0], "--outputs", names[1], "--boundary", "periodic"]
    assert main(["import", str(tmp_path / name), str(tmp_path / "d"), *options]) == 0
    found = open_dataset(tmp_path / "d").load()
    plain = [n.replace("/", "_") for n in names]
    np.testing.assert_array_equal(found[plain[0]], A)
    np.testing.assert_array_equal(found[plain[1]], U)
    np.testing.assert_array_equal(found.x, X)
    np.testing.assert_array_equal(found.time, T)


def test_arrays_of_several_files_are_one_dataset_or_follow_one_another(tmp_path):
    np.save(tmp_path / "a.npy", A)
    np.save(tmp_path / "u.npy", 2 * A)
    np.savez(tmp_path / "one.npz", a=A, u=2 * A)
    np.savez(tmp_path / "two.npz", a=-A, u=-2 * A)
    options = ["--inputs", "a", "--outputs", "u", "--length", "1", "--boundary", "periodic"]
    pair = [str(tmp_path / f"{n}.npy") for n in "au"]
    assert main(["import", *pair, str(tmp_path / "d"), *options]) == 0
    np.testing.assert_array_equal(open_dataset(tmp_path / "d").u, 2 * A)
    both = [str(tmp_path / f"{n}.npz") for n in ("one", "two")]
    assert main(["import", *both, str(tmp_path / "e"), *options]) == 0
    np.testing.assert_array_equal(open_dataset(tmp_path / "e").a, np.concatenate([A, -A]))
    parts = [f"train={both[0]}", f"test={both[1]}"]
    assert main(["import", *parts, str(tmp_path / "f"), *options]) == 0
    np.testing.assert_array_equal(open_dataset(tmp_path / "f", "test").a, -A)


def test_one_place_of_a_dimension_is_selected(tmp_path):
    levels = as_dataset().expand_dims(level=[850.0, 200.0]) * xr.DataArray(
        [1.0, -1.0], dims="level"
    )
    levels.to_netcdf(tmp_path / "l.nc", engine="h5netcdf")
    options = ["--inputs", "a", "--outputs", "u", "--boundary", "periodic", "--select", "level=1"]
    assert main(["import", str(tmp_path / "l.nc"), str(tmp_path / "d"), *options]) == 0
    np.testing.assert_allclose(open_dataset(tmp_path / "d").a, -A, rtol=1e-6)


@pytest.mark.parametrize(
    ("option", "value", "form"),
    [
        ("--coordinates", "x=a:b", "DIM=FIRST:LAST"),
        ("--select", "level=1.5", "DIM=NUMBER, a whole"),
        ("--regrid", "8", "DIM=NODES"),
        ("--dims", "u=", "FIELD=DIM,DIM"),
    ],
)
def test_an_option_in_another_form_is_told_its_own(tmp_path, capsys, option, value, form):
    with pytest.raises(SystemExit):
        main(["import", "f.npz", str(tmp_path / "d"), "--outputs", "u", option, value])
    assert f"{value!r} is not of the form {form}" in capsys.readouterr().err


class Evil:
    def __reduce__(self):
        return print, ("code was run",)


def write_pickled_zarr(path: Path) -> None:
    path.mkdir()
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    (path / "a").mkdir()
    (path / "a" / ".zarray").write_text('{"filters": [{"id": "pickle"}], "dtype": "|O"}')


HOSTILE = {
    "o.npy": lambda p: np.save(p, np.array([Evil()], object), allow_pickle=True),
    "o.npz": lambda p: np.savez(p, a=np.array([Evil()], object)),
    "o.pt": lambda p: torch.save({"a": Evil()}, p),
    "p.pt": lambda p: p.write_bytes(pickle.dumps(Evil())),
    "o.zarr": write_pickled_zarr,
    "cut.nc": lambda p: p.write_bytes(b"CDF\1 and no more"),
    "cut.mat": lambda p: p.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(90)),
    "text.csv": lambda p: p.write_text("x,y"),
}


def test_a_table_is_told_how_to_become_a_dataset(tmp_path):
    (tmp_path / "runs.csv").write_text("run,x,u")
    with pytest.raises(ValueError, match=r"pandas.read_csv\(file\)"), ExitStack() as stack:
        open_fields(tmp_path / "runs.csv", stack)


@pytest.mark.parametrize("name", HOSTILE)
def test_python_objects_and_damaged_files_are_refused(tmp_path, capsys, name):
    HOSTILE[name](tmp_path / name)
    with pytest.raises(ValueError, match=name), ExitStack() as stack:
        open_fields(tmp_path / name, stack)
    assert "code was run" not in capsys.readouterr().out


def test_a_link_to_another_file_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = A
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["own"] = A
        file["a"] = h5py.ExternalLink("other.h5", "secret")
    with ExitStack() as stack:
        (found,) = open_fields(tmp_path / "f.h5", stack)
        assert list(found) == ["own"]


PAIR = ["--inputs", "a", "--outputs", "u"]
LARGE = DICE.standard_normal((2, 2, 2, 2, 2))


@pytest.mark.parametrize(
    ("arrays", "options", "said"),
    [
        ({"u": U}, ["--outputs", "u"], "nothing to predict u from"),
        ({"u": U, "x": X[:3], "t": T}, ["--outputs", "u"], "told apart by the coordinates x (3), time (3)"),
        ({"u": LARGE, "a": A}, PAIR, "cannot be told apart; pass dims="),
        ({"u": U, "a": A}, [*PAIR, "--dims", "u=sample,x"], "shape (6, 3, 8), but 2 dimensions"),
        ({"u": U, "a": A}, [*PAIR, "--coordinates", "time=0,1,2,3"], "'time' has 3 places, got 4 coordinates"),
        ({"u": U, "a": A}, [*PAIR, "--coordinates", "t=0:1"], "no dimension 't' to have coordinates"),
        ({"u": U, "a": A}, [*PAIR, "--select", "level=0"], "--select names the dimension 'level'"),
        ({"u": U, "a": A}, [*PAIR, "--select", "x=8"], "'x' has 8 places, counted from 0"),
    ],
)  # fmt: skip
def test_dimensions_that_cannot_be_told_apart(tmp_path, capsys, arrays, options, said):
    np.savez(tmp_path / "f.npz", **arrays)
    place = ["import", str(tmp_path / "f.npz"), str(tmp_path / "d")]
    assert main([*place, *options, "--boundary", "periodic", "--length", "1"]) == 2
    assert said in capsys.readouterr().err
