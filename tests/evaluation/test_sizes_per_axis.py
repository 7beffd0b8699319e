"""Fields of other than equal sizes are judged on the nodes that they are stored on."""

from __future__ import annotations

import json

import pytest
import torch

from sobolev import Surrogate
from sobolev.__main__ import main
from sobolev.datasets import (
    Manifest,
    OperatorDataModule,
    ShallowWaterRecipe,
    export,
    generate,
    import_data,
)
from sobolev.evaluation import evaluate
from sobolev.grids.norms import relative_error
from sobolev.operators import FNO, SFNO
from sobolev.training import OperatorModule
from sobolev.training.untrained import untrained


@pytest.fixture(scope="module", params=[(64, 32), (32, 64)], ids=["64x32", "32x64"])
def imported(request, tmp_path_factory):
    """Twelve pairs of fields from a file of another tool, and a surrogate of them."""
    home = tmp_path_factory.mktemp("imported")
    dice = torch.Generator().manual_seed(0)
    fields = torch.randn(12, *request.param, generator=dice)
    torch.save({"x": fields, "y": fields.roll(1, -1)}, home / "fields.pt")
    data = home / "data"
    import_data(
        home / "fields.pt", data, boundary="periodic", length=1.0, splits={"train": 8, "test": 4}
    )
    module = OperatorModule(FNO(1, 1, modes=(3, 3), width=4, depth=1), OperatorDataModule(data))
    module.surrogate.save(home / "run" / "surrogate")
    return home, tuple(Manifest.read(data).grid.shape)


def test_they_are_predicted_and_compared_where_they_are_stored(imported):
    home, sizes = imported
    assert sorted(sizes) == [32, 64]
    surrogate = Surrogate.load(home / "run")
    score, comparison = evaluate(surrogate, home / "data")
    assert score.resolution == list(sizes)
    assert tuple(comparison.predictions.shape[2:]) == sizes
    inputs, targets = OperatorDataModule(home / "data").pairs("test")[:]
    with torch.no_grad():
        expected = relative_error(surrogate(inputs), targets, surrogate.grid).mean()
    assert score.relative_l2 == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.slow
def test_the_command_takes_sizes_of_each_axis_and_one_number_for_all(imported, capsys):
    home, sizes = imported
    half = [n // 2 for n in sizes]
    words = ["evaluate", str(home / "run"), "--data", str(home / "data")]
    sizes_given = ["--resolution", "x".join(map(str, half)), "--resolution", "16"]
    assert main([*words, *sizes_given, "--out", str(home / "report")]) == 0
    found = json.loads((home / "report" / "evaluation.json").read_text())
    assert [score["resolution"] for score in found["scores"]] == [half, 16]
    assert [metric["nodes"] for metric in found["metrics"]] == [half, [16, 16]]
    assert main([*words, "--resolution", "128"]) == 2
    assert "cannot be drawn again here" in capsys.readouterr().err
    assert main([*words, "--out", str(home / "whole")]) == 0
    found = json.loads((home / "whole" / "evaluation.json").read_text())
    assert [score["resolution"] for score in found["scores"]] == [list(sizes)]


@pytest.mark.slow
def test_an_imported_sphere_is_judged_at_its_rings_and_no_finer(tmp_path):
    recipe = ShallowWaterRecipe(solver_resolution=16, stored_resolution=16, hours=1)
    generate(recipe, tmp_path / "swe", {"train": 2, "test": 1}, progress=False)
    export(tmp_path / "swe", tmp_path / "well", "well", progress=False)
    import_data(tmp_path / "well", tmp_path / "sphere", progress=False)
    data = OperatorDataModule(tmp_path / "sphere")
    surrogate = untrained(SFNO(3, 3, grid=data.grid, width=2, depth=1), data, conserve=False)
    score, comparison = evaluate(surrogate, tmp_path / "sphere")
    assert score.resolution == 16
    assert tuple(comparison.grid.shape) == (16, 32)
    with pytest.raises(ValueError, match="stored on 16 × 32, and cannot be drawn again here"):
        evaluate(surrogate, tmp_path / "sphere", 32)
