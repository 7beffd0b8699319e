"""Every key has a stream of its own."""

from __future__ import annotations

import itertools

import pytest

from sobolev.grids.streams import Key, stream


def test_no_two_keys_are_one_number():
    """An enum with two names for one number has fewer members than names."""
    assert len(Key.__members__) == len(list(Key)) == len({int(key) for key in Key})


def test_streams_of_different_seeds_and_keys_differ_and_come_back():
    keys = [(), *((key,) for key in Key), *itertools.product(range(2), range(3))]
    first = {(seed, key): stream(seed, *key).standard_normal() for seed in (0, 1) for key in keys}
    assert len(set(first.values())) == len(first)
    assert all(stream(seed, *key).standard_normal() == u for (seed, key), u in first.items())


@pytest.mark.parametrize("seed", [-1, True])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="a whole number of at least 0"):
        stream(seed)
