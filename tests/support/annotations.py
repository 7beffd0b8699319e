"""The check of every annotation, once for each kind of call.

A check takes longer than many a small function, and a multigrid cycle is thousands of calls with the same shapes.
Whether a call passes depends on types, shapes, dtypes and a few plain values: where those have passed, the
call is not checked again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

import beartype
import numpy as np
import torch

_check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))  # int may be a float


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check a function's annotations at each call that differs in kind from those before."""
    check = _check(function)
    passed: set[Hashable] = set()

    @functools.wraps(check)
    def once(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        call = (*map(kind, args), *kwargs, *map(kind, kwargs.values()))
        if call not in passed:
            check(*args, **kwargs)
            passed.add(call)

    return once


_ARRAYS = (torch.Tensor, np.ndarray)
_PLAIN = (str, int)  # which a Literal compares


def kind(value: Any) -> Hashable:
    """Return all of a value that an annotation can ask for."""
    its = type(value)
    if isinstance(value, _ARRAYS):
        return its, value.shape, value.dtype
    if isinstance(value, _PLAIN):
        return its, value
    if its is tuple or its is list:
        return its, *map(kind, value)
    if its is dict:
        return its, *map(kind, value), *map(kind, value.values())
    return its.__module__, its.__qualname__  # the class itself would outlive the test that made it
