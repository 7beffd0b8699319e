"""Data sets: recipes, generation, the store on disk, and batches for training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sobolev.datasets.base import Recipe, Variable
from sobolev.datasets.generation import generate, refined
from sobolev.datasets.recipes import (
    PRESETS,
    BurgersRecipe,
    DarcyRecipe,
    DecayingTurbulenceRecipe,
    NavierStokesRecipe,
    ShallowWaterRecipe,
    find_recipe,
)
from sobolev.datasets.store import DamagedDataError, Manifest, open_dataset
from sobolev.datasets.verification import verify

if TYPE_CHECKING:
    from sobolev.datasets.datamodule import OperatorDataModule

__all__ = [
    "PRESETS",
    "BurgersRecipe",
    "DamagedDataError",
    "DarcyRecipe",
    "DecayingTurbulenceRecipe",
    "Manifest",
    "NavierStokesRecipe",
    "OperatorDataModule",
    "Recipe",
    "ShallowWaterRecipe",
    "Variable",
    "find_recipe",
    "generate",
    "open_dataset",
    "refined",
    "verify",
]


def __getattr__(name: str) -> object:
    """Lightning is imported by those who train, not by every process that draws data."""
    if name == "OperatorDataModule":
        from sobolev.datasets.datamodule import OperatorDataModule

        return OperatorDataModule
    raise AttributeError(f"module 'sobolev.datasets' has no attribute {name!r}")
