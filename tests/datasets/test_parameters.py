"""Numbers beside fields: drawn for each sample, stored, given to operators as the first channels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from sobolev.__main__ import main
from sobolev.datasets import (
    PRESETS,
    BurgersRecipe,
    Manifest,
    NavierStokesRecipe,
    OperatorDataModule,
    generate,
    open_dataset,
    store_fields,
    verify,
)
from sobolev.datasets.generating.generation import streams
from sobolev.datasets.recipes.presets import recipe_from, varying, words_for
from sobolev.grids.variables import Parameter

SMALL = BurgersRecipe(
    solver_resolution=32, steps=20, parameters=(varying("viscosity", "0.05:1:log"),)
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    path = tmp_path_factory.mktemp("varied") / "data"
    generate(SMALL, path, {"train": 10, "test": 3}, progress=False)
    return path


def test_half_of_the_draws_lie_below_the_middle_of_their_scale():
    dice = np.random.default_rng(0)
    for scale, middle in (("linear", 50.5), ("log", 10.0)):
        parameter = Parameter("a", "a", "1", 1.0, 100.0, scale)
        values = np.array([parameter.draw(dice) for _ in range(4000)])
        assert 1 <= values.min() < 1.1 * middle
        assert 0.9 * middle < values.max() <= 100
        assert np.mean(values < middle) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("low", "high", "scale", "said"),
    [
        (1, 1, "linear", "range"),
        (0, 1, "log", "positive"),
        (0, math.inf, "linear", "range"),
        (0, 1, "cubic", "linear or log"),
    ],
)
def test_ranges_that_are_none_are_refused(low, high, scale, said):
    with pytest.raises(ValueError, match=said):
        Parameter("a", "a", "1", float(low), float(high), scale)


def test_each_sample_solves_the_equation_of_its_own_viscosity(drawn):
    data = open_dataset(drawn).load()
    manifest = Manifest.read(drawn)
    assert data.viscosity.dims == ("sample",)
    assert 0.05 <= float(data.viscosity.min()) < float(data.viscosity.max()) <= 1
    for sample in (0, 9):
        (dice,) = streams(manifest, "train", range(sample, sample + 1))
        own = SMALL.of_sample(dice)
        assert own.viscosity == pytest.approx(float(data.viscosity[sample]), rel=1e-6)
        fields = own.solved([dice])
        np.testing.assert_allclose(data.velocity[sample], fields.outputs[0, 0], rtol=1e-5)
    assert verify(drawn, redraw=2) == []


def test_a_recipe_with_parameters_is_read_from_its_files_and_goes_on(drawn, tmp_path):
    manifest = Manifest.read(drawn)
    assert recipe_from(manifest.recipe) == SMALL
    assert words_for(manifest.recipe)[:3] == ["burgers-fno", "--vary", "viscosity=0.05:1:log"]
    before = open_dataset(drawn).load()
    generate(SMALL, drawn, {"train": 12}, progress=False)
    xr.testing.assert_equal(open_dataset(drawn).load().isel(sample=slice(0, 10)), before)


def test_recipes_without_parameters_are_named_in_files_as_before():
    assert "parameters" not in BurgersRecipe().configuration()
    assert words_for(BurgersRecipe(solver_resolution=2048).configuration())[0] == "burgers-fno"
    assert words_for(PRESETS["ns-nu"].configuration()) == ["ns-nu"]


@pytest.mark.parametrize(
    ("recipe", "name", "text", "said"),
    [
        (BurgersRecipe(), "viscositi", "0:1", "cannot vary 'viscositi'; its numbers are viscosity"),
        (BurgersRecipe(), "steps", "10:20", "cannot vary 'steps'"),
        (BurgersRecipe(), "length", "1:2", "length cannot vary: it changes the nodes"),
        (NavierStokesRecipe(), "time", "10:20", "time cannot vary: it changes the nodes or the times"),
        (BurgersRecipe(), "viscosity", "-1:1", "viscosity"),
    ],
)  # fmt: skip
def test_what_cannot_vary_is_refused_before_anything_is_written(tmp_path, recipe, name, text, said):
    with pytest.raises(ValueError, match=said):
        generate(replace(recipe, parameters=(varying(name, text),)), tmp_path / "d", {"train": 1})
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("in_memory", [True, False])
def test_numbers_are_the_first_channels_and_the_same_at_all_nodes(drawn, in_memory):
    data = OperatorDataModule(drawn, in_memory=in_memory, resolution=16, train_samples=8)
    assert [v.name for v in data.inputs] == ["viscosity", "initial_velocity"]
    inputs, _ = data.pairs("train")[:]
    stored = open_dataset(drawn).viscosity.values[:8]
    np.testing.assert_array_equal(inputs[:, 0], np.repeat(stored[:, None], 16, axis=1))
    logs = np.log(stored.astype(float))
    assert data.statistics["viscosity"] == pytest.approx((logs.mean(), logs.std()), rel=1e-6)


def test_the_command_line_varies_parameters(tmp_path, capsys):
    words = [
        "burgers-fno",
        str(tmp_path / "d"),
        "--set",
        "solver_resolution=32",
        "--set",
        "steps=10",
    ]
    options = ["--vary", "viscosity=0.1:0.2", "--samples", "train=3", "--workers", "1"]
    assert main(["generate", *words, *options, "--resolution", "32"]) == 0
    found = open_dataset(tmp_path / "d").viscosity.values
    assert ((found >= 0.1) & (found <= 0.2)).all()
    assert len(set(found.tolist())) == 3
    assert main(["generate", *words, "--vary", "viscosity=a", "--overwrite"]) == 2
    assert "LOW:HIGH" in capsys.readouterr().err


def own(numbers) -> xr.Dataset:
    fields = np.random.default_rng(0).standard_normal((4, 8))
    return xr.Dataset(
        {"depth": ("run", numbers, {"units": "m"}), "a": (("run", "x"), fields), "b": (("run", "x"), fields)},
        {"x": np.arange(8) / 8},
    )  # fmt: skip


def test_numbers_of_own_data_are_recognised_by_their_dimension(tmp_path):
    options = {"outputs": "b", "boundary": "periodic", "progress": False}
    for name, numbers, scale in (("a", [1.0, 2, 5, 20], "log"), ("b", [-1.0, 2, 5, 20], "linear")):
        store_fields(own(numbers), tmp_path / name, inputs=["a", "depth"], **options)
        (parameter,) = Manifest.read(tmp_path / name).scalars
        assert (parameter.low, parameter.high) == (numbers[0], 20)
        assert (parameter.scale, parameter.units) == (scale, "m")
        np.testing.assert_array_equal(open_dataset(tmp_path / name).depth, numbers)
    with pytest.raises(ValueError, match="depth is 3 in all samples"):
        store_fields(own([3.0] * 4), tmp_path / "c", inputs=["a", "depth"], **options)
    parts = {"train": own([1.0, 2, 3, 4]), "test": own([0.0, 2, 3, 9])}
    store_fields(parts, tmp_path / "d", inputs=["depth", "a"], **options)
    (parameter,) = Manifest.read(tmp_path / "d").scalars
    assert (parameter.low, parameter.high) == (1, 4)  # the test's are not looked at
    inputs, _ = OperatorDataModule(tmp_path / "d").pairs("test")[:]
    assert torch.equal(inputs[:, 0, 0], torch.tensor([0.0, 2, 3, 9]))


def test_a_sample_that_its_viscosity_makes_unsolvable_is_flagged_and_the_others_kept(tmp_path):
    rough = replace(SMALL, steps=4, parameters=(varying("viscosity", "1e-5:1:log"),))
    generate(rough, tmp_path / "d", {"train": 8}, progress=False)
    found = open_dataset(tmp_path / "d").load()
    assert set(found.status.values.tolist()) == {0, 1}
    assert np.isfinite(found.velocity.values[found.status.values == 0]).all()
    assert np.isfinite(found.viscosity).all()
    inputs, _ = OperatorDataModule(tmp_path / "d").pairs("train")[:]
    assert inputs.isfinite().all()
