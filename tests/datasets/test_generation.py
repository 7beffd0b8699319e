"""Data sets: the same bytes whatever happens on the way, and no damage goes unnoticed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import shutil
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
from support.processes import started

import sobolev.datasets.generating.executors as executors
import sobolev.datasets.generating.generation as generation
import sobolev.datasets.store.shards as shards
from sobolev.datasets import (
    BurgersRecipe,
    DamagedDataError,
    DarcyRecipe,
    Manifest,
    generate,
    open_dataset,
    refined,
    verify,
)
from sobolev.datasets.recipes.presets import recipe_from
from sobolev.datasets.store.locks import locked
from sobolev.datasets.store.manifest import Shard
from sobolev.datasets.store.whole_files import file_digest

RECIPE = BurgersRecipe(solver_resolution=64, steps=10)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(generation, "SHARD_SIZE", 4)


def draw(path: Path, samples=None, recipe=RECIPE, **options) -> Path:
    return generate(recipe, path, samples or {"train": 10, "test": 3}, progress=False, **options)


def content(path: Path) -> dict[str, bytes]:
    return {
        str(f.relative_to(path)): f.read_bytes()
        for f in path.rglob("*")
        if f.is_file() and f.name != ".lock"
    }


def test_shards_are_plain_netcdf_with_their_meaning(tmp_path):
    draw(tmp_path / "d", resolution=32, seed=5)
    with xr.open_dataset(tmp_path / "d" / "train" / "00001.nc") as shard:
        assert shard.sizes == {"sample": 4, "x": 32}
        assert shard.sample.values.tolist() == [4, 5, 6, 7]
        assert shard.velocity.attrs == {"long_name": "velocity at the final time", "units": "1"}
        assert shard.x.attrs["boundary"] == "periodic"
        assert json.loads(shard.attrs["recipe"])["viscosity"] == 0.1
        assert shard.attrs["seed"] == 5
        assert "torch" in json.loads(shard.attrs["versions"])


def test_stored_fields_are_the_solution_at_the_shared_nodes(tmp_path):
    path = draw(tmp_path / "d", resolution=32, dtype="float64")
    data = open_dataset(path)
    streams = [generation.stream(0, generation._split_key("train"), i) for i in range(10)]
    inputs = RECIPE.draw(streams)
    outputs = RECIPE.solve(inputs, RECIPE.grid(64))
    np.testing.assert_allclose(data.initial_velocity.values, inputs[:, 0, ::2], atol=1e-14)
    np.testing.assert_allclose(data.velocity.values, outputs[:, 0, ::2], atol=1e-12)


@pytest.mark.slow
def test_lazy_reading_agrees_with_reading_everything(tmp_path):
    path = draw(tmp_path / "d")
    lazy = open_dataset(path)
    whole = xr.concat([xr.open_dataset(f) for f in sorted((path / "train").iterdir())], "sample")
    for index in (3, slice(2, 9, 3), [9, 0, 5, 5], slice(0, 0)):
        picked = lazy.velocity.isel(sample=index)
        np.testing.assert_array_equal(picked.values, whole.velocity.isel(sample=index).values)
    np.testing.assert_array_equal(
        lazy.velocity[[1, 8], 5:40:7].values, whole.velocity[[1, 8], 5:40:7].values
    )
    np.testing.assert_array_equal(lazy.velocity[6, 11].values, whole.velocity[6, 11].values)


def test_opening_reads_no_field(tmp_path, monkeypatch):
    path = draw(tmp_path / "d")
    monkeypatch.setattr("h5py.File", lambda *_, **__: pytest.fail("a shard was opened"))
    assert open_dataset(path).velocity.shape == (10, 64)


@pytest.mark.slow
def test_samples_do_not_depend_on_count_or_batch(tmp_path, monkeypatch):
    full = open_dataset(draw(tmp_path / "a", {"train": 10}))
    monkeypatch.setattr(generation, "SOLVER_BATCH", 1)
    few = open_dataset(draw(tmp_path / "b", {"valid": 2, "train": 3}))
    np.testing.assert_array_equal(few.initial_velocity.values, full.initial_velocity[:3].values)
    np.testing.assert_allclose(few.velocity.values, full.velocity[:3].values, atol=1e-6)
    assert not np.array_equal(
        open_dataset(tmp_path / "b", "valid").velocity.values, few.velocity[:2].values
    )


@pytest.mark.slow
def test_interrupted_run_continues_to_the_same_bytes(tmp_path, monkeypatch):
    undisturbed = content(draw(tmp_path / "a"))
    write, calls = generation.write_shard, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(*arguments)

    monkeypatch.setattr(generation, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "b")
    with pytest.raises(ValueError, match="unfinished: 8 of 10"):
        open_dataset(tmp_path / "b")
    draw(tmp_path / "b")
    assert content(tmp_path / "b") == undisturbed
    assert len(calls) == 3 + 2  # two shards were kept


@pytest.mark.slow
def test_full_disk_loses_nothing(tmp_path, monkeypatch):
    undisturbed = content(draw(tmp_path / "a"))
    write, files = shards._Disk.write, []

    def full(self, content):
        files.extend({self.name} - set(files))
        if len(files) == 2 and len(content) > 500:
            self.error = OSError(errno.ENOSPC, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(shards._Disk, "write", full)
    with pytest.raises(OSError, match="What was finished is safe; make room"):
        draw(tmp_path / "b")
    assert not list((tmp_path / "b").rglob("*.part"))
    draw(tmp_path / "b")
    assert content(tmp_path / "b") == undisturbed


_WRITER = """
import sys
import sobolev.datasets.generating.executors as executors
import sobolev.datasets.generating.generation as generation
from sobolev.datasets import BurgersRecipe
generation.SHARD_SIZE = 4
samples = {"train": 40, "test": 8}
generation.generate(BurgersRecipe(solver_resolution=512, steps=100), sys.argv[1], samples,
progress=False)
"""


@pytest.mark.slow
def test_killed_runs_continue_to_the_same_bytes(tmp_path):
    """SIGKILL at random moments; finished shards stay whole, and the last run completes the
    rest."""

    def run(name, seconds=None):
        """Run the writer, to its end or until it is killed."""
        process = started(_WRITER, str(tmp_path / name))
        if seconds is not None:
            time.sleep(seconds)
            process.kill()
        process.join()
        return process.exitcode

    assert run("a") == 0
    for seconds in (0.15, 0.4):
        run("b", seconds)
        if (tmp_path / "b" / "manifest.json").exists():
            assert [p for p in verify(tmp_path / "b") if "unfinished" not in p] == []
    assert run("b") == 0
    for part in (tmp_path / "b").rglob("*.part"):  # half written, beside its place, never read
        part.unlink()
    assert content(tmp_path / "b") == content(tmp_path / "a")


@pytest.mark.slow
def test_more_samples_extend_a_data_set(tmp_path):
    draw(tmp_path / "a", {"train": 6})
    draw(tmp_path / "a", {"train": 11, "test": 2})
    expected, got = content(draw(tmp_path / "b", {"train": 11, "test": 2})), content(tmp_path / "a")
    assert {k: v for k, v in got.items() if k.endswith(".nc")} == {
        k: v for k, v in expected.items() if k.endswith(".nc")
    }


@pytest.mark.slow
def test_every_flipped_bit_is_found(tmp_path):
    path = draw(tmp_path / "d")
    dice, files = (
        random.Random(0),
        sorted(f for f in path.rglob("*") if f.suffix in (".nc", ".json")),
    )
    for _ in range(40):
        file = dice.choice(files)
        good = file.read_bytes()
        bad = bytearray(good)
        bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
        file.write_bytes(bad)
        if file.suffix == ".nc":
            assert [str(file) in problem for problem in verify(path)] == [True]
            with pytest.raises(DamagedDataError, match=f"{file.name}.*samples"):
                open_dataset(path, file.parent.name).load()
        else:
            with pytest.raises((DamagedDataError, ValueError)):
                verify(path)
        file.write_bytes(good)
    assert verify(path) == []


@pytest.mark.slow
def test_missing_and_truncated_shards_are_named_and_drawn_again(tmp_path):
    path = draw(tmp_path / "d")
    before = content(path)
    (path / "train" / "00001.nc").unlink()
    with pytest.raises(DamagedDataError, match=r"00001.nc \(samples 4 to 7\) is missing"):
        open_dataset(path)
    (path / "test" / "00000.nc").write_bytes(before["test/00000.nc"][:-10])
    with pytest.raises(DamagedDataError, match=r"00000.nc \(samples 0 to 2\) has .* truncated"):
        open_dataset(path, "test")
    assert len(verify(path)) == 2
    draw(path)
    assert content(path) == before


@pytest.mark.slow
def test_another_configuration_is_refused_unless_overwritten(tmp_path):
    path = draw(tmp_path / "d")
    for change in ({"seed": 1}, {"resolution": 32}, {"recipe": replace(RECIPE, viscosity=0.2)}):
        with pytest.raises(FileExistsError, match="another configuration"):
            draw(path, **change)
    draw(path, {"test": 2}, seed=1, overwrite=True)
    assert list(Manifest.read(path).splits) == ["test"]
    assert not (path / "train").exists()


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("irreplaceable")
    with pytest.raises(FileExistsError, match=r"thesis\.tex"):
        draw(tmp_path)


def test_two_writers_do_not_share_a_folder(tmp_path):
    with locked(tmp_path), pytest.raises(FileExistsError, match="another process"):
        draw(tmp_path)


def test_who_wants_the_same_finer_samples_waits_for_them(tmp_path, caplog):
    """Two evaluations at once: the second finds what the first has drawn."""
    caplog.set_level("INFO", "sobolev")
    path = generate(RECIPE, tmp_path / "d", {"test": 2}, resolution=16, progress=False)
    finer = path / "at-32"

    finer.mkdir()
    first = (finer / ".lock").open("w")
    fcntl.flock(first, fcntl.LOCK_EX)

    def release_when_waited_for() -> None:
        while "which is waited for" not in caplog.text:
            time.sleep(0.01)
        first.close()

    other = threading.Thread(target=release_when_waited_for)
    other.start()
    assert generation.refined(path, "test", 32, progress=False) == finer
    other.join()
    assert Manifest.read(finer).resolution == 32


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with locked(tmp_path / "new"):
        assert "has no locks; make sure that no other process writes there" in caplog.text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: generate("burgers-fn", p, {"train": 1}), "did you mean 'burgers-fno'"),
        (lambda p: draw(p, resolution=100), "cannot be stored at 100; choose from 64, 32"),
        (lambda p: draw(p, {"train": 0}), "at least 1 per split"),
        (lambda p: draw(p, {"../train": 1}), "plain word"),
        (lambda p: draw(p, seed=-1), "a seed is a whole number"),
        (lambda p: draw(p, dtype="int8"), "float32 or float64"),
        (lambda p: open_dataset(draw(p), "valid"), "no split 'valid' here; there are: train, test"),
        (lambda p: draw(p, recipe=replace(RECIPE, viscosity=-1.0)), "viscosity must be positive"),
        (
            lambda p: draw(p, recipe=DarcyRecipe(solver_resolution=9, low=-1.0)),
            "permeabilities must be positive",
        ),
    ],
)
def test_bad_input_is_refused(tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(tmp_path / "d")


def test_no_data_set_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no sobolev data set"):
        open_dataset(tmp_path)


def test_refined_fields_are_the_same_samples_on_more_nodes(tmp_path):
    path = draw(tmp_path / "d", resolution=16)
    fine = open_dataset(refined(path, "test", 64, progress=False), "test")
    np.testing.assert_array_equal(
        fine.velocity.values[:, ::4], open_dataset(path, "test").velocity.values
    )


def test_darcy_preset_has_its_two_phases_and_a_zero_border(darcy_data):
    data = open_dataset(darcy_data)
    assert set(np.unique(data.permeability)) == {3.0, 12.0}
    assert 0.3 < float((data.permeability == 12).mean()) < 0.7
    u = torch.from_numpy(data.pressure.values)
    grid = Manifest.read(darcy_data).grid
    assert torch.equal(u, grid.without_border(u))
    assert u[:, 1:-1, 1:-1].min() > 0


def test_a_manifest_from_a_stranger_cannot_name_other_files(tmp_path):
    path = draw(tmp_path / "d")
    manifest = Manifest.read(path)
    manifest.splits["train"][0] = replace(manifest.splits["train"][0], file="../../secret.nc")
    manifest.write(path)
    with pytest.raises(DamagedDataError, match=r"secret\.nc"):
        open_dataset(path)


@pytest.mark.slow
def test_a_damaged_manifest_can_be_overwritten_and_foreign_files_stay(tmp_path):
    path = draw(tmp_path / "d", resolution=16)
    refined(path, "test", 64, progress=False)
    (path / "manifest.json").write_text("{")
    (path / "train" / "notes.txt").write_text("mine")
    draw(path, {"test": 2}, seed=1, overwrite=True)
    assert verify(path) == []
    assert (path / "train" / "notes.txt").exists()
    assert open_dataset(refined(path, "test", 64, progress=False), "test").sizes["sample"] == 2


def test_data_from_an_unknown_recipe_class_can_be_read_but_not_drawn_again(tmp_path):
    path = draw(tmp_path / "d")
    manifest = Manifest.read(path)
    manifest.recipe["class"] = "os.system"
    manifest.write(path)
    assert open_dataset(path).velocity.shape == (10, 64)
    with pytest.raises(ValueError, match=r"class 'os\.system'"):
        recipe_from(Manifest.read(path).recipe)


def test_copying_a_data_set_keeps_it_whole(tmp_path):
    shutil.copytree(draw(tmp_path / "d"), tmp_path / "elsewhere")
    assert verify(tmp_path / "elsewhere") == []


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path):
    alone = content(draw(tmp_path / "a"))
    assert content(draw(tmp_path / "b", workers=2)) == alone


def _die_once(task):
    """The first process that comes here leaves a mark and is gone."""
    mark = task.path / "died"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task.path.name


def _always_die(task):
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class _Errand:
    path: Path


def test_lost_workers_are_replaced(tmp_path):
    errands = [_Errand(tmp_path)] * 4
    with executors.executor(2, None) as results:
        assert list(results(_die_once, errands)) == [tmp_path.name] * 4
        with pytest.raises(OSError, match="worker processes died 3 times in a row"):
            list(results(_always_die, errands))


@pytest.mark.slow
def test_bytes_from_a_cluster_are_the_same(tmp_path):
    distributed = pytest.importorskip("distributed", reason="pip install 'sobolev[distributed]'")
    alone = content(draw(tmp_path / "a"))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        assert content(draw(tmp_path / "b", dask=cluster.scheduler_address)) == alone


def test_equal_content_has_equal_bytes_however_long_python_keeps_its_arrays(tmp_path, monkeypatch):
    """HDF5 lays out what is still open in another way than what was closed."""
    before = content(draw(tmp_path / "a"))
    kept = []
    make = h5py.Dataset.__init__

    def keep(self, *arguments, **options):
        make(self, *arguments, **options)
        kept.append(self)

    monkeypatch.setattr(h5py.Dataset, "__init__", keep)
    assert content(draw(tmp_path / "b")) == before
    assert kept


def test_files_are_written_without_the_locks_of_a_cluster(tmp_path, monkeypatch):
    """In a process with a Dask client xarray would ask the scheduler for a lock per file."""
    distributed = pytest.importorskip("distributed", reason="pip install 'sobolev[distributed]'")
    monkeypatch.setattr(
        distributed.Lock, "acquire", lambda *_, **__: pytest.fail("a distributed lock was taken")
    )
    with distributed.Client(n_workers=1, processes=False, dashboard_address=None):
        draw(tmp_path / "d")
    assert verify(tmp_path / "d") == []


def test_a_cluster_without_workers_is_said_so(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="pip install 'sobolev[distributed]'")
    monkeypatch.setattr(executors, "DESERTED", 0.5)
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        pytest.raises(OSError, match=r"has no workers .* what was finished is safe"),
    ):
        draw(tmp_path / "d", dask=cluster.scheduler_address)


def test_an_unreachable_cluster_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "PATIENCE", 1)
    with pytest.raises(OSError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        draw(tmp_path / "d", dask="tcp://127.0.0.1:9")


def test_a_bad_recipe_fails_the_same_in_workers(tmp_path):
    with pytest.raises(ValueError, match="viscosity must be positive"):
        draw(tmp_path / "d", recipe=replace(RECIPE, viscosity=-1.0), workers=2)


def test_shards_may_be_finished_out_of_order(tmp_path):
    """As workers leave them when they are interrupted."""
    path = draw(tmp_path / "d")
    before = content(path)
    manifest = Manifest.read(path)
    del manifest.splits["train"][1]
    manifest.write(path)
    assert verify(path) == ["split 'train' is unfinished: 6 of 10 samples"]
    draw(path)
    assert content(path) == before


def test_a_first_attempt_that_drew_nothing_binds_nobody(tmp_path):
    with pytest.raises(ValueError, match="sigma > 0"):
        draw(tmp_path / "d", recipe=replace(RECIPE, sigma=-1.0))
    (tmp_path / "d" / ".manifest.json.0123abcd.part").touch()  # of a writer killed even earlier
    draw(tmp_path / "d")
    assert verify(tmp_path / "d") == []
    assert not list((tmp_path / "d").glob(".*.part"))


def test_what_a_strangers_shard_says_of_itself_is_not_believed(tmp_path):
    """A variable of another type or shape under right checksums: pointers, fewer nodes."""
    for number, values in enumerate((np.array([b"x"] * 3, dtype=object), np.zeros((3, 8), "f4"))):
        path = draw(tmp_path / str(number), {"test": 3})
        file = path / "test" / "00000.nc"
        with h5py.File(file, "r+") as opened:
            del opened["velocity"]
            kind = h5py.string_dtype() if values.dtype == object else values.dtype
            opened.create_dataset("velocity", data=values, dtype=kind)
        manifest = Manifest.read(path)
        forged = {**vars(manifest.splits["test"][0]), "sha256": file_digest(file)}
        manifest.splits["test"] = [Shard(**{**forged, "bytes": file.stat().st_size})]
        manifest.write(path)
        with pytest.raises(DamagedDataError, match="velocity is not one block of float32 values"):
            open_dataset(path, "test").load()
        assert "not one block" in verify(path)[0]


def test_a_task_that_fails_ends_the_work_of_many_others():
    """Tasks that are cancelled before they begin must not be waited for."""
    done = executors._in_processes(2, int, ["nonsense", *map(str, range(200))])
    with pytest.raises(ValueError, match="nonsense"):
        list(done)
