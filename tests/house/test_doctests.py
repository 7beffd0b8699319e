"""Every example in a docstring is true, in every module of every room."""

from __future__ import annotations

import doctest
import importlib

import pytest
import torch
from support.imports import modules


@pytest.mark.parametrize("name", sorted(modules()))
def test_docstrings_are_true(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0
