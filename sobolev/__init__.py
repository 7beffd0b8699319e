"""Neural operators for partial differential equations.

Classical solvers make fields that can be trusted, operators are trained on them in Sobolev norms,
and a saved surrogate predicts at any resolution:

    from sobolev import Surrogate
    prediction = Surrogate.load("runs/demo/surrogate").predict(dataset)

The face below is loaded on first use, so that ``import sobolev`` stays light.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sobolev.certification import calibrate, certified, refine
    from sobolev.grids import (
        Axis,
        GaussianRandomField,
        Grid,
        SphereGrid,
        energy_spectrum,
        sobolev_norm,
    )
    from sobolev.surrogates import Surrogate

__version__ = _version("sobolev")

_HOME = {
    "Axis": "sobolev.grids",
    "GaussianRandomField": "sobolev.grids",
    "Grid": "sobolev.grids",
    "SphereGrid": "sobolev.grids",
    "Surrogate": "sobolev.surrogates",
    "calibrate": "sobolev.certification",
    "certified": "sobolev.certification",
    "energy_spectrum": "sobolev.grids",
    "refine": "sobolev.certification",
    "sobolev_norm": "sobolev.grids",
}
_ROOMS = (
    "certification",
    "datasets",
    "evaluation",
    "grids",
    "operators",
    "solvers",
    "surrogates",
    "training",
)

__all__ = [
    "Axis",
    "GaussianRandomField",
    "Grid",
    "SphereGrid",
    "Surrogate",
    "calibrate",
    "certified",
    "energy_spectrum",
    "refine",
    "sobolev_norm",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"sobolev.{name}")
    raise AttributeError(f"module 'sobolev' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, *_ROOMS])
