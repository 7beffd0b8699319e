"""Networks recorded from neuralop give the same outputs here, where neuralop is not installed too."""

from __future__ import annotations

import pytest
from support.neuralop_networks import PEERS, RECORDED, REFUSED, recorded

from sobolev.operators import FNO, fno_from_neuralop


@pytest.mark.parametrize("name", PEERS)
def test_a_recorded_network_gives_the_same_output(name):
    model, u, expected = recorded(name)
    operator = fno_from_neuralop(model)
    assert not operator.training
    assert (operator(u) - expected).norm() < 1e-5 * expected.norm()
    assert FNO(**operator.configuration).load_state_dict(operator.state_dict())


@pytest.mark.parametrize("name", REFUSED)
def test_a_recorded_network_that_we_do_not_have_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"neuralop FNO with .*{name}"):
        fno_from_neuralop(recorded(name)[0])


def test_the_record_is_small():
    assert RECORDED.stat().st_size < 1e6
