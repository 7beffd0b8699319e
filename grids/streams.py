"""Random streams: one generator for each key under a seed, and nobody else's."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from sobolev.grids.checks import is_whole


class Key(IntEnum):
    """First key of each stream that belongs to the seed of a training.

    The streams of a data set's samples are keyed by ``(seed, split, sample)`` instead.
    """

    ORDER = 0
    """The order of the samples in an epoch."""
    SYMMETRIES = 1
    """The symmetry that a batch is turned by."""
    NOISE = 2
    """The noise on the given frames of a batch."""
    STAGES = 3
    """The training samples of each stage of a boost."""
    CALIBRATION = 4
    """The windows that error bounds are calibrated on."""


def stream(seed: int, *key: int) -> np.random.Generator:
    """Return the counter-based generator (Philox) that belongs to ``(seed, *key)`` and to nothing else.

    >>> bool(stream(0, 1).standard_normal() == stream(0, 1).standard_normal())
    True

    Raises:
        ValueError: for a seed that is no whole number of at least 0.
    """
    if not is_whole(seed) or seed < 0:
        raise ValueError(f"a seed is a whole number of at least 0, got {seed!r}")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(int(seed), spawn_key=key)))
