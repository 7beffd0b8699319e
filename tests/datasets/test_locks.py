"""Files that never change are read without locks: some file systems have none, and readers harm nobody."""

from __future__ import annotations

import argparse
import errno
import fcntl
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from sobolev.commands.files import from_file_to_file
from sobolev.datasets import open_dataset, verify
from sobolev.datasets.layouts.exporting import export
from sobolev.datasets.layouts.importing import import_data
from sobolev.datasets.store.manifest import DamagedDataError
from sobolev.surrogates import Surrogate


@contextmanager
def others_lock(files: Iterable[Path]) -> Iterator[None]:
    """Hold the files as another program would that writes to them."""
    with ExitStack() as stack:
        for file in files:
            fcntl.flock(stack.enter_context(file.open("rb+")), fcntl.LOCK_EX)
        yield


def test_data_sets_are_read_and_verified_without_locks(burgers_data):
    shards = list(burgers_data.glob("*/*.nc"))
    with others_lock(shards):
        assert verify(burgers_data) == []
        assert open_dataset(burgers_data).velocity.load().shape == (24, 64)


@pytest.mark.parametrize("layout", ["well", "pdebench"])
def test_foreign_files_are_read_without_locks(burgers_data, tmp_path, layout):
    export(burgers_data, tmp_path / "out", layout, splits=["test"], progress=False)
    (file,) = (tmp_path / "out").rglob("*.hdf5")
    with others_lock([file]):
        import_data(file, tmp_path / "back", progress=False)
    np.testing.assert_array_equal(
        open_dataset(tmp_path / "back").velocity, open_dataset(burgers_data, "test").velocity
    )


def test_matlab_files_are_read_without_locks(tmp_path):
    with h5py.File(tmp_path / "b.mat", "w") as opened:  # version 7.3
        opened["a"] = np.ones((8, 2))
        opened["u"] = np.ones((8, 2))
    with others_lock([tmp_path / "b.mat"]):
        import_data(tmp_path / "b.mat", tmp_path / "data", length=1.0, progress=False)
    assert open_dataset(tmp_path / "data").sizes["sample"] == 2


def test_inputs_of_commands_are_read_without_locks(burgers_data, tmp_path, monkeypatch):
    source = next(burgers_data.glob("test/*.nc"))
    monkeypatch.setattr(Surrogate, "load", lambda *_, **__: None)
    files = {"input": str(source), "output": str(tmp_path / "out.nc")}
    options = argparse.Namespace(run="run", operators=None, **files)
    with others_lock([source]):
        written = from_file_to_file(options, lambda _, dataset: dataset[["velocity"]])
    assert written.sizes["sample"] == 6


def test_what_the_system_refuses_is_not_called_damaged(burgers_data, monkeypatch):
    def failing(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(h5py, "File", failing)
    with pytest.raises(OSError, match="No locks available") as caught:
        open_dataset(burgers_data).velocity.load()
    assert not isinstance(caught.value, DamagedDataError)
    with pytest.raises(OSError, match="No locks available"):
        verify(burgers_data)
