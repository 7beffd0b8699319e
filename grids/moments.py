"""Means and variances of values that come in pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Moments:
    """A count of values, their mean, and the sum of their squared deviations from it.

    Pieces are merged as in Chan, Golub & LeVeque (1983, doi:10.1080/00031305.1983.10483115), which
    loses no digits where the mean is large beside the deviations. Mean and sum are numbers, arrays or
    tensors, in float64.

    >>> whole = Moments.of(np.array([1.0, 2.0])) + Moments.of(np.array([6.0]))
    >>> whole.count, whole.mean, whole.variance
    (3, 3.0, 4.666666666666667)
    """

    count: int
    mean: Any
    squares: Any

    @classmethod
    def none(cls) -> Moments:
        """Return those of no values, to begin a sum with."""
        return cls(0, 0.0, 0.0)

    def __add__(self, other: Moments) -> Moments:
        if not (self.count and other.count):
            return self if self.count else other
        count = self.count + other.count
        share = other.count / count
        shift = other.mean - self.mean
        squares = self.squares + other.squares + shift**2 * (self.count * share)
        return Moments(count, self.mean + shift * share, squares)

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Return those of all values of an array together, as numbers."""
        if not values.size:
            return cls.none()
        mean = float(values.mean(dtype=np.float64))
        return cls(values.size, mean, float(np.square(values - np.float64(mean)).sum()))

    @property
    def variance(self) -> Any:
        """The mean squared deviation; 0 of no values."""
        return self.squares / max(self.count, 1)
