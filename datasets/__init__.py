"""Data sets: recipes, generation, the store on disk, and batches for training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sobolev.datasets.derived import diagnostics
from sobolev.datasets.generating.generation import generate, refined
from sobolev.datasets.generating.verification import verify
from sobolev.datasets.layouts.exporting import export
from sobolev.datasets.layouts.importing import import_data
from sobolev.datasets.recipes.base import Recipe
from sobolev.datasets.recipes.burgers import BurgersRecipe
from sobolev.datasets.recipes.darcy import DarcyRecipe, PublishedDarcyRecipe
from sobolev.datasets.recipes.navier_stokes import DecayingTurbulenceRecipe, NavierStokesRecipe
from sobolev.datasets.recipes.presets import PRESETS, find_recipe
from sobolev.datasets.recipes.shallow_water import ShallowWaterRecipe
from sobolev.datasets.store.manifest import DamagedDataError, Manifest
from sobolev.datasets.store.shards import open_dataset
from sobolev.grids.variables import Variable

if TYPE_CHECKING:
    from sobolev.datasets.gallery import show
    from sobolev.datasets.loading.datamodule import OperatorDataModule

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
        from sobolev.datasets.loading.datamodule import OperatorDataModule

        return OperatorDataModule
    if name == "show":
        from sobolev.datasets.gallery import show

        return show
    raise AttributeError(f"module 'sobolev.datasets' has no attribute {name!r}")
