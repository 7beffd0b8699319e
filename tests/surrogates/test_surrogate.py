"""The saved surrogate: what it predicts, what it refuses, and that nothing in its folder is run."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import safetensors.torch
import torch
import xarray as xr

from sobolev import Grid, Surrogate
from sobolev.datasets import DarcyRecipe, open_dataset
from sobolev.grids.variables import Variable
from sobolev.operators import FNO
from sobolev.surrogates.files import meaning_digest

VELOCITIES = (
    Variable("initial_velocity", "velocity at time 0", "m s-1"),
    Variable("velocity", "velocity", "m s-1"),
)


@pytest.fixture
def burgers() -> Surrogate:
    scales = {"initial_velocity": (0.5, 2.0), "velocity": (-1.0, 3.0)}
    grid = Grid.periodic(32, length=2.0, origin=-1.0)
    return Surrogate(
        FNO(1, 1, modes=(4,), width=8, depth=2),
        grid,
        VELOCITIES[:1],
        VELOCITIES[1:],
        scales,
        {"note": "test"},
    ).eval()


@pytest.fixture
def darcy() -> Surrogate:
    operator = FNO(1, 1, modes=(3, 3), width=6, depth=2, boundary="dirichlet")
    scales = {"permeability": (7.0, 4.5), "pressure": (0.005, 0.003)}
    return Surrogate(
        operator, Grid.dirichlet(17, 17), DarcyRecipe.inputs, DarcyRecipe.outputs, scales
    ).eval()


def fields(n=48, count=3, **attributes) -> xr.Dataset:
    x = Grid.periodic(n, length=2.0, origin=-1.0).points()[0].numpy()
    values = np.stack([np.sin(np.pi * (x + i)) for i in range(count)])
    variable = xr.DataArray(
        values, dims=("sample", "x"), coords={"x": x}, attrs={"units": "m s-1", **attributes}
    )
    return xr.Dataset({"initial_velocity": variable})


def test_prediction_has_names_units_and_coordinates(burgers):
    result = burgers.predict(fields())
    assert dict(result.sizes) == {"sample": 3, "x": 48}
    assert result.velocity.attrs == {"long_name": "velocity", "units": "m s-1"}
    np.testing.assert_allclose(result.x, fields().x)
    assert json.loads(result.attrs["provenance"]) == {"note": "test"}


def test_tensors_and_datasets_agree_and_are_in_physical_units(burgers):
    u = torch.from_numpy(fields().initial_velocity.values).float()[:, None]
    by_hand = 3.0 * burgers.operator((u - 0.5) / 2.0) - 1.0
    assert torch.allclose(burgers(u), by_hand, atol=1e-6)
    np.testing.assert_allclose(
        burgers.predict(fields(), batch_size=2).velocity, by_hand[:, 0].detach(), atol=1e-6
    )


def test_any_order_of_dimensions_and_a_single_field(burgers):
    whole = burgers.predict(fields())
    turned = burgers.predict(
        fields().transpose("x", "sample").rename(sample="member").assign_coords(member=[7, 8, 9])
    )
    np.testing.assert_allclose(turned.velocity, whole.velocity)
    assert turned.velocity.dims == ("member", "x")
    assert turned.member.values.tolist() == [7, 8, 9]
    one = burgers.predict(fields().isel(sample=1))
    assert one.velocity.dims == ("x",)
    np.testing.assert_allclose(one.velocity, whole.velocity[1], atol=1e-6)


def test_prediction_on_a_finer_grid(burgers):
    fine = burgers.predict(fields(), resolution=144)
    np.testing.assert_allclose(fine.velocity[:, ::3], burgers.predict(fields()).velocity, atol=0.02)
    np.testing.assert_allclose(fine.x[:3], [-1.0, -1 + 1 / 72, -1 + 2 / 72])


def test_pressure_is_zero_on_the_border(darcy):
    u = darcy(torch.rand(2, 1, 21, 21) + 1.0)
    assert torch.equal(u, Grid.dirichlet(21, 21).without_border(u))
    assert u[..., 1:-1, 1:-1].abs().min() > 0


def test_differentiable_with_respect_to_its_input(burgers):
    double = burgers.double()
    u = torch.randn(1, 1, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(double, (u,))


def test_save_and_load_is_bit_for_bit(burgers, darcy, tmp_path):
    for surrogate, u in (
        (burgers, torch.randn(2, 1, 20)),
        (darcy.double(), torch.rand(2, 1, 20, 20) + 1),
    ):
        surrogate.save(tmp_path / "s")  # the second replaces the first
        again = Surrogate.load(tmp_path / "s")
        assert torch.equal(surrogate(u), again(u))
        assert again.provenance == surrogate.provenance
        assert again.grid == surrogate.grid
        assert not again.training
    assert sorted(f.name for f in (tmp_path / "s").iterdir()) == [
        "model.safetensors",
        "surrogate.json",
    ]


def test_works_with_the_data_sets_of_this_package(darcy, darcy_data):
    assert darcy.predict(open_dataset(darcy_data, "test")).pressure.shape == (4, 17, 17)


def test_runs_with_another_default_device(burgers):
    u = torch.randn(2, 1, 20)
    expected = burgers(u)
    with torch.device("meta"):
        assert torch.equal(burgers(u), expected)


def spoiled(change):
    data = fields()
    result = change(data)
    return data if result is None else result


def with_nan(data):
    data.initial_velocity[2, 5] = np.nan


def with_coordinates(values):
    return lambda data: data.assign_coords(x=values)


def with_boundary(data):
    data.x.attrs["boundary"] = "dirichlet"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.rename(initial_velocity="u"), "lacks initial_velocity; it holds u"),
        (lambda d: d.drop_vars("x"), "no coordinate 'x'"),
        (lambda d: fields(units="km/h"), "in units 'km/h'; the surrogate was trained on 'm s-1'"),
        (with_nan, "initial_velocity holds NaN or infinite values .first in sample 2"),
        (with_coordinates(np.linspace(-1, 1, 48)), "periodic: the end point left out"),
        (with_coordinates(np.linspace(0, 2, 48, endpoint=False)), "from -1 to"),
        (with_boundary, "is dirichlet in the dataset; expected periodic"),
        (lambda d: d.expand_dims(time=2), "at most one more"),
        (lambda d: d * 1e300, "the prediction is not finite"),
        (lambda d: d.isel(sample=slice(0, 0)), "at least one field"),
        (lambda d: d + 1j, "must be real"),
        (lambda d: d.astype(str), "must be real numbers .* dtype <U"),
        (lambda d: d.isel(x=3), "coordinate 'x' has dimensions .. and dtype float64"),
        (lambda d: d.assign_coords(x=d.x.astype(str)), "coordinate 'x' .* dtype <U"),
        (lambda d: d.rename(sample="velocity"), "along 'velocity', which is an output's name"),
    ],
)
def test_unfit_input_is_refused_by_name(burgers, change, message):
    with pytest.raises(ValueError, match=message):
        burgers.predict(spoiled(change))


def test_numbers_without_units_have_1_or_none(burgers):
    plain = [replace(v, units="1") for v in VELOCITIES]
    statistics = {v.name: (0.0, 1.0) for v in plain}
    surrogate = Surrogate(burgers.operator, burgers.grid, plain[:1], plain[1:], statistics)
    one, none = (surrogate.predict(fields(units=units)) for units in ("1", ""))
    assert one.identical(none)
    with pytest.raises(ValueError, match="in units 'm'; the surrogate was trained on '1'"):
        surrogate.predict(fields(units="m"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits_are_refused_with_what_to_do(burgers, dtype):
    with pytest.raises(ValueError, match=f"FNO has {dtype} parameters.*use .float.., and torch.au"):
        copy.deepcopy(burgers).to(dtype).predict(fields())


def test_arrays_are_refused_with_what_makes_tensors_of_them(burgers, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for model in (burgers, burgers.operator):
        with pytest.raises(
            ValueError, match=r"takes a torch\.Tensor, got ndarray; torch\.as_tensor"
        ):
            model(np.zeros((1, 1, 16), dtype=np.float32))


def two_inputs() -> tuple[Surrogate, xr.Dataset]:
    names = [Variable(name, name, "1") for name in ("f", "g")]
    scales = {"f": (0.0, 1.0), "g": (0.0, 1.0), "velocity": (0.0, 1.0)}
    operator = FNO(2, 1, modes=(3,), width=4, depth=1)
    grid = Grid.periodic(8)
    field = xr.DataArray(np.ones((3, 8)), dims=("sample", "x"), coords={"x": grid.points()[0]})
    return Surrogate(operator, grid, names, VELOCITIES[1:], scales), xr.Dataset(
        {"f": field, "g": field}
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.rename(sample="time"), "f has sample, g has time"),
        (lambda f: f.isel(sample=0), "f has sample, g has none"),
    ],
)
def test_samples_of_different_dimensions_are_not_paired(change, message):
    surrogate, data = two_inputs()
    data["g"] = change(data["g"])
    with pytest.raises(ValueError, match=message):
        surrogate.predict(data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 16.0}, "resolution needs a whole number, or one for each axis; got 16.0"),
        ({"resolution": "64"}, "resolution needs a whole number, or one for each axis; got '64'"),
        ({"resolution": (16.0,)}, "got size=16.0 for axis 'x'"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
    ],
)
def test_unfit_options_are_refused(burgers, monkeypatch, options, message):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        burgers.predict(fields(), **options)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


def test_pickles_are_refused_unopened(burgers, tmp_path):
    folder = burgers.save(tmp_path / "s")
    (folder / "model.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"model\.pt, which could run code"):
        Surrogate.load(folder)
    (folder / "model.pt").unlink()
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="damaged"):
        Surrogate.load(folder)


def edited(folder, change, *, sealed=True):
    file = folder / "surrogate.json"
    meaning = json.loads(file.read_text())
    change(meaning)
    if meaning.pop("self_sha256") and sealed:
        meaning["self_sha256"] = meaning_digest(meaning)
    file.write_text(json.dumps(meaning))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m["operator"].update({"class": "os.system"}),
            "surrogate.json: 'os.system' is not one of",
        ),
        (lambda m: m["operator"].update({"class": "Operator"}), "not one of sobolev's"),
        (lambda m: m["operator"].update({"class": "FNOO"}), "did you mean FNO"),
        (lambda m: m["operator"]["arguments"].update(widht=3), "widht"),
        (lambda m: m["operator"]["arguments"].update(width=9), "do not fit the operator"),
        (lambda m: m.pop("grid"), "lacks grid"),
        (lambda m: m.update(schema=99), "schema 99"),
        (lambda m: m["operator"].pop("class"), r"surrogate\.json"),
        (lambda m: m["operator"]["arguments"].update(width=10**12), r"surrogate\.json"),
        (lambda m: m["operator"]["arguments"].update(width=10**6), "do not fit the operator"),
        (lambda m: m["inputs"][0].update(name=5), r"surrogate\.json"),
        (lambda m: m["grid"]["axes"][0].update(size=10**30), "no field has 10+ nodes"),
        (lambda m: m["grid"]["axes"][0].update(size="many"), r"surrogate\.json"),
        (lambda m: m["grid"]["axes"][0].update(length=-1), r"surrogate\.json: axis 'x' needs"),
        (lambda m: m["grid"].pop("axes"), r"surrogate\.json does not describe a surrogate"),
        (
            lambda m: m["inputs"].append(m["inputs"][0]),
            r"surrogate\.json: .*twice among the inputs",
        ),
    ],
)
def test_edited_descriptions_are_refused(burgers, tmp_path, change, message):
    folder = burgers.save(tmp_path / "s")
    edited(folder, change)
    with pytest.raises(ValueError, match=message):
        Surrogate.load(folder)


def test_an_altered_description_is_refused(burgers, tmp_path):
    folder = burgers.save(tmp_path / "s")
    edited(folder, lambda m: m["grid"]["axes"][0].update(length=3.0), sealed=False)
    with pytest.raises(ValueError, match="damaged or was edited"):
        Surrogate.load(folder)


def test_a_description_nested_without_end_is_refused(burgers, tmp_path):
    folder = burgers.save(tmp_path / "s")
    (folder / "surrogate.json").write_text('{"a":' * 100_000)
    with pytest.raises(ValueError, match=r"surrogate\.json .* nested too deeply"):
        Surrogate.load(folder)


def to(dtype):
    return lambda name, weight: weight.to(dtype)


def all_of(part, value):
    return lambda name, weight: torch.full_like(weight, value) if name == part else weight


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (to(torch.bfloat16), "has weights of torch.bfloat16; expected float32 alone or float64"),
        (to(torch.complex64), "complex64"),
        (to(torch.bool), "bool"),
        (lambda n, w: w.double() if n == "input_mean" else w, "torch.float32, torch.float64"),
        (all_of("input_scale", 0.0), "initial_velocity is constant"),
        (all_of("output_scale", -1.0), "velocity needs a finite mean and a positive standard dev"),
        (all_of("output_mean", float("nan")), "velocity needs a finite mean"),
    ],
)
def test_altered_weights_are_refused(burgers, tmp_path, change, message):
    folder = burgers.save(tmp_path / "s")
    state = safetensors.torch.load((folder / "model.safetensors").read_bytes())
    weights = safetensors.torch.save({name: change(name, w) for name, w in state.items()})
    (folder / "model.safetensors").write_bytes(weights)
    edited(folder, lambda m: m.update(sha256=hashlib.sha256(weights).hexdigest()))
    with pytest.raises(ValueError, match=message):
        Surrogate.load(folder)


def test_missing_parts_are_named(burgers, tmp_path):
    with pytest.raises(FileNotFoundError, match="no surrogate folder"):
        Surrogate.load(tmp_path / "nowhere")
    folder = burgers.save(tmp_path / "s")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        Surrogate.load(folder)


def test_saving_over_other_things_is_refused(burgers, tmp_path):
    (tmp_path / "thesis.tex").write_text("irreplaceable")
    with pytest.raises(FileExistsError, match=r"thesis\.tex"):
        burgers.save(tmp_path)
    with pytest.raises(FileExistsError, match=r"thesis\.tex is a file"):
        burgers.save(tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "irreplaceable"


def test_saving_touches_nothing_beside_its_folder(burgers, tmp_path):
    for neighbour in ("s.old", "s.part"):
        (tmp_path / neighbour).mkdir()
        (tmp_path / neighbour / "thesis.tex").write_text("irreplaceable")
    for _ in range(2):
        burgers.save(tmp_path / "s")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["s", "s.old", "s.part"]
    assert len(list(tmp_path.rglob("thesis.tex"))) == 2


def test_a_failed_save_leaves_the_older_surrogate(burgers, darcy, tmp_path, monkeypatch):
    folder, plain = burgers.save(tmp_path / "s"), Path.replace

    def fail(self, target):
        if self.name.endswith(".part"):
            raise OSError("the disk is gone")
        return plain(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        darcy.save(folder)
    assert Surrogate.load(folder).grid == burgers.grid
    assert [f.name for f in tmp_path.iterdir()] == ["s"]


def test_weights_that_could_not_be_loaded_are_not_saved(burgers, tmp_path):
    with pytest.raises(ValueError, match=r"torch\.bfloat16; expected float32"):
        burgers.bfloat16().save(tmp_path / "s")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (lambda: FNO(2, 1, modes=(4,)), "in_channels=2, the data have 1 .initial_velocity"),
        (lambda: FNO(1, 3, modes=(4,)), "out_channels=3"),
        (lambda: FNO(1, 1, modes=(4, 4)), "works on 2-dimensional fields here, the data are 1-dim"),
        (
            lambda: FNO(1, 1, modes=(4,), boundary="neumann"),
            "boundary=.'neumann'., the data's axes are .'periodic'.",
        ),
    ],
)
def test_operators_that_do_not_fit_the_data_are_refused(operator, message):
    scales = {v.name: (0.0, 1.0) for v in VELOCITIES}
    with pytest.raises(ValueError, match=message):
        Surrogate(operator(), Grid.periodic(8), VELOCITIES[:1], VELOCITIES[1:], scales)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ({"initial_velocity": (0.0, 1.0), "velocity": (1.0, 0.0)}, "velocity is constant"),
        ({"initial_velocity": (float("nan"), 1.0)}, "initial_velocity needs a finite mean"),
        ({"initial_velocity": (0.0, float("inf"))}, "a positive standard deviation, got 0 and inf"),
        ({}, "the statistics lack initial_velocity; they hold velocity"),
    ],
)
def test_statistics_that_cannot_normalise_are_refused(scales, message):
    scales = {"velocity": (0.0, 1.0), **scales}
    with pytest.raises(ValueError, match=message):
        Surrogate(FNO(1, 1, modes=(4,)), Grid.periodic(8), VELOCITIES[:1], VELOCITIES[1:], scales)


def test_a_variable_is_one_input():
    scales = {v.name: (0.0, 1.0) for v in VELOCITIES}
    twice = [VELOCITIES[0], VELOCITIES[0]]
    with pytest.raises(ValueError, match="twice among the inputs: initial_velocity, initial"):
        Surrogate(FNO(2, 1, modes=(4,)), Grid.periodic(8), twice, VELOCITIES[1:], scales)
