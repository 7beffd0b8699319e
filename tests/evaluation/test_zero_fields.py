"""A test sample whose true field is zero is named, and left out of the relative errors."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from sobolev import Grid, Surrogate
from sobolev.commands.evaluate import print_table
from sobolev.datasets import OperatorDataModule, import_data
from sobolev.evaluation.judged import evaluate_run
from sobolev.evaluation.rollouts import Rollouts
from sobolev.grids.norms import relative_error
from sobolev.grids.variables import Variable
from sobolev.operators import FNO

HEAT = Variable("heat", "temperature", "K")


def test_the_others_are_scored(tmp_path, capsys):
    fields = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    targets = fields.clone()
    targets[[1, 4]] = 0.0
    torch.save({"x": fields, "y": targets}, tmp_path / "pair.pt")
    import_data(
        tmp_path / "pair.pt", tmp_path / "data", boundary="periodic", length=1.0, progress=False,
        splits={"train": 1, "test": 5},
    )  # fmt: skip
    data = OperatorDataModule(tmp_path / "data", in_memory=False)
    scales = {v.name: (0.0, 1.0) for v in (*data.inputs, *data.outputs)}
    operator = FNO(1, 1, modes=(4,), width=4, depth=1)
    surrogate = Surrogate(operator, data.grid, data.inputs, data.outputs, scales).eval()
    surrogate.save(tmp_path / "surrogate")
    found = evaluate_run(tmp_path / "surrogate", tmp_path / "data", out=tmp_path / "out")
    (score,) = found.scores
    assert (score.samples, score.zero) == (5, [0, 3])
    others = [2, 3, 5]
    with torch.no_grad():
        p = surrogate(fields[others, None]).double()
    y = targets[others, None].double()
    expected = float(relative_error(p, y, data.grid).mean())
    assert score.relative_l2 == pytest.approx(expected, rel=1e-6)
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["scores"][0]["zero"] == [0, 3]
    for row in written["metrics"][0]["errors"]:
        assert all(row[name] is not None for name in ("mean", "median", "p90")), row
    report = (tmp_path / "out" / "report.html").read_text()
    assert "the true field of samples 0, 3 is zero" in report
    print_table(found.scores)
    assert "the true field of samples 0, 3 is zero" in capsys.readouterr().out


def test_frames_of_zero_have_no_error_and_lost_ones_an_infinite_one():
    grid = Grid.periodic(8)
    record = {"data": {"window": [1, 1, 1], "interval": 1.0}}
    surrogate = Surrogate(
        FNO(1, 1, modes=(3,), width=2, depth=1), grid, [HEAT], [HEAT], {"heat": (0.0, 1.0)}, record
    )
    targets = torch.ones(3, 2, 1, 8)
    predictions = 1.5 * targets
    targets[0, 1] = 0.0
    predictions[2, 1] = torch.nan
    given = torch.ones(3, 1, 8)
    found = Rollouts(surrogate, grid, (1.0, 2.0), "s", given, targets, predictions, 0.1).summary()
    errors = found["relative_l2"]
    assert errors["mean"] == [0.5, math.inf]
    assert errors["p10"] == [0.5, 0.5]
    assert errors["p90"] == [0.5, math.inf]
    assert found["persistence_relative_l2"] == [0.0, 0.0]
    targets[:] = 0.0
    found = Rollouts(surrogate, grid, (1.0, 2.0), "s", given, targets, predictions, 0.1).summary()
    assert np.isnan(found["relative_l2"]["median"][0])
