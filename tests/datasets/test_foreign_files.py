"""Files that others wrote: what no reader takes, whatever the layout."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from sobolev.datasets.layouts.importing import import_data


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
