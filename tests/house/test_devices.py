"""With another default device every solver still computes where its input lies.

A tensor made without ``device=`` would land on the meta device and fail here, as it would fail on a user's GPU.
``tests/gpu`` does the same work on one.
"""

from __future__ import annotations

import pytest
import torch
from support.placed import SQUARE, WORK, field

from sobolev.training import RelativeError


@pytest.mark.parametrize("name", WORK)
def test_work_stays_where_its_input_is(name):
    expected = WORK[name]("cpu")
    with torch.device("meta"):
        got = WORK[name]("cpu")
    assert got.device.type == "cpu"
    assert torch.equal(got, expected)


def test_metrics_do_too():
    with torch.device("meta"):
        metric = RelativeError(SQUARE)
        metric.update(field(SQUARE, "cpu")[:, None], 2 * field(SQUARE, "cpu")[:, None])
        assert metric.compute().item() == pytest.approx(0.5)
