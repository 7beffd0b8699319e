"""Operators from descriptions: which classes may be named, and at what depth."""

from __future__ import annotations

import gc
import json

import jaxtyping
import pytest
import torch
from torch import Tensor

import sobolev.operators
from sobolev.operators import FNO, Operator, Planar, SpecBoost, Trajectory, operator_from
from sobolev.operators.base import class_name


class Shifted(Operator):
    """An operator from outside the package: u ↦ u rolled by ``by`` nodes."""

    in_channels = out_channels = 1
    ndim = 1

    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by

    def forward(self, u: Tensor, size=None) -> Tensor:
        return u.roll(self.by, -1)


def test_every_operator_of_the_room_may_be_named():
    room = vars(sobolev.operators).values()
    own = [c for c in room if isinstance(c, type) and issubclass(c, Operator) and c is not Operator]
    for operator in own:
        assert class_name(operator) == operator.__name__
        with pytest.raises(ValueError, match=f"no arguments of {operator.__name__}"):
            operator_from({"class": operator.__name__, "arguments": {"nonsense": 1}})
    assert len(own) == 9


def test_descriptions_of_our_own_operators_have_the_plain_name():
    operator = Planar(FNO(1, 1, (3, 3), width=4, boundary=["neumann", "periodic"]))
    assert operator.description["class"] == "Planar"
    assert operator.description["arguments"]["operator"]["class"] == "FNO"


def test_another_class_is_named_with_its_module_and_must_be_given():
    description = json.loads(json.dumps(Shifted(3).description))
    assert description == {"class": f"{__name__}:Shifted", "arguments": {"by": 3}}
    with pytest.raises(ValueError, match="Shifted' is not one of sobolev's operators"):
        operator_from(description)
    u = torch.randn(1, 1, 8)
    for name in (description["class"], "Shifted"):
        operator = operator_from({**description, "class": name}, operators=[Shifted])
        assert torch.equal(operator(u), u.roll(3, -1))


def test_nested_descriptions_are_built_with_the_same_permission():
    operator = SpecBoost([FNO(1, 1, (3,), width=4, depth=1), Shifted(2)])
    description = json.loads(json.dumps(operator.description))
    again = operator_from(description, [Shifted])
    assert again.description == description
    assert isinstance(again, SpecBoost)
    assert isinstance(again.parts[1], Shifted)
    with pytest.raises(ValueError, match="Shifted' is not one of sobolev's operators"):
        operator_from(description)


def test_a_given_class_does_not_take_the_name_of_ours():
    other = type("FNO", (Shifted,), {})
    assert isinstance(operator_from(FNO(1, 1, (3,), width=4).description, [other]), FNO)
    assert type(operator_from(other(1).description, [other])) is other
    del other
    gc.collect()  # until then a training's configuration finds two classes of the name


def test_a_module_in_a_description_is_not_imported():
    with pytest.raises(ValueError, match="'antigravity:Shifted' is not one of sobolev's"):
        operator_from({"class": "antigravity:Shifted", "arguments": {"by": 1}}, [Shifted])


def test_two_given_classes_of_one_name_are_told_apart_by_their_modules_alone():
    other = type("Shifted", (Shifted,), {"__module__": "elsewhere"})
    description = {"class": "Shifted", "arguments": {"by": 1}}
    with pytest.raises(ValueError, match="several classes are called Shifted"):
        operator_from(description, [Shifted, other])
    again = operator_from({**description, "class": "elsewhere:Shifted"}, [Shifted, other])
    assert type(again) is other


def test_what_is_made_of_operators_takes_no_descriptions(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which refuses types itself
    inner = FNO(1, 1, (3, 3), width=4, depth=1)
    with pytest.raises(ValueError, match="Trajectory takes operators; operator_from builds one"):
        Trajectory(inner.description, history=2, horizon=1)
    arguments = {"operator": inner.description, "history": 2, "horizon": 1}
    built = operator_from({"class": "Trajectory", "arguments": arguments})
    assert isinstance(built, Trajectory)
    assert isinstance(built.operator, FNO)
