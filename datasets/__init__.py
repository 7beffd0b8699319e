"""Data sets: recipes, generation, the store on disk, and batches for training.

Names are loaded on first use: those who predict need no solver, those who draw no Lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sobolev.datasets.derived import diagnostics
    from sobolev.datasets.gallery import show
    from sobolev.datasets.generating.generation import generate, refined
    from sobolev.datasets.generating.verification import verify
    from sobolev.datasets.layouts.exporting import export
    from sobolev.datasets.layouts.fields import store_fields
    from sobolev.datasets.layouts.importing import import_data
    from sobolev.datasets.layouts.scattered import scattered_to_grid
    from sobolev.datasets.loading.datamodule import OperatorDataModule
    from sobolev.datasets.recipes.base import Recipe
    from sobolev.datasets.recipes.burgers import BurgersRecipe
    from sobolev.datasets.recipes.darcy import DarcyRecipe, PublishedDarcyRecipe
    from sobolev.datasets.recipes.darcy_forced import ForcedDarcyRecipe
    from sobolev.datasets.recipes.diffusion import AdvectionRecipe, HeatRecipe
    from sobolev.datasets.recipes.flows import (
        BarotropicVorticityRecipe,
        KolmogorovFlowRecipe,
        VectorBurgersRecipe,
    )
    from sobolev.datasets.recipes.holes import HoledDarcyRecipe
    from sobolev.datasets.recipes.kuramoto_sivashinsky import (
        FlameFrontRecipe,
        KuramotoSivashinskyRecipe,
    )
    from sobolev.datasets.recipes.navier_stokes import DecayingTurbulenceRecipe, NavierStokesRecipe
    from sobolev.datasets.recipes.phase_fields import (
        AllenCahnRecipe,
        CahnHilliardRecipe,
        SwiftHohenbergRecipe,
    )
    from sobolev.datasets.recipes.presets import PRESETS, find_recipe
    from sobolev.datasets.recipes.reaction_diffusion import (
        FisherKPPRecipe,
        FitzHughNagumoRecipe,
        FromSpots,
        GrayScottRecipe,
    )
    from sobolev.datasets.recipes.semilinear import FromRandomFields, FromSines, SemilinearRecipe
    from sobolev.datasets.recipes.shallow_water import ShallowWaterRecipe
    from sobolev.datasets.recipes.waves import KdVRecipe, KleinGordonRecipe, SchroedingerRecipe
    from sobolev.datasets.store.manifest import DamagedDataError, Manifest
    from sobolev.datasets.store.shards import open_dataset
    from sobolev.grids.variables import Variable

_HOME = {
    "PRESETS": "sobolev.datasets.recipes.presets",
    "BurgersRecipe": "sobolev.datasets.recipes.burgers",
    "DamagedDataError": "sobolev.datasets.store.manifest",
    "DarcyRecipe": "sobolev.datasets.recipes.darcy",
    "DecayingTurbulenceRecipe": "sobolev.datasets.recipes.navier_stokes",
    "ForcedDarcyRecipe": "sobolev.datasets.recipes.darcy_forced",
    "BarotropicVorticityRecipe": "sobolev.datasets.recipes.flows",
    "KolmogorovFlowRecipe": "sobolev.datasets.recipes.flows",
    "VectorBurgersRecipe": "sobolev.datasets.recipes.flows",
    "HoledDarcyRecipe": "sobolev.datasets.recipes.holes",
    "HeatRecipe": "sobolev.datasets.recipes.diffusion",
    "AdvectionRecipe": "sobolev.datasets.recipes.diffusion",
    "FlameFrontRecipe": "sobolev.datasets.recipes.kuramoto_sivashinsky",
    "KuramotoSivashinskyRecipe": "sobolev.datasets.recipes.kuramoto_sivashinsky",
    "AllenCahnRecipe": "sobolev.datasets.recipes.phase_fields",
    "CahnHilliardRecipe": "sobolev.datasets.recipes.phase_fields",
    "SwiftHohenbergRecipe": "sobolev.datasets.recipes.phase_fields",
    "FisherKPPRecipe": "sobolev.datasets.recipes.reaction_diffusion",
    "FitzHughNagumoRecipe": "sobolev.datasets.recipes.reaction_diffusion",
    "FromSpots": "sobolev.datasets.recipes.reaction_diffusion",
    "GrayScottRecipe": "sobolev.datasets.recipes.reaction_diffusion",
    "FromRandomFields": "sobolev.datasets.recipes.semilinear",
    "FromSines": "sobolev.datasets.recipes.semilinear",
    "SemilinearRecipe": "sobolev.datasets.recipes.semilinear",
    "KdVRecipe": "sobolev.datasets.recipes.waves",
    "KleinGordonRecipe": "sobolev.datasets.recipes.waves",
    "SchroedingerRecipe": "sobolev.datasets.recipes.waves",
    "Manifest": "sobolev.datasets.store.manifest",
    "NavierStokesRecipe": "sobolev.datasets.recipes.navier_stokes",
    "OperatorDataModule": "sobolev.datasets.loading.datamodule",
    "PublishedDarcyRecipe": "sobolev.datasets.recipes.darcy",
    "Recipe": "sobolev.datasets.recipes.base",
    "ShallowWaterRecipe": "sobolev.datasets.recipes.shallow_water",
    "Variable": "sobolev.grids.variables",
    "diagnostics": "sobolev.datasets.derived",
    "export": "sobolev.datasets.layouts.exporting",
    "find_recipe": "sobolev.datasets.recipes.presets",
    "generate": "sobolev.datasets.generating.generation",
    "import_data": "sobolev.datasets.layouts.importing",
    "open_dataset": "sobolev.datasets.store.shards",
    "refined": "sobolev.datasets.generating.generation",
    "scattered_to_grid": "sobolev.datasets.layouts.scattered",
    "show": "sobolev.datasets.gallery",
    "store_fields": "sobolev.datasets.layouts.fields",
    "verify": "sobolev.datasets.generating.verification",
}

__all__ = [
    "PRESETS",
    "AdvectionRecipe",
    "AllenCahnRecipe",
    "BarotropicVorticityRecipe",
    "BurgersRecipe",
    "CahnHilliardRecipe",
    "DamagedDataError",
    "DarcyRecipe",
    "DecayingTurbulenceRecipe",
    "FisherKPPRecipe",
    "FitzHughNagumoRecipe",
    "FlameFrontRecipe",
    "ForcedDarcyRecipe",
    "FromRandomFields",
    "FromSines",
    "FromSpots",
    "GrayScottRecipe",
    "HeatRecipe",
    "HoledDarcyRecipe",
    "KdVRecipe",
    "KleinGordonRecipe",
    "KolmogorovFlowRecipe",
    "KuramotoSivashinskyRecipe",
    "Manifest",
    "NavierStokesRecipe",
    "OperatorDataModule",
    "PublishedDarcyRecipe",
    "Recipe",
    "SchroedingerRecipe",
    "SemilinearRecipe",
    "ShallowWaterRecipe",
    "SwiftHohenbergRecipe",
    "Variable",
    "VectorBurgersRecipe",
    "diagnostics",
    "export",
    "find_recipe",
    "generate",
    "import_data",
    "open_dataset",
    "refined",
    "scattered_to_grid",
    "show",
    "store_fields",
    "verify",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'sobolev.datasets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
