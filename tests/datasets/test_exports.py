"""Exports: files as The Well, PDEBench and neuralop lay them out, and nothing dropped on the way."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
import yaml

import sobolev.datasets.generating.generation as generation
import sobolev.datasets.layouts.exporting as exports
from sobolev.datasets import (
    BurgersRecipe,
    DarcyRecipe,
    Manifest,
    NavierStokesRecipe,
    generate,
    open_dataset,
)
from sobolev.datasets.layouts.exporting import export
from sobolev.datasets.store.manifest import ERROR, STATUS
from sobolev.datasets.store.shards import coords, write_shard
from sobolev.grids.description import describe_grid
from sobolev.grids.sphere import SphereGrid
from sobolev.grids.variables import Variable

FLOW = NavierStokesRecipe(solver_resolution=16, time=0.5, interval=0.1, viscosity=0.01)
SAMPLES = {"train": 5, "test": 3}


def draw(path: Path, recipe, **options) -> Path:
    """Three training shards and two test shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "SHARD_SIZE", 2)
        return generate(recipe, path, SAMPLES, progress=False, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def flow(folder):
    return draw(folder / "flow", FLOW)


@pytest.fixture(scope="module")
def darcy(folder):
    return draw(folder / "darcy", DarcyRecipe(solver_resolution=9))


@pytest.fixture(scope="module")
def burgers(folder):
    return draw(folder / "burgers", BurgersRecipe(solver_resolution=32, steps=10))


def out(path: Path, target: Path, layout: str, **options) -> list[Path]:
    return export(path, target, layout, progress=False, **options)


def rewritten(original: Path, path: Path, change) -> Path:
    """A copy with ``change`` applied to the first training shard and the manifest."""
    shutil.copytree(original, path)
    manifest = Manifest.read(path)
    data = open_dataset(path).load().isel(sample=slice(0, 2))
    change(data, manifest)
    versions = manifest.splits["train"][0].versions
    manifest.add("train", write_shard(path, "train/00000.nc", data, versions))
    manifest.write(path)
    return path


@pytest.mark.slow
def test_the_well_gets_trajectories_with_all_that_its_format_asks_for(flow, tmp_path):
    files = out(flow, tmp_path / "well", "well", name="vortices")
    names = ["data/train/vortices.hdf5", "data/test/vortices.hdf5", "stats.yaml"]
    assert files == [tmp_path / "well" / name for name in names]
    ours = open_dataset(flow).vorticity.transpose("sample", "time", "x", "y").values
    with h5py.File(files[0]) as file:
        assert dict(file.attrs).items() >= {"n_trajectories": 5, "n_spatial_dims": 2}.items()
        assert (file.attrs["dataset_name"], file.attrs["grid_type"]) == ("vortices", "cartesian")
        assert "viscosity" in file.attrs["simulation_parameters"].tolist()
        assert file.attrs["viscosity"] == 0.01
        assert file["scalars/viscosity"].shape == ()
        assert file["dimensions"].attrs["spatial_dims"].tolist() == ["x", "y"]
        np.testing.assert_allclose(file["dimensions/time"], np.arange(6) / 10, rtol=1e-6)
        np.testing.assert_array_equal(file["dimensions/x"], np.arange(16) / 16)
        for dim in "xy":
            boundary = file[f"boundary_conditions/{dim}_periodic"]
            assert boundary.attrs["bc_type"] == "PERIODIC"
            assert boundary.attrs["associated_dims"].tolist() == [dim]
            assert np.flatnonzero(boundary["mask"]).tolist() == [0, 15]
        fields = [file[f"t{order}_fields"].attrs["field_names"].tolist() for order in range(3)]
        assert fields == [["vorticity"], [], []]
        field = file["t0_fields/vorticity"]
        assert field.dtype == np.float32
        np.testing.assert_array_equal(field, ours)
        assert field.attrs["dim_varying"].dtype == bool
        assert field.attrs["sample_varying"]
        assert field.attrs["time_varying"]


def test_provenance_is_in_the_attributes(flow, tmp_path):
    for layout in ("well", "pdebench"):
        with h5py.File(out(flow, tmp_path / layout, layout)[0]) as file:
            assert json.loads(file.attrs["recipe"]) == FLOW.configuration()
            assert file.attrs["seed"] == 0
            assert "torch" in json.loads(file.attrs["versions"])
            assert file.attrs["manifest_sha256"] == Manifest.read(flow).digest


def test_statistics_are_those_of_the_training_split(flow, tmp_path):
    stats = yaml.safe_load(out(flow, tmp_path, "well")[-1].read_text())
    values = open_dataset(flow).vorticity.values.astype(np.float64)
    for suffix, of in (("", values), ("_delta", np.diff(values, axis=1))):
        expected = {"mean": of.mean(), "std": of.std(), "rms": np.sqrt((of**2).mean())}
        for what, value in expected.items():
            found = stats[what + suffix]["vorticity"]
            assert found == pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.slow
def test_a_steady_problem_is_constant_fields_and_one_frame(darcy, tmp_path):
    data = open_dataset(darcy).transpose("sample", "x", "y")
    with h5py.File(out(darcy, tmp_path / "well", "well")[0]) as file:
        permeability, pressure = (file["t0_fields"][n] for n in ("permeability", "pressure"))
        assert not permeability.attrs["time_varying"]
        assert pressure.attrs["time_varying"]
        np.testing.assert_array_equal(permeability, data.permeability)
        np.testing.assert_array_equal(pressure[:, 0], data.pressure)
        assert file["dimensions/time"][()].tolist() == [0.0]
        assert file["boundary_conditions/x_wall"].attrs["bc_type"] == "WALL"
    with h5py.File(out(darcy, tmp_path / "pdebench", "pdebench")[0]) as file:
        assert {"nu", "tensor", "x-coordinate", "y-coordinate"} == set(file)
        np.testing.assert_array_equal(file["nu"], data.permeability)
        np.testing.assert_array_equal(file["tensor"][:, 0], data.pressure)


@pytest.mark.slow
def test_a_field_and_what_became_of_it_are_two_frames(burgers, tmp_path):
    data = open_dataset(burgers)
    with h5py.File(out(burgers, tmp_path, "pdebench", name="b")[0]) as file:
        assert file["tensor"].shape == (5, 2, 32)
        np.testing.assert_array_equal(file["tensor"][:, 0], data.initial_velocity)
        np.testing.assert_array_equal(file["tensor"][:, 1], data.velocity)
        assert file["t-coordinate"][()].tolist() == [0.0, 1.0]
        np.testing.assert_allclose(file["x-coordinate"], data.x, rtol=1e-6)
    with h5py.File(out(burgers, tmp_path, "well", splits=["test"])[0]) as file:
        assert file["t0_fields/velocity"].shape == (3, 2, 32)
    assert not (tmp_path / "stats.yaml").exists()  # no training split, no statistics


def test_neuralop_gets_plain_tensors_per_split_and_resolution(darcy, burgers, tmp_path):
    files = out(darcy, tmp_path, "neuralop")
    assert [file.name for file in files] == ["darcy_train_9.pt", "darcy_test_9.pt"]
    pair = torch.load(files[1], weights_only=True)
    data = open_dataset(darcy, "test").transpose("sample", "x", "y")
    assert list(pair) == ["x", "y"]
    np.testing.assert_array_equal(pair["x"], data.permeability)
    np.testing.assert_array_equal(pair["y"], data.pressure)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []
    pair = torch.load(out(burgers, tmp_path, "neuralop")[0], weights_only=True)
    np.testing.assert_array_equal(pair["x"], open_dataset(burgers).initial_velocity)
    np.testing.assert_array_equal(pair["y"], open_dataset(burgers).velocity)


def test_failed_samples_are_refused_or_left_out_on_request(darcy, tmp_path):
    def fail(data, manifest):
        data[STATUS][1] = 1
        data["pressure"][1] = np.nan

    path = rewritten(darcy, tmp_path / "d", fail)
    kept = open_dataset(path).isel(sample=[0, 2, 3, 4]).transpose(..., "x", "y")
    with pytest.raises(ValueError, match=r"1 of 5 samples of split 'train' failed.*--skip-failed"):
        out(path, tmp_path / "o", "well")
    assert not (tmp_path / "o").exists()
    with h5py.File(out(path, tmp_path / "o", "well", skip_failed=True)[0]) as file:
        assert file.attrs["n_trajectories"] == 4
        np.testing.assert_array_equal(file["t0_fields/pressure"][:, 0], kept.pressure)


def test_values_that_are_not_finite_are_refused(darcy, tmp_path):
    def spoil(data, manifest):
        data["pressure"][1, 2, 3] = np.inf

    path = rewritten(darcy, tmp_path / "d", spoil)
    with pytest.raises(ValueError, match="pressure holds values that are not finite"):
        out(path, tmp_path / "o", "pdebench")
    assert list((tmp_path / "o").iterdir()) == []


@pytest.mark.slow
def test_float64_is_rounded_only_on_request(tmp_path):
    path = draw(tmp_path / "d", BurgersRecipe(solver_resolution=32, steps=10), dtype="float64")
    with pytest.raises(ValueError, match=r"holds float64 and the layout well float32.*--float32"):
        out(path, tmp_path / "o", "well")
    with h5py.File(out(path, tmp_path / "o", "well", round_to_float32=True)[0]) as file:
        expected = open_dataset(path).velocity.values.astype(np.float32)
        np.testing.assert_array_equal(file["t0_fields/velocity"][:, 1], expected)


def on_a_sphere(original: Path, path: Path) -> Path:
    """Trajectories on a sphere, made by hand."""
    manifest = Manifest.read(original)
    versions = manifest.splits["train"][0].versions
    height = {"name": "height", "long_name": "height", "units": "m"}
    manifest = replace(
        manifest, nodes=describe_grid(SphereGrid(6, 12, radius=2.0)), inputs=[], outputs=[height],
        times=[0.0, 1.0], splits={}, requested={"train": 3}, shard_size=64,
    )  # fmt: skip
    values = np.random.default_rng(0).standard_normal((3, 2, 6, 12)).astype(np.float32)
    fields = {
        "height": xr.Variable(manifest.dims["height"], values),
        STATUS: xr.Variable("sample", np.zeros(3, np.int8)),
        ERROR: xr.Variable("sample", np.full(3, np.nan, np.float32)),
    }
    data = xr.Dataset(fields, coords(manifest, np.arange(3)))
    manifest.add("train", write_shard(path, "train/00000.nc", data, versions))
    manifest.write(path)
    return path


def test_a_sphere_goes_to_the_well_and_is_refused_by_pdebench(flow, tmp_path):
    path = on_a_sphere(flow, tmp_path / "sphere")
    with pytest.raises(ValueError, match="no place for a sphere; export to well"):
        out(path, tmp_path / "o", "pdebench")
    with h5py.File(out(path, tmp_path / "o", "well")[0]) as file:
        assert file.attrs["grid_type"] == "spherical"
        assert file["dimensions"].attrs["spatial_dims"].tolist() == ["theta", "phi"]
        theta = file["dimensions/theta"][()]
        assert 0 < theta[0] < theta[-1] < np.pi
        np.testing.assert_array_equal(file["t0_fields/height"], open_dataset(path).height)
        assert file["boundary_conditions/phi_periodic"].attrs["bc_type"] == "PERIODIC"


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        ("neuralop", {}, "pairs of fields, this data set trajectories of 6 frames; export to well"),
        ("zarr", {}, "layout must be one of well, pdebench, neuralop, got 'zarr'"),
        ("well", {"name": "../x"}, "without folders"),
        ("well", {"splits": ["valid"]}, "no split 'valid' here"),
    ],
)
def test_what_cannot_be_done_is_said(flow, tmp_path, layout, options, message):
    with pytest.raises(ValueError, match=message):
        out(flow, tmp_path / "o", layout, **options)
    assert not (tmp_path / "o").exists()


def test_pdebench_and_neuralop_hold_one_field(darcy, tmp_path):
    second = vars(Variable("forcing", "forcing", "1"))

    def add(data, manifest):
        manifest.inputs.append(second)

    path = rewritten(darcy, tmp_path / "d", add)
    with pytest.raises(ValueError, match=r"at most one input.*\['permeability', 'forcing'\]"):
        out(path, tmp_path / "o", "pdebench")
    with pytest.raises(ValueError, match="one input and one output"):
        out(path, tmp_path / "o", "neuralop")


@pytest.mark.parametrize("layout", ["well", "pdebench", "neuralop"])
def test_an_interrupted_export_leaves_no_half_file(darcy, tmp_path, monkeypatch, layout):
    good, calls = exports._Split._good, []

    def interrupted(self, shard):
        calls.append(shard)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return good(self, shard)

    monkeypatch.setattr(exports._Split, "_good", interrupted)
    with pytest.raises(KeyboardInterrupt):
        out(darcy, tmp_path / "o", layout)
    assert [p for p in (tmp_path / "o").rglob("*") if p.is_file()] == []
    files = out(darcy, tmp_path / "o", layout)
    with pytest.raises(FileExistsError, match="--overwrite"):
        out(darcy, tmp_path / "o", layout)
    before = [file.read_bytes() for file in files]
    out(darcy, tmp_path / "o", layout, overwrite=True)
    assert [file.read_bytes() for file in files] == before  # and equal runs give equal bytes
