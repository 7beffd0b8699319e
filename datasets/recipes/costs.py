"""What a sample of each preset costs, as ``benchmarks/recipe_costs.py`` measured it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from sobolev.datasets.recipes.base import Recipe

FILE = Path(str(resources.files("sobolev.datasets.recipes"))) / "costs.json"


@dataclass(frozen=True)
class Cost:
    """The cost of a sample.

    Args:
        seconds: of one thread, to draw and solve it.
        bytes: of its stored fields, float32 at the usual resolution.
    """

    seconds: float
    bytes: int


def machine() -> str:
    """Return what the costs were measured on."""
    return json.loads(FILE.read_text())["machine"]


def cost_of(recipe: Recipe) -> Cost | None:
    """Return the measured cost of a sample; None for a recipe that is no preset as it was measured."""
    content = json.loads(FILE.read_text())
    configuration = recipe.configuration()
    for entry in content["presets"].values():
        if entry["recipe"] == configuration:
            return Cost(entry["seconds"], entry["bytes"])
    return None
