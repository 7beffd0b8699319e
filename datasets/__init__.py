"""Data sets: recipes, generation, the store on disk, and batches for training."""

from sobolev.datasets.datamodule import OperatorDataModule
from sobolev.datasets.generation import generate, refined, verify
from sobolev.datasets.recipes import (
    PRESETS,
    BurgersRecipe,
    DarcyRecipe,
    Recipe,
    Variable,
    find_recipe,
)
from sobolev.datasets.store import DamagedDataError, Manifest, open_dataset

__all__ = [
    "PRESETS",
    "BurgersRecipe",
    "DamagedDataError",
    "DarcyRecipe",
    "Manifest",
    "OperatorDataModule",
    "Recipe",
    "Variable",
    "find_recipe",
    "generate",
    "open_dataset",
    "refined",
    "verify",
]
