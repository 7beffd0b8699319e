"""Imports: hand-made files of each layout arrive with their meaning, and what is not known is asked for."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch

import sobolev.datasets.layouts.storing as storing
from sobolev.__main__ import main
from sobolev.datasets import (
    BurgersRecipe,
    DamagedDataError,
    DarcyRecipe,
    Manifest,
    NavierStokesRecipe,
    generate,
    open_dataset,
    verify,
)
from sobolev.datasets.layouts.exporting import coordinates, export
from sobolev.datasets.layouts.importing import import_data
from sobolev.datasets.recipes.presets import class_of
from sobolev.datasets.store.manifest import ERROR
from sobolev.grids.sphere import SphereGrid
from sobolev.solvers import Axis, Grid

DICE = np.random.default_rng(0)
X = np.arange(4) / 4


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(storing, "SHARD_SIZE", 4)


def values(*shape: int, dtype=np.float32) -> np.ndarray:
    return DICE.standard_normal(shape).astype(dtype)


def load(source, path: Path, layout=None, **options):
    """Import, check, and open the first split."""
    import_data(source, path, layout, progress=False, **options)
    assert verify(path) == []
    manifest = Manifest.read(path)
    return manifest, open_dataset(path, next(iter(manifest.splits)))


def write_h5(path: Path, arrays: dict, **attrs) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file.attrs.update(attrs)
    return path


def write_well(path: Path, fields: dict, *, points: dict, kind="PERIODIC", scalars=None) -> Path:
    """A file as The Well documents it; ``fields`` by "order/name" with time_varying."""
    fixed = {"sample_varying": False, "time_varying": False}
    count = next(len(v) for v, moves in fields.values() if moves)
    with h5py.File(path, "w") as file:
        file.attrs.update(n_trajectories=count, n_spatial_dims=len(points) - 1)
        file.attrs.update(dataset_name="d", grid_type="cartesian")
        for dim, where in points.items():
            file.create_dataset(f"dimensions/{dim}", data=where.astype("f4")).attrs.update(fixed)
        dims = [dim for dim in points if dim != "time"]
        file["dimensions"].attrs["spatial_dims"] = dims
        for dim in dims:
            group = file.create_group(f"boundary_conditions/{dim}_boundary")
            group.attrs.update(fixed, associated_dims=[dim], bc_type=kind)
        for name, value in (scalars or {}).items():
            varies = {**fixed, "sample_varying": np.ndim(value) > 0}
            file.create_dataset(f"scalars/{name}", data=value).attrs.update(varies)
        for key, (field, moves) in fields.items():
            order, name = key.split("/")
            data = file.create_dataset(f"t{order}_fields/{name}", data=field)
            data.attrs.update(sample_varying=len(field) == count, time_varying=moves)
            data.attrs["dim_varying"] = [True] * len(dims)
    return path


def test_the_well_scalars_vectors_and_constant_fields(tmp_path):
    density, velocity, mask = values(6, 3, 8, 5), values(6, 3, 8, 5, 2), values(8, 5)
    points = {
        "time": np.arange(3) / 10, "x": np.arange(8) * (2 * math.pi / 8), "y": 1 + np.arange(5) / 5
    }  # fmt: skip
    fields = {"0/density": (density, True), "0/mask": (mask, False), "1/velocity": (velocity, True)}
    file = write_well(
        tmp_path / "w.hdf5", fields, points=points, scalars={"gamma": np.float32(1.4)}
    )
    manifest, data = load(file, tmp_path / "d")
    assert manifest.grid == Grid(Axis("y", 5, 1.0, 1.0), Axis("x", 8, 2 * math.pi))
    assert manifest.times == [0.0, 0.1, 0.2]
    assert [v["name"] for v in manifest.inputs] == ["mask"]
    assert manifest.recipe["parameters"] == {"gamma": 1.4}
    swapped = ("sample", "time", "x", "y")
    np.testing.assert_array_equal(data.density.transpose(*swapped), density)
    np.testing.assert_array_equal(data.velocity_x.transpose(*swapped), velocity[..., 0])
    np.testing.assert_array_equal(data.velocity_y.transpose(*swapped), velocity[..., 1])
    np.testing.assert_array_equal(data.mask[4].transpose("x", "y"), mask)


def test_a_well_folder_keeps_its_splits_and_joins_their_files(tmp_path):
    points = {"time": np.arange(2.0), "x": np.arange(6) / 6}
    parts = {"train/a": values(5, 2, 6), "train/b": values(3, 2, 6), "valid/a": values(1, 2, 6)}
    for name, field in parts.items():
        file = tmp_path / "w" / "data" / f"{name}.hdf5"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_well(file, {"0/height": (field, True)}, points=points)
    manifest, data = load(tmp_path / "w", tmp_path / "d")
    assert manifest.requested == {"train": 8, "valid": 1}
    np.testing.assert_array_equal(data.height, np.concatenate([parts["train/a"], parts["train/b"]]))
    assert manifest.recipe["source"] == ["train/a.hdf5", "train/b.hdf5", "valid/a.hdf5"]
    shifted = {**points, "time": points["time"] + 1}
    write_well(
        tmp_path / "w/data/train/b.hdf5", {"0/height": (values(3, 2, 6), True)}, points=shifted
    )
    with pytest.raises(ValueError, match=r"b\.hdf5 differs .* in its times"):
        import_data(tmp_path / "w", tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_a_wall_is_border_nodes_or_cells_only_the_user_knows(tmp_path):
    points = {"time": np.arange(2.0), "x": np.linspace(0, 1, 6)}
    field = {"0/height": (values(2, 2, 6), True)}
    file = write_well(tmp_path / "w.hdf5", field, points=points, kind="WALL")
    with pytest.raises(ValueError, match="'x' is not known: the file says 'wall'; pass boundary="):
        import_data(file, tmp_path / "d")
    manifest, _ = load(file, tmp_path / "d", boundary="dirichlet")
    assert manifest.grid == Grid(Axis("x", 6, 1.0, boundary="dirichlet"))
    manifest, _ = load(file, tmp_path / "e", boundary={"x": "neumann"}, length={"x": 1.2})
    assert manifest.grid == Grid(Axis("x", 6, 1.2, -0.1, boundary="neumann"))


def test_scalars_that_vary_are_refused_or_left_out_on_request(tmp_path):
    points = {"time": np.arange(2.0), "x": np.arange(6) / 6}
    field = {"0/height": (values(2, 2, 6), True)}
    file = write_well(tmp_path / "w.hdf5", field, points=points, scalars={"nu": np.ones(2)})
    with pytest.raises(ValueError, match=r"scalar 'nu' varies.*--without nu"):
        import_data(file, tmp_path / "d")
    with pytest.raises(ValueError, match=r"no \['mu'\] to leave out; there are \['height', 'nu'\]"):
        import_data(file, tmp_path / "d", without=["mu", "nu"])
    manifest, _ = load(file, tmp_path / "d", without=["nu"])
    assert manifest.recipe["given"] == {"without": ["nu"]}


def test_a_component_under_the_name_of_a_field_is_refused(tmp_path):
    points = {"time": np.arange(2.0), "x": np.arange(6) / 6}
    fields = {"0/u_x": (values(2, 2, 6), True), "1/u": (values(2, 2, 6, 1), True)}
    file = write_well(tmp_path / "w.hdf5", fields, points=points)
    with pytest.raises(ValueError, match="two fields have one name, u_x"):
        import_data(file, tmp_path / "d")
    assert "u_x" in load(file, tmp_path / "d", without=["u"])[1]


def test_a_sphere_of_the_well(tmp_path):
    points = {"time": np.arange(2.0), **coordinates(SphereGrid(5, 8, "equiangular"))}
    field = values(2, 2, 5, 8)
    file = write_well(tmp_path / "w.hdf5", {"0/height": (field, True)}, points=points)
    manifest, data = load(file, tmp_path / "d")
    assert manifest.grid == SphereGrid(5, 8, "equiangular")
    np.testing.assert_array_equal(data.height, field)
    points = {"time": points["time"], "phi": points["phi"], "theta": points["theta"]}
    turned = np.swapaxes(field, 2, 3)
    file = write_well(tmp_path / "t.hdf5", {"0/height": (turned, True)}, points=points)
    np.testing.assert_array_equal(load(file, tmp_path / "t")[1].height, field)


def test_float32_coordinates_of_a_fine_grid_are_even(tmp_path):
    points = {"time": np.arange(2.0), "x": np.arange(8192) / 8192 + 3}
    file = write_well(tmp_path / "w.hdf5", {"0/height": (values(2, 2, 8192), True)}, points=points)
    manifest, _ = load(file, tmp_path / "d")
    assert manifest.grid == Grid(Axis("x", 8192, 1.0, 3.0))


def test_uneven_coordinates_are_refused(tmp_path):
    points = {"time": np.arange(2.0), "x": np.arange(6.0) ** 2}
    file = write_well(tmp_path / "w.hdf5", {"0/height": (values(2, 2, 6), True)}, points=points)
    with pytest.raises(ValueError, match="'x' must increase in equal steps, got shape"):
        import_data(file, tmp_path / "d")


def test_pdebench_trajectories_in_one_dimension(tmp_path):
    tensor = values(6, 4, 8)
    arrays = {
        "tensor": tensor, "x-coordinate": ((np.arange(8) + 0.5) / 8).astype("f4"),
        "t-coordinate": (np.arange(5) * 0.05).astype("f4"),
    }  # fmt: skip
    file = write_h5(tmp_path / "1D_Burgers.hdf5", arrays, Nu=0.01)
    manifest, data = load(file, tmp_path / "d")
    assert manifest.grid == Grid(Axis("x", 8, 1.0, 1 / 16))  # periodic, on the file's points
    assert manifest.times == [0.0, 0.05, 0.1, 0.15]  # the file states one more
    np.testing.assert_array_equal(data.tensor, tensor)


@pytest.mark.parametrize(
    ("points", "kind"), [((np.arange(6) + 0.5) / 6, "neumann"), (np.linspace(0, 1, 6), "dirichlet")]
)
def test_pdebench_darcy_lies_on_cells_or_nodes_of_the_unit_square(tmp_path, points, kind):
    arrays = {"tensor": values(5, 1, 6, 6), "nu": values(5, 6, 6)}
    x = points.astype("f4")
    file = write_h5(tmp_path / "d.hdf5", {**arrays, "x-coordinate": x, "y-coordinate": x}, beta=1.0)
    manifest, data = load(file, tmp_path / "d", split="test")
    assert manifest.grid == Grid(*(Axis(n, 6, 1.0, boundary=kind) for n in "yx"))
    assert manifest.times == []
    assert list(manifest.splits) == ["test"]
    np.testing.assert_array_equal(data.nu.transpose("sample", "x", "y"), arrays["nu"])
    np.testing.assert_array_equal(data.tensor.transpose("sample", "x", "y"), arrays["tensor"][:, 0])


def test_neuralop_needs_to_be_told_the_grid(tmp_path):
    pair = {"x": torch.rand(5, 4, 6) > 0.5, "y": torch.rand(5, 1, 4, 6)}
    torch.save(pair, tmp_path / "t_train_16.pt")
    with pytest.raises(ValueError, match=r"holds no coordinates; pass boundary="):
        import_data(tmp_path / "t_train_16.pt", tmp_path / "d")
    with pytest.raises(ValueError, match=r"holds no coordinates; pass length="):
        import_data(tmp_path / "t_train_16.pt", tmp_path / "d", boundary="neumann")
    sources = {"train": tmp_path / "t_train_16.pt", "test": tmp_path / "t_train_16.pt"}
    manifest, data = load(sources, tmp_path / "d", boundary="neumann", length={"x": 1, "y": 2})
    assert manifest.grid == Grid(
        Axis("y", 6, 2.0, boundary="neumann"), Axis("x", 4, 1.0, boundary="neumann")
    )
    assert manifest.requested == {"train": 5, "test": 5}
    np.testing.assert_array_equal(data.input.transpose("sample", "x", "y"), pair["x"].float())
    np.testing.assert_array_equal(data.output.transpose("sample", "x", "y"), pair["y"][:, 0])


class _Hostile:
    def __reduce__(self):
        return Path.touch, (Path("hostile-was-here"),)


@pytest.mark.parametrize("old_format", [False, True])
def test_code_in_a_pt_file_does_not_run(tmp_path, monkeypatch, old_format):
    monkeypatch.chdir(tmp_path)
    if old_format:
        (tmp_path / "h.pt").write_bytes(pickle.dumps({"x": _Hostile()}, protocol=2))
    else:
        torch.save({"x": torch.zeros(2, 3), "y": _Hostile()}, tmp_path / "h.pt")
    with pytest.raises(ValueError, match=r"no file of plain tensors.*can run code"):
        import_data(tmp_path / "h.pt", tmp_path / "d", boundary="periodic", length=1)
    assert not Path("hostile-was-here").exists()
    assert not (tmp_path / "d").exists()


def save_mat(path: Path, arrays: dict, version: str) -> Path:
    """A .mat file; 7.3 is HDF5 with a header of 512 bytes and all axes reversed."""
    if version == "5":
        scipy.io.savemat(path, arrays)
        return path
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = np.transpose(array)
    return path


@pytest.fixture(params=["5", "7.3"])
def version(request):
    return request.param


def test_the_burgers_file_of_the_fno_paper(tmp_path, version):
    arrays = {
        "a": values(9, 16, dtype="f8"),
        "u": values(9, 16, dtype="f8"),
        "a_x": np.ones((9, 16)),
    }
    file = save_mat(tmp_path / "burgers_data_R10.mat", arrays, version)
    with pytest.raises(ValueError, match=r"the papers disagree, .*; pass length="):
        import_data(file, tmp_path / "d")
    splits = {"train": 5, "test": 2}
    manifest, train = load(file, tmp_path / "d", length=2 * math.pi, splits=splits)
    assert manifest.grid == Grid.periodic(16, length=2 * math.pi)
    assert manifest.recipe["samples"] == {"train": [0, 5], "test": [7, 9]}
    assert manifest.dtype == "float64"
    np.testing.assert_array_equal(train.initial_velocity, arrays["a"][:5])
    np.testing.assert_array_equal(train.velocity, arrays["u"][:5])
    np.testing.assert_array_equal(open_dataset(tmp_path / "d", "test").velocity, arrays["u"][7:])
    manifest, train = load(file, tmp_path / "e", length=1, dtype="float32")
    np.testing.assert_array_equal(train.velocity, arrays["u"].astype("f4"))


def test_the_darcy_file_of_the_fno_paper(tmp_path, version):
    arrays = {"coeff": values(5, 6, 7), "sol": values(5, 6, 7)}
    file = save_mat(tmp_path / "piececonst_r421_N1024_smooth1.mat", arrays, version)
    manifest, data = load(file, tmp_path / "d")
    assert [axis.boundary for axis in manifest.grid.axes] == ["neumann", "neumann"]
    np.testing.assert_array_equal(data.permeability.transpose("sample", "x", "y"), arrays["coeff"])
    np.testing.assert_array_equal(data.pressure.transpose("sample", "x", "y"), arrays["sol"])
    card = (tmp_path / "d" / "README.md").read_text()
    assert "interpolated to cell centres and transposed" in card
    assert "cannot draw them again" in card
    manifest, _ = load(file, tmp_path / "e", boundary="dirichlet")
    assert [axis.boundary for axis in manifest.grid.axes] == ["dirichlet", "dirichlet"]


def test_the_navier_stokes_file_of_the_fno_paper(tmp_path, version):
    arrays = {"a": values(3, 6, 8), "u": values(3, 6, 8, 4), "t": np.arange(1.0, 5.0)[None]}
    file = save_mat(tmp_path / "NavierStokes_V1e-3_N5000_T50.mat", arrays, version)
    manifest, data = load(file, tmp_path / "d")
    assert manifest.grid == Grid.periodic(8, 6)
    assert manifest.times == [0.0, 1.0, 2.0, 3.0, 4.0]
    field = data.vorticity.transpose("sample", "x", "y", "time").values
    np.testing.assert_array_equal(field[..., 0], arrays["a"])
    np.testing.assert_array_equal(field[..., 1:], arrays["u"])


def test_an_imported_set_says_what_it_is(tmp_path):
    file = save_mat(tmp_path / "b.mat", {"a": values(2, 8), "u": values(2, 8)}, "5")
    manifest, _ = load(file, tmp_path / "d", length=1)
    recipe = manifest.recipe
    assert {k: recipe[k] for k in ("class", "layout", "source")} == {
        "class": "Imported", "layout": "fno-mat", "source": "b.mat"
    }  # fmt: skip
    assert len(recipe["sha256"]) == 64
    assert class_of(manifest.recipe) is None
    assert manifest.equation == manifest.measure == "not known: imported"
    with pytest.raises(FileExistsError, match="another configuration"):
        import_data(file, tmp_path / "d", length=2, progress=False)
    load(file, tmp_path / "d", length=2, overwrite=True)


def test_verify_claims_no_equation_of_imported_data(tmp_path, capsys):
    arrays = {"a": values(6, 8), "u": values(6, 8)}
    load(save_mat(tmp_path / "b.mat", arrays, "5"), tmp_path / "d", length=1)
    assert main(["verify", str(tmp_path / "d")]) == 0
    said = capsys.readouterr().out
    assert "its fields are finite; no equation is known to check" in said


def test_samples_that_are_not_finite_are_flagged(tmp_path):
    arrays = {"a": values(6, 8), "u": values(6, 8)}
    arrays["u"][4, 3] = np.nan
    _, data = load(save_mat(tmp_path / "b.mat", arrays, "5"), tmp_path / "d", length=1)
    assert data.status.values.tolist() == [0, 0, 0, 0, 1, 0]
    np.testing.assert_array_equal(data.velocity, arrays["u"])


def test_an_interrupted_import_is_unfinished_until_it_is_run_again(tmp_path, monkeypatch):
    file = save_mat(tmp_path / "b.mat", {"a": values(10, 8), "u": values(10, 8)}, "5")
    write, calls = storing.write_shard, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(*arguments)

    monkeypatch.setattr(storing, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_data(file, tmp_path / "d", length=1, progress=False)
    with pytest.raises(
        ValueError, match=r"unfinished: 4 of 10 .*; import .* again with --overwrite"
    ):
        open_dataset(tmp_path / "d")
    assert load(file, tmp_path / "d", length=1)[1].sizes["sample"] == 10


def test_a_damaged_import_is_to_be_imported_again(tmp_path):
    file = save_mat(tmp_path / "b.mat", {"a": values(3, 8), "u": values(3, 8)}, "5")
    load(file, tmp_path / "d", length=1)
    shard = tmp_path / "d" / "train" / "00000.nc"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DamagedDataError, match="import the data set again with --overwrite"):
        open_dataset(tmp_path / "d").velocity.load()
    load(file, tmp_path / "d", length=1, overwrite=True)


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({"train": 6, "test": 3}, {"train": range(6), "test": range(7, 10)}),
        ({"train": 0.75, "test": 0.25}, {"train": range(8), "test": range(8, 10)}),
        ({"test": 2, "valid": 3, "train": 5}, {"test": range(8, 10), "valid": range(3), "train": range(3, 8)}),
    ],
)  # fmt: skip
def test_splits_are_in_the_order_of_the_file_and_the_test_comes_last(splits, expected):
    assert storing._shares(splits, 10) == expected


def h5_file(tmp_path, **arrays):
    return write_h5(tmp_path / "f.h5", arrays)


def borrowing(tmp_path, way):
    """A file whose values lie in another one, which may be any of the reader's."""
    other = write_h5(tmp_path / "other.h5", {"tensor": values(2, 2, 4)})
    file = h5_file(tmp_path, **{"x-coordinate": X, "t-coordinate": np.arange(2.0)})
    with h5py.File(file, "a") as opened:
        if way == "link":
            opened["tensor"] = h5py.ExternalLink(other, "tensor")
        elif way == "raw":
            opened.create_dataset("tensor", (2, 2, 4), "f4", external=[(str(other), 0, 64)])
        else:
            layout = h5py.VirtualLayout((2, 2, 4), "f4")
            layout[:] = h5py.VirtualSource(other, "tensor", (2, 2, 4))
            opened.create_virtual_dataset("tensor", layout)
    return file


def saved(tmp_path, content):
    torch.save(content, tmp_path / "f.pt")
    return tmp_path / "f.pt"


def mat(tmp_path, **arrays):
    return save_mat(tmp_path / "f.mat", arrays, "5")


def written(tmp_path, text):
    (tmp_path / "f.mat").write_bytes(text)
    return tmp_path / "f.mat"


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (lambda p: h5_file(p, data=X), {}, "none of the layouts well, .* It holds data"),
        (lambda p: h5_file(p, data=X), {"layout": "well"}, r"expected dimensions, .*; found data \(4,\)"),
        (lambda p: h5_file(p, tensor=X), {}, r"expected tensor \(sample, time, .*; found tensor \(4,\)"),
        (
            lambda p: h5_file(p, tensor=values(2, 2, 4), **{"x-coordinate": X}),
            {},
            "t-coordinate is missing; found tensor",
        ),
        (
            lambda p: h5_file(p, tensor=values(2, 1, 5), **{"x-coordinate": X}),
            {},
            r"tensor should have shape \(2, 1, 4\), got \(2, 1, 5\)",
        ),
        (
            lambda p: h5_file(p, tensor=values(2, 1, 4, 4), **{"x-coordinate": X, "y-coordinate": X}),
            {},
            "boundary of axis 'y' is not known: PDEBench's files do not say",
        ),
        (lambda p: borrowing(p, "link"), {}, "tensor points into another file"),
        (lambda p: borrowing(p, "raw"), {}, "tensor points into another file"),
        (lambda p: borrowing(p, "virtual"), {}, "tensor points into another file"),
        (lambda p: saved(p, {"x": torch.zeros(3, 4)}), {}, r"tensors x and y .*; found x \(3, 4\)"),
        (lambda p: saved(p, [torch.zeros(2)]), {}, "found list"),
        (
            lambda p: saved(p, {"x": torch.zeros(3, 4), "y": torch.zeros(3, 5, 4)}),
            {},
            r"of one shape .* found x \(3, 4\), y \(3, 5, 4\)",
        ),
        (lambda p: mat(p, a=values(3, 4)), {}, r"a and u \(Burgers\), .*; found a \(3, 4\)"),
        (
            lambda p: mat(p, coeff=values(3, 4, 4), sol=values(3, 4, 5)),
            {},
            r"of one shape, got \(3, 4, 4\) and \(3, 4, 5\)",
        ),
        (
            lambda p: mat(p, a=values(3, 4, 4), u=values(3, 4, 4, 2), t=np.arange(3.0)),
            {},
            r"expected u of shape .* = \(3, 4, 4, 3\) by a and t, got \(3, 4, 4, 2\)",
        ),
        (lambda p: mat(p, a=values(3, 4) * 1j, u=values(3, 4)), {"length": 1}, "expected real numbers"),
        (lambda p: written(p, b"MATLAB?" * 99), {}, "cannot be read as a MATLAB file"),
        (lambda p: p, {}, r"expected data/SPLIT/\*\.hdf5 in it as in The Well, found nothing"),
        (lambda p: mat(p, a=X), {"layout": "zarr"}, "layout must be one of well, pdebench"),
        (lambda p: mat(p, a=X), {"dtype": "int8"}, "float32 or float64, got 'int8'"),
        (lambda p: mat(p, a=X), {"split": "../train"}, "plain word like 'train'"),
        (
            lambda p: mat(p, a=values(3, 4), u=values(3, 4)),
            {"length": 1, "splits": {"train": 3, "test": 1}},
            "the file's 3 in all, got {'train': 3, 'test': 1}",
        ),
        (lambda p: mat(p, a=values(3, 4), u=values(3, 4)), {"length": {"y": 1, "x": 1}}, r"\['y'\]; there are"),
        (
            lambda p: mat(p, a=values(3, 4), u=values(3, 4)),
            {"length": 1, "without": ["t"]},
            "fno-mat has nothing to leave out",
        ),
        (
            lambda p: mat(p, a=values(3, 4), u=values(3, 4)),
            {"length": 1, "boundary": "reflecting"},
            "boundary='reflecting'; it must be one of",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(tmp_path, source, options, message):
    with pytest.raises(ValueError, match=message):
        import_data(source(tmp_path), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone\.mat"):
        import_data(tmp_path / "gone.mat", tmp_path / "d")


RECIPES = {
    "burgers": BurgersRecipe(solver_resolution=32, steps=10),
    "darcy": DarcyRecipe(solver_resolution=9),
    "flow": NavierStokesRecipe(solver_resolution=16, time=0.5, interval=0.1, viscosity=0.01),
}


@pytest.fixture(scope="module", params=RECIPES)
def original(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / request.param
    return generate(RECIPES[request.param], path, {"train": 5, "test": 3}, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["well", "pdebench"])
def test_round_trips_lose_nothing(original, tmp_path, layout):
    files = export(original, tmp_path / "o", layout, progress=False)
    source = tmp_path / "o"
    if layout == "pdebench":
        source = dict(zip(("train", "test"), files, strict=True))
    manifest, _ = load(source, tmp_path / "d", layout)
    before = Manifest.read(original)
    for part in ("nodes", "inputs", "outputs", "times", "time_units", "requested", "dtype"):
        assert getattr(manifest, part) == getattr(before, part)
    assert json.loads(manifest.recipe["stated"]["recipe"]) == before.recipe
    assert manifest.recipe["stated"]["manifest_sha256"] == before.digest
    for split in before.splits:
        ours, theirs = open_dataset(original, split), open_dataset(tmp_path / "d", split)
        for name in set(ours.variables) - {ERROR}:  # which the layouts have no place for
            np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("original", ["burgers", "darcy"], indirect=True)  # the layout has no time
def test_a_round_trip_through_neuralop_keeps_the_values(original, tmp_path):
    manifest = Manifest.read(original)
    train, _ = export(original, tmp_path / "o", "neuralop", progress=False)
    axis = manifest.grid.axes[0]
    copy, data = load(train, tmp_path / "d", boundary=axis.boundary, length=axis.length)
    assert copy.nodes == manifest.nodes
    ours = open_dataset(original)
    for name, theirs in zip([v.name for v in manifest.variables], ("input", "output"), strict=True):
        np.testing.assert_array_equal(ours[name], data[theirs])


def test_a_changed_export_is_read_by_what_it_holds(tmp_path):
    """Every second node of an exported file: the attributes no longer describe it."""
    path = generate(RECIPES["flow"], tmp_path / "f", {"train": 2}, progress=False)
    (file,) = export(path, tmp_path / "o", "pdebench", progress=False)
    with h5py.File(file, "a") as opened:
        coarse = {key: opened[key][..., ::2] for key in ("x-coordinate", "y-coordinate")}
        coarse["tensor"] = opened["tensor"][:, :, ::2, ::2]
        for key, array in coarse.items():
            del opened[key]
            opened[key] = array
    with pytest.raises(ValueError, match="is not known"):
        import_data(file, tmp_path / "d")
    manifest, _ = load(file, tmp_path / "d", boundary="periodic")
    assert manifest.grid == Grid.periodic(8, 8)
    assert "stated" not in manifest.recipe


def test_a_float64_set_stays_one_only_if_the_source_is(tmp_path):
    recipe = replace(RECIPES["burgers"], solver_resolution=16)
    path = generate(recipe, tmp_path / "b", {"train": 2}, dtype="float64", progress=False)
    (file,) = export(path, tmp_path / "o", "pdebench", round_to_float32=True, progress=False)
    assert load(file, tmp_path / "d")[0].dtype == "float32"
