"""Recipes from outside the package: parameters that JSON has otherwise, and names that are ours, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pytest

from sobolev import Surrogate
from sobolev.__main__ import main
from sobolev.certification import certified
from sobolev.datasets import (
    BurgersRecipe,
    Manifest,
    OperatorDataModule,
    generate,
    open_dataset,
    verify,
)
from sobolev.datasets.recipes.base import identity
from sobolev.datasets.recipes.presets import changed, recipe_from, words_for
from sobolev.operators import FNO
from sobolev.training import OperatorModule


@dataclass(frozen=True)
class TupleRecipe(BurgersRecipe):
    """Burgers with parameters of every kind that JSON turns into another."""

    scales: tuple[float, ...] = (1.0, 2.0)
    box: tuple[tuple[float, float], ...] = ((0.0, 1.0), (2.0, 3.0))
    mixed: tuple[str, int] = ("a", 1)
    rest: tuple[int, ...] | None = None
    listed: Sequence[float] = (0.5,)
    kind: Literal["smooth", "rough"] = "smooth"
    solver_resolution: int = 32
    time: float = 0.05
    steps: int = 10


class DarcyRecipe(BurgersRecipe):
    """Burgers by the name of another of our classes."""


OUTSIDE = DarcyRecipe(solver_resolution=32, steps=10, time=0.05)


@pytest.mark.parametrize(
    "recipe",
    [
        TupleRecipe(),
        TupleRecipe(scales=(), box=((4.0, 5.0),), mixed=("b", 2), rest=(1, 2), listed=(1.0, 2.0)),
    ],
    ids=["defaults", "others"],
)
def test_tuples_are_tuples_again(recipe, tmp_path):
    """Equal and hashable, and a data set of them is resumed and drawn again."""
    path = generate(recipe, tmp_path / "d", {"train": 2}, progress=False)
    again = recipe_from(Manifest.read(path).recipe, [TupleRecipe])
    assert again == recipe
    assert hash(again) == hash(recipe)
    before = Manifest.read(path).splits["train"][0].sha256
    generate(again, path, {"train": 2, "test": 1}, progress=False)
    assert Manifest.read(path).splits["train"][0].sha256 == before
    assert verify(path, redraw=1, recipes=[TupleRecipe]) == []


def test_tuples_are_resumed_from_the_command_line(tmp_path):
    words = ["generate", f"{__name__}:TupleRecipe", str(tmp_path / "d"), "--workers", "1"]
    given = ["--set", "scales=[3, 4]", "--set", "box=[[1, 2]]", "--samples", "train=1"]
    assert main([*words, *given]) == 0
    found = Manifest.read(tmp_path / "d").recipe
    assert (found["scales"], found["box"]) == ([3.0, 4.0], [[1.0, 2.0]])
    assert type(found["box"][0][0]) is float
    assert main([*words, "--resume", "--samples", "train=2"]) == 0
    assert Manifest.read(tmp_path / "d").count("train") == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("scales", '[1, "2"]'),
        ("scales", "1"),
        ("box", "[[1, 2, 3]]"),
        ("mixed", '["a"]'),
        ("rest", "[1.5]"),
        ("listed", "[null]"),
        ("kind", "wild"),
    ],
)
def test_entries_of_another_kind_are_refused(name, text):
    with pytest.raises(ValueError, match=f"TupleRecipe needs a finite .* for {name}, got"):
        changed(TupleRecipe(), {name: text})


@pytest.fixture(scope="module")
def namesake(tmp_path_factory):
    """Data and a surrogate of the class that has a name of ours."""
    home = tmp_path_factory.mktemp("namesake")
    samples = {"train": 4, "valid": 2, "test": 2}
    generate(OUTSIDE, home / "data", samples, progress=False)
    module = OperatorModule(FNO(1, 1, (3,), width=4, depth=1), OperatorDataModule(home / "data"))
    module.surrogate.save(home / "run" / "surrogate")
    return home


def test_data_of_a_namesake_are_not_ours(namesake):
    manifest = Manifest.read(namesake / "data")
    assert manifest.recipe["class"] == identity(DarcyRecipe) != "DarcyRecipe"
    assert manifest.preset is None
    assert words_for(manifest.recipe) == []
    assert "sobolev generate darcy" not in (namesake / "data" / "README.md").read_text()
    with pytest.raises(ValueError, match="sobolev can only draw again from"):
        recipe_from(manifest.recipe)
    with pytest.raises(ValueError, match="not one of sobolev's"):
        verify(namesake / "data", redraw=1)
    assert type(recipe_from(manifest.recipe, [DarcyRecipe])) is DarcyRecipe
    assert verify(namesake / "data", redraw=1, recipes=[DarcyRecipe]) == []


def test_predictions_of_a_namesake_are_not_held_to_our_equation(namesake):
    """Ours has guaranteed error bounds; this one has none, named or not."""
    surrogate = Surrogate.load(namesake / "run")
    given = open_dataset(namesake / "data", "test")
    with pytest.raises(ValueError, match="which equation the predictions should obey is not known"):
        certified(surrogate, given)
    with pytest.raises(ValueError, match="no error bound is known"):
        certified(surrogate, given, recipes=[DarcyRecipe])


def test_data_of_ours_are_not_resumed_as_a_namesake_s(namesake, tmp_path, capsys):
    """Neither ours as the other, nor the other as ours, nor ours as any class from outside."""
    ours = BurgersRecipe(solver_resolution=32, steps=10, time=0.05)
    generate(ours, tmp_path / "d", {"train": 1}, progress=False)
    for words in (
        ["generate", f"{__name__}:DarcyRecipe", str(tmp_path / "d"), "--resume"],
        ["generate", f"{__name__}:TupleRecipe", str(tmp_path / "d"), "--resume"],
        ["generate", "darcy-fno", str(namesake / "data"), "--resume"],
    ):
        assert main([*words, "--resolution", "32", "--workers", "1"]) == 2
        assert capsys.readouterr().err.startswith("sobolev: error: ")
    assert Manifest.read(tmp_path / "d").recipe["class"] == "BurgersRecipe"
