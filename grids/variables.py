"""Names of fields, and of the numbers that samples have beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sobolev.grids.checks import make_plain

SCALES = ("linear", "log")


@dataclass(frozen=True)
class Variable:
    """A named physical field.

    >>> Variable("height", "height above ground", "m").attributes
    {'long_name': 'height above ground', 'units': 'm'}
    """

    name: str
    long_name: str
    units: str

    @property
    def attributes(self) -> dict[str, str]:
        """The CF attributes of an array of its values."""
        return {"long_name": self.long_name, "units": self.units}


def same_units(first: str, second: str) -> bool:
    """Return whether two spellings are of the same units; numbers without any have "1", or none.

    >>> same_units("", "1"), same_units("m", "1"), same_units("m s-1", "m/s")
    (True, False, False)
    """
    return (first.strip() or "1") == (second.strip() or "1")


MASK = Variable("mask", "1 in the domain of the fields, 0 outside", "1")
"""The input that says where fields are defined that fill a part of their box."""


LEAD_TIME = ("lead_time", "time from the input to the output")
"""Name and long name of the number that says how far ahead a prediction lies."""


@dataclass(frozen=True)
class Parameter(Variable):
    """A number that each sample has: a viscosity, an amplitude, a lead time.

    Args:
        name, long_name, units: as of any variable.
        low, high: the range that samples are drawn from, or that those in the data lie in.
        scale: ``"linear"``, or ``"log"`` where ratios count rather than differences: drawn and
            normalised by logarithms.

    >>> viscosity = Parameter("viscosity", "viscosity", "1", 0.01, 1.0, "log")
    >>> round(viscosity.draw(np.random.default_rng(0)), 4)
    0.1879

    Raises:
        ValueError: for a range that is empty or not finite, not positive where its scale is logarithmic,
            and for another scale.
    """

    low: float
    high: float
    scale: str = "linear"

    def __post_init__(self) -> None:
        make_plain(self)
        if self.scale not in SCALES:
            raise ValueError(
                f"the scale of {self.name} is {' or '.join(SCALES)}, got {self.scale!r}"
            )
        ends = (self.low, self.high)
        if not (all(map(math.isfinite, ends)) and self.low < self.high):
            raise ValueError(f"{self.name} needs a range from low to high, got {ends}")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"{self.name} needs a positive range for its logarithm, got {ends}")

    @property
    def attributes(self) -> dict[str, Any]:
        """The CF attributes of an array of its values, with the range."""
        return {**super().attributes, "valid_range": np.array([self.low, self.high])}

    def draw(self, dice: np.random.Generator) -> float:
        """Return one value: all are as likely, or all logarithms."""
        share = dice.random()
        if self.scale == "log":
            return self.low * (self.high / self.low) ** share
        return self.low + (self.high - self.low) * share

    def straightened(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return values as they are normalised: their logarithms where ratios count."""
        return values.log() if self.scale == "log" else values


def variable_from(content: Mapping[str, Any]) -> Variable:
    """Return the variable, or parameter, whose fields these are.

    >>> variable_from({"name": "u", "long_name": "velocity", "units": "m/s"}).units
    'm/s'
    """
    return Parameter(**content) if "low" in content else Variable(**content)
