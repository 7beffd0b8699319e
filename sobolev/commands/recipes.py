"""``sobolev recipes``: the presets, and the parameters of one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sobolev.commands.options import Commands, add

if TYPE_CHECKING:
    from sobolev.datasets import Recipe

_RECIPES = """\
List the presets, or say all of one recipe: equation, distribution of the inputs, resolutions, and the parameters that
`sobolev generate RECIPE PATH --set NAME=VALUE` takes.

examples:
  sobolev recipes
  sobolev recipes ns-fno-1e-3
  sobolev recipes my_solver.py:HeatRecipe
"""


def declare(commands: Commands) -> None:
    sub = add(commands, "recipes", run, "list the recipes and their parameters", _RECIPES)
    sub.add_argument(
        "recipe",
        nargs="?",
        help="a preset, the name of an installed one, or MODULE:CLASS or FILE.py:CLASS of your own",
    )


def run(options: argparse.Namespace) -> int:
    from sobolev.commands.classes import recipe_named
    from sobolev.datasets import PRESETS
    from sobolev.datasets.recipes.presets import as_text
    from sobolev.grids import installed

    if options.recipe is not None:
        print("\n".join(_all_of(recipe_named(options.recipe))))
        return 0
    width = max(map(len, PRESETS))
    for name, recipe in PRESETS.items():
        usual = type(recipe)().configuration()
        special = {k: v for k, v in recipe.configuration().items() if v != usual.get(k)}
        words = ", ".join(f"{k}={as_text(v)}" for k, v in special.items())
        print(f"{name:{width}}  {recipe.title}{words and f' ({words})'}")
    for entry in installed.declared(installed.RECIPES):
        hidden = ", hidden by the preset above" if entry.name in PRESETS else ""
        said = f"{entry.identity}, declared by {entry.package}{hidden}"
        print(f"{entry.name:{width}}  {said}")
    print("`sobolev recipes NAME` says the equation, the resolutions and the parameters of one")
    return 0


def _all_of(recipe: Recipe) -> list[str]:
    """Return the lines that say all of a recipe."""
    from sobolev.datasets.recipes.presets import as_text

    given = "".join(f"\n    {v.name} [{v.units}]: {v.long_name}" for v in recipe.inputs)
    found = "".join(f"\n    {v.name} [{v.units}]: {v.long_name}" for v in recipe.outputs)
    sizes = ", ".join(map(str, recipe.resolutions()))
    lines = [
        recipe.title,
        f"  equation: {recipe.equation}",
        f"  inputs drawn from: {recipe.measure}",
        f"  source: {recipe.references}",
        f"  inputs:{given or ' none'}",
        f"  outputs:{found}",
        f"  symmetries: {', '.join(recipe.symmetries) or 'none declared'}",
        f"  nodes per axis: {recipe.default_resolution} unless told otherwise; {sizes} can be stored",
    ]
    if times := recipe.times:
        lines.append(f"  frames: {len(times)}, from t = {times[0]:g} to {times[-1]:g}")
    lines.append("  parameters, for --set:")
    parameters = {k: v for k, v in recipe.configuration().items() if k != "class"}
    width = max(map(len, parameters), default=0)
    return [*lines, *(f"    {name:{width}}  {as_text(v)}" for name, v in parameters.items())]
