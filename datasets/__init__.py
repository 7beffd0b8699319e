"""Data sets: recipes, generation, the store on disk, and batches for training."""

from sobolev.datasets.datamodule import OperatorDataModule
from sobolev.datasets.base import Recipe, Variable
from sobolev.datasets.generation import generate, refined
from sobolev.datasets.recipes import (
    PRESETS,
    BurgersRecipe,
    DarcyRecipe,
    DecayingTurbulenceRecipe,
    NavierStokesRecipe,
    find_recipe,
)
from sobolev.datasets.store import DamagedDataError, Manifest, open_dataset
from sobolev.datasets.verification import verify

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
    "Variable",
    "find_recipe",
    "generate",
    "open_dataset",
    "refined",
    "verify",
]
