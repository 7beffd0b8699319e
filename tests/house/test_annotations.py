"""The check of annotations lets nothing through that it has not seen in the same form."""

from __future__ import annotations

from typing import Literal

import jaxtyping
import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from support.annotations import checked
from torch import Tensor

from sobolev.grids import Grid, sobolev_norm

check = jaxtyped(typechecker=checked)


@pytest.fixture(autouse=True)
def _on(monkeypatch):
    """Though `make check` leaves annotations out."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", False)


@check
def scaled(
    u: Float[Tensor, "batch x"], weight: Float[Tensor, " x"], kind: Literal["plain", "wrong"]
) -> Float[Tensor, "batch x"]:
    return u * weight if kind == "plain" else u.sum(0)


@check
def total(parts: list[Float[Tensor, " x"]], factor: float = 1.0) -> Float[Tensor, ""]:
    return factor * sum(part.sum() for part in parts)


def test_calls_of_a_form_that_has_passed_do_not_cover_for_others():
    u, weight = torch.ones(2, 3), torch.ones(3)
    for _ in range(2):  # seen, and not seen
        assert scaled(u, weight, "plain").shape == (2, 3)
        for wrong in (
            (u, torch.ones(4), "plain"),  # another size of the same axis
            (u, weight.double().long(), "plain"),  # another dtype
            (u[0], weight, "plain"),  # fewer axes
            (u, weight, "none"),  # no such word
            (u, None, "plain"),
        ):
            with pytest.raises(TypeCheckError):
                scaled(*wrong)
        with pytest.raises(TypeCheckError, match="return value"):
            scaled(u, weight, "wrong")


def test_entries_of_lists_and_keywords_are_looked_at():
    x = torch.ones(3)
    for _ in range(2):
        assert total([x], factor=2) == 6  # a whole number may be a float
        for wrong in ([x[None]], [x.int()], (x,), ["x"]):
            with pytest.raises(TypeCheckError):
                total(wrong)
        with pytest.raises(TypeCheckError):
            total([x], factor="2")


def test_the_package_is_checked():
    for _ in range(2):
        with pytest.raises(TypeCheckError):
            sobolev_norm(torch.ones(8, dtype=torch.int64), Grid.periodic(8))
