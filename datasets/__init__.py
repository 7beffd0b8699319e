"""Data sets: recipes, generation, the store on disk, and batches for training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sobolev.datasets.base import Recipe, Variable
from sobolev.datasets.derived import diagnostics
from sobolev.datasets.exports import export
from sobolev.datasets.flows import DecayingTurbulenceRecipe, NavierStokesRecipe, ShallowWaterRecipe
from sobolev.datasets.generation import generate, refined
from sobolev.datasets.imports import import_data
from sobolev.datasets.manifest import DamagedDataError, Manifest
from sobolev.datasets.recipes import (
    PRESETS,
    BurgersRecipe,
    DarcyRecipe,
    PublishedDarcyRecipe,
    find_recipe,
)
from sobolev.datasets.store import open_dataset
from sobolev.datasets.verification import verify

if TYPE_CHECKING:
    from sobolev.datasets.datamodule import OperatorDataModule
    from sobolev.datasets.gallery import show

__all__ = [
    "PRESETS",
    "BurgersRecipe",
    "DamagedDataError",
    "DarcyRecipe",
    "DecayingTurbulenceRecipe",
    "Manifest",
    "NavierStokesRecipe",
    "OperatorDataModule",
    "PublishedDarcyRecipe",
    "Recipe",
    "ShallowWaterRecipe",
    "Variable",
    "diagnostics",
    "export",
    "find_recipe",
    "generate",
    "import_data",
    "open_dataset",
    "refined",
    "show",
    "verify",
]


def __getattr__(name: str) -> object:
    """Lightning and matplotlib are imported by those who train and look, not by every process that
    draws data."""
    if name == "OperatorDataModule":
        from sobolev.datasets.datamodule import OperatorDataModule

        return OperatorDataModule
    if name == "show":
        from sobolev.datasets.gallery import show

        return show
    raise AttributeError(f"module 'sobolev.datasets' has no attribute {name!r}")
