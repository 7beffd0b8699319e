"""Files that others wrote: what no reader takes, whatever the layout, and what all of them understand."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from sobolev.datasets.layouts.exporting import export
from sobolev.datasets.layouts.importing import import_data
from sobolev.datasets.store.manifest import Manifest


def pdebench_file(file: Path, times: list[float]) -> Path:
    fields = np.random.default_rng(0).standard_normal((2, 4, 8)).astype("f4")
    with h5py.File(file, "w") as opened:
        opened["tensor"] = fields
        opened["x-coordinate"] = np.arange(8) / 8
        opened["t-coordinate"] = np.array(times)
    return file


def mat_file(file: Path, times: list[float]) -> Path:
    """Navier–Stokes of the FNO papers, whose first frame is at time 0."""
    fields = np.random.default_rng(0).standard_normal((2, 4, 4, 5))
    content = {"a": fields[..., 0], "u": fields[..., 1:], "t": np.array(times) + 1.0}
    scipy.io.savemat(file, content)
    return file


BAD_TIMES = {
    "falling": [3.0, 2.0, 1.0, 0.0],
    "repeated": [0.0, 1.0, 1.0, 2.0],
    "not a number": [0.0, 1.0, np.nan, 3.0],
    "infinite": [0.0, 1.0, 2.0, np.inf],
}


@pytest.mark.parametrize("writer", [pdebench_file, mat_file])
@pytest.mark.parametrize("times", BAD_TIMES.values(), ids=BAD_TIMES)
def test_times_that_do_not_rise_are_refused(tmp_path, writer, times):
    file = writer(tmp_path / f"file.{'mat' if writer is mat_file else 'hdf5'}", times)
    with pytest.raises(ValueError, match="times of the frames must be finite and rise"):
        import_data(file, tmp_path / "data", progress=False)
    assert not (tmp_path / "data").exists()


@pytest.fixture
def well_file(flow_data, tmp_path) -> Path:
    """A file of The Well without the notes that ``export`` leaves."""
    file = export(flow_data, tmp_path / "well", "well", progress=False)[0]
    with h5py.File(file, "r+") as opened:
        del opened.attrs["sobolev"]
    return file


def as_python(words: list[str]) -> np.ndarray:
    return np.array(words, h5py.string_dtype())


def as_c(words: list[str]) -> np.ndarray:
    return np.array([word.encode() for word in words])


def as_fortran(words: list[str]) -> np.ndarray:
    return np.array([word.encode().ljust(16) for word in words])


@pytest.mark.parametrize("written", [as_python, as_c, as_fortran])
def test_texts_are_texts_whoever_wrote_them(well_file, tmp_path, written):
    """Numbers that MATLAB writes are arrays of one, too."""
    with h5py.File(well_file, "r+") as opened:
        opened.attrs["n_trajectories"] = np.array([opened.attrs["n_trajectories"]])
        opened["dimensions"].attrs["spatial_dims"] = written(["x", "y"])
        for dim in "xy":
            (group,) = (g for name, g in opened["boundary_conditions"].items() if dim in name)
            group.attrs["bc_type"] = written(["PERIODIC"])
            group.attrs["associated_dims"] = written([dim])
    import_data(well_file, tmp_path / "data", progress=False)
    grid = Manifest.read(tmp_path / "data").grid
    assert [(axis.name, axis.boundary) for axis in grid.axes] == [
        ("y", "periodic"),
        ("x", "periodic"),
    ]


@pytest.mark.parametrize("written", [as_python, as_c])
def test_our_own_notes_are_read_from_bytes_too(flow_data, tmp_path, written):
    file = export(flow_data, tmp_path / "well", "well", progress=False)[0]
    with h5py.File(file, "r+") as opened:
        for part in ("sobolev", "recipe"):
            words = np.ravel(opened.attrs[part]).tolist()
            del opened.attrs[part]
            opened.attrs.create(part, written(words)[0])
    import_data(file, tmp_path / "data", progress=False)
    before = Manifest.read(flow_data)
    after = Manifest.read(tmp_path / "data")
    assert after.outputs == before.outputs
    assert json.loads(after.recipe["stated"]["recipe"]) == before.recipe


def test_what_a_mac_leaves_in_folders_is_no_data(flow_data, tmp_path):
    for file in export(flow_data, tmp_path / "well", "well", progress=False):
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7" + bytes(100))
    import_data(tmp_path / "well", tmp_path / "data", progress=False)
    assert all("._" not in source for source in Manifest.read(tmp_path / "data").recipe["source"])
