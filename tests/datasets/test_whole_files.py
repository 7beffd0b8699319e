"""Files that are whole or absent: links, devices, and disks that are full."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from sobolev.datasets.store.shards import write_netcdf

FIELD = xr.Dataset({"u": ("x", np.arange(3.0))})


def test_a_link_is_followed(tmp_path):
    (tmp_path / "latest.nc").symlink_to("results/1.nc")
    (tmp_path / "results").mkdir()
    for _ in range(2):  # what it names is not there, and then it is
        write_netcdf(FIELD, tmp_path / "latest.nc")
        assert (tmp_path / "latest.nc").readlink().name == "1.nc"
        assert xr.load_dataset(tmp_path / "results" / "1.nc", engine="h5netcdf").equals(FIELD)
        assert [f.name for f in (tmp_path / "results").iterdir()] == ["1.nc"]


def test_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "a.nc").symlink_to("b.nc")
    (tmp_path / "b.nc").symlink_to("a.nc")
    with pytest.raises(OSError, match="symbolic links"):
        write_netcdf(FIELD, tmp_path / "a.nc")
    assert (tmp_path / "a.nc").is_symlink()


def test_a_pipe_is_refused_and_stays_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is a device or a pipe"):
        write_netcdf(FIELD, tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_device_is_refused_and_stays_one(tmp_path):
    null = tmp_path / "null"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("makes a device, which only root may")
    with pytest.raises(OSError, match="is a device or a pipe"):
        write_netcdf(FIELD, null)
    assert stat.S_ISCHR(null.stat().st_mode)


_ON_A_FULL_DISK = """
import resource
import sys
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sobolev.datasets.generating.generation import generate
from sobolev.datasets.layouts.exporting import export
from sobolev.datasets.recipes.burgers import BurgersRecipe
from sobolev.datasets.store.shards import write_netcdf
from sobolev.datasets.store.whole_files import replacing, save_tensors

folder = Path(sys.argv[1])
recipe = BurgersRecipe(solver_resolution=512, steps=4)
generate(recipe, folder / "data", {"train": 4}, progress=False)


def checkpoint():
    with replacing(folder / "last.ckpt") as part:
        save_tensors({"weights": torch.zeros(9000)}, part)


resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))  # fails as a full disk does
for write in (
    lambda: generate(recipe, folder / "more", {"train": 8}, progress=False),
    lambda: write_netcdf(xr.Dataset({"u": ("x", np.zeros(9000))}), folder / "prediction.nc"),
    lambda: export(folder / "data", folder / "well", "well", progress=False),
    lambda: export(folder / "data", folder / "pdebench", "pdebench", progress=False),
    lambda: export(folder / "data", folder / "neuralop", "neuralop", progress=False),
    checkpoint,
):
    try:
        write()
        print("written")
    except OSError as error:
        print(error)
"""


def test_a_full_disk_is_an_error_that_the_interpreter_survives(tmp_path):
    """HDF5 ends it with a segmentation fault; torch calls a full disk a RuntimeError."""
    command = [sys.executable, "-P", "-c", _ON_A_FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    messages = done.stdout.splitlines()
    assert len(messages) == 6
    assert all("File too large" in message for message in messages)
    assert "What was finished is safe" in messages[0]
    assert str(tmp_path / "prediction.nc") in messages[1]
    left = {
        file.suffix for file in tmp_path.rglob("*") if file.is_file() and "data" not in file.parts
    }
    assert left <= {".json", ".lock", ""}  # the lock and the manifest of what can be continued
