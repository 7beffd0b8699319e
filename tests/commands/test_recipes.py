"""Recipes are listed, and their parameters set, from the command line."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields, replace

import pytest

from sobolev.__main__ import main
from sobolev.datasets import PRESETS, BurgersRecipe, DarcyRecipe, Manifest
from sobolev.datasets.recipes.costs import cost_of, machine
from sobolev.datasets.recipes.presets import changed, words_for

FEW = ["--samples", "train=2", "--resolution", "32", "--dtype", "float64"]
SET = [
    "--set", "viscosity=0.3", "--set", "time=2", "--set", "zero_mean=false", "--set", "steps=8",
    "--set", "solver_resolution=64",
]  # fmt: skip


def test_every_preset_is_listed_and_says_all_of_itself(capsys):
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    for name, recipe in PRESETS.items():
        assert re.search(rf"^{re.escape(name)} ", listed, re.M)
        assert main(["recipes", name]) == 0
        told = capsys.readouterr().out
        assert recipe.equation in told
        drawn = [parameter.name for parameter in recipe.parameters]
        fixed = {field.name for field in fields(recipe)} - {"parameters", *drawn}
        assert all(f"    {field} " in told for field in fixed)
        assert all(f"{name} from " in told for name in drawn)


def test_every_preset_s_cost_was_measured_as_it_is_now(capsys):
    """A preset that has changed is measured again by benchmarks/recipe_costs.py."""
    for name, recipe in PRESETS.items():
        cost = cost_of(recipe)
        assert cost is not None, name
        assert cost.seconds > 0
    assert cost_of(BurgersRecipe()).bytes == 2 * 8192 * 4
    assert cost_of(PRESETS["ns-fno-1e-3"]).bytes == 51 * 64**2 * 4
    assert cost_of(BurgersRecipe(viscosity=0.2)) is None
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    assert "65.5 kB" in listed
    assert f"measured on {machine()}" in listed


def test_a_recipe_of_one_s_own_is_not_measured(capsys):
    assert main(["recipes", "support.kuramoto_sivashinsky:KuramotoSivashinskyRecipe"]) == 0
    assert "a sample takes: not measured\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", PRESETS)
def test_the_words_for_a_recipe_give_it_back(name):
    recipe = PRESETS[name]
    words = words_for(recipe.configuration())
    assert words == [name]
    other = changed(recipe, {"solver_resolution": "33"})
    preset, *rest = words_for(other.configuration())
    given = dict(word.split("=", 1) for word in rest[1::2])
    assert changed(PRESETS[preset], given) == other


@pytest.mark.parametrize(
    ("given", "vary", "drawn"),
    [
        ({"viscosity": "0.05"}, {}, []),
        ({"time": "0.5"}, {}, ["viscosity"]),
        ({}, {"viscosity": "0.1:1"}, ["viscosity"]),
        ({}, {"time": "0.5:2"}, ["viscosity", "time"]),
        ({"viscosity": "0.05"}, {"time": "0.5:2"}, ["time"]),
        ({"viscosity": "0.05"}, {"viscosity": "0.1:1:log"}, ["viscosity"]),
    ],
)
def test_what_is_set_is_no_longer_drawn(given, vary, drawn):
    """A value beside a range went under: the preset drew from its own."""
    recipe = changed(PRESETS["burgers-nu"], given, vary)
    assert [p.name for p in recipe.parameters] == drawn
    assert recipe.viscosity == float(given.get("viscosity", 0.1))
    preset, *rest = words_for(recipe.configuration())
    options: dict[str, dict[str, str]] = {"--set": {}, "--vary": {}}
    for option, word in zip(rest[::2], rest[1::2], strict=True):
        options[option].update([word.split("=", 1)])
    again = changed(PRESETS[preset], options["--set"], options["--vary"])
    assert {p.name: p for p in again.parameters} == {p.name: p for p in recipe.parameters}
    assert replace(again, parameters=()) == replace(recipe, parameters=())


def test_parameters_are_set_and_the_data_card_says_how(tmp_path, capsys):
    """The card's own command draws the same bytes in another folder."""
    assert main(["generate", "burgers-fno", str(tmp_path / "a"), *FEW, *SET]) == 0
    manifest = Manifest.read(tmp_path / "a")
    expected = BurgersRecipe(
        viscosity=0.3, time=2.0, zero_mean=False, steps=8, solver_resolution=64
    )
    assert manifest.recipe == expected.configuration()
    assert type(manifest.recipe["time"]) is float
    card = (tmp_path / "a" / "README.md").read_text()
    (command,) = re.findall(r"^sobolev (generate .*)$", card, re.M)
    words = shlex.split(command)
    words[words.index(".")] = str(tmp_path / "b")
    assert main(words) == 0
    again = Manifest.read(tmp_path / "b")
    assert [s.sha256 for s in again.splits["train"]] == [s.sha256 for s in manifest.splits["train"]]


def test_what_was_set_need_not_be_said_again_to_resume(tmp_path, capsys):
    path = str(tmp_path / "d")
    assert main(["generate", "burgers-fno", path, *FEW, *SET]) == 0
    before = Manifest.read(tmp_path / "d")
    assert main(["generate", "burgers-fno", path, "--resume", "--samples", "train=4"]) == 0
    after = Manifest.read(tmp_path / "d")
    assert (after.recipe, after.requested) == (before.recipe, {"train": 4})
    assert main(["generate", "darcy-fno", path, "--resume"]) == 2
    assert main(["generate", "burgers-fno", path, "--resume", "--set", "time=3"]) == 2
    assert "another configuration" in capsys.readouterr().err
    assert Manifest.read(tmp_path / "d") == after


def test_a_class_whose_parameters_have_no_default_is_refused_by_name(tmp_path, capsys):
    file = tmp_path / "bare_recipe.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from sobolev.datasets import BurgersRecipe\n\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Bare(BurgersRecipe):\n"
        "    depth: float\n"
    )
    assert main(["recipes", f"{file}:Bare"]) == 2
    assert "has no default for depth" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("preset", "given", "message"),
    [
        ("burgers-fno", "viscosty=1", "no parameter 'viscosty'; did you mean 'viscosity'? it has"),
        ("burgers-fno", "viscosity=thin", "needs a finite float for viscosity, got 'thin'"),
        ("burgers-fno", "viscosity=NaN", "needs a finite float for viscosity, got nan"),
        ("burgers-fno", "steps=8.5", "needs a finite int for steps, got 8.5"),
        ("burgers-fno", "class=os.system", "no parameter 'class'"),
        ("burgers-fno", "viscosity=-1", "viscosity must be positive"),
        ("darcy-fno", "low=-1", "permeabilities must be positive"),
        ("ns-fno-1e-3", "viscosity=-1", "viscosity must be finite and not negative"),
        ("ns-mcwilliams", "step=0", "the time step must be positive"),
        ("swe-random", "courant=0", "courant"),
    ],
)
def test_what_a_recipe_does_not_take_is_refused(preset, given, message, tmp_path, capsys):
    assert main(["generate", preset, str(tmp_path / "d"), *FEW, "--set", given]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_text_needs_no_quotes():
    assert changed(DarcyRecipe(), {"medium": "lognormal"}).medium == "lognormal"
    assert (
        changed(DarcyRecipe(stored_resolution=33), {"stored_resolution": "null"}) == DarcyRecipe()
    )


def test_a_number_is_varied_over_its_usual_range_where_none_is_given(tmp_path, capsys):
    assert main(["recipes", "gray-scott"]) == 0
    assert "usually varied over, by --vary: feed=0.02:0.06, kill=" in capsys.readouterr().out
    recipe = changed(PRESETS["gray-scott"], {}, {"feed": ""})
    assert [(p.name, p.low, p.high) for p in recipe.parameters] == [("feed", 0.02, 0.06)]
    assert main(["generate", "burgers-fno", str(tmp_path / "d"), *FEW, "--vary", "viscosity"]) == 2
    said = capsys.readouterr().err
    assert "no usual range of 'viscosity'" in said
    assert "viscosity=LOW:HIGH" in said
