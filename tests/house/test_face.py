"""What a user imports is there."""

from __future__ import annotations

import importlib

import pytest
from support.imports import packages

import sobolev


def test_the_face_is_all_there():
    rooms = {name.split(".")[1] for name in packages() if "." in name} - {"commands"}
    for name in (*sobolev.__all__, *rooms):
        assert getattr(sobolev, name) is not None
    assert {*sobolev.__all__, *rooms} <= set(dir(sobolev))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sobolev.nothing  # noqa: B018


@pytest.mark.parametrize("package", sorted(packages()))
def test_every_room_has_what_it_promises(package):
    room = importlib.import_module(package)
    for name in getattr(room, "__all__", []):
        assert getattr(room, name) is not None
