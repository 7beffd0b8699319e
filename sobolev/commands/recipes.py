"""``sobolev recipes``: the presets, and the parameters of one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sobolev.commands.options import Commands, add

if TYPE_CHECKING:
    from sobolev.datasets import Recipe

_RECIPES = """\
List the presets, with what a sample of each takes in time and on disk, or say all of one recipe: equation,
distribution of the inputs, resolutions, and the parameters that `sobolev generate RECIPE PATH --set NAME=VALUE` takes.

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

    lines = _list() if options.recipe is None else _all_of(recipe_named(options.recipe))
    print("\n".join(lines))
    return 0


def _list() -> list[str]:
    """Return the lines that say which recipes there are, and what a sample of each takes."""
    from sobolev.datasets import PRESETS
    from sobolev.datasets.recipes.presets import as_text
    from sobolev.grids import installed

    width = max(map(len, PRESETS))
    lines = [f"{'':{width}}   a sample takes"]
    for name, recipe in PRESETS.items():
        usual = type(recipe)().configuration()
        special = {k: v for k, v in _fixed(recipe).items() if v != usual.get(k)}
        words = ", ".join([*(f"{k}={as_text(v)}" for k, v in special.items()), *_drawn(recipe)])
        lines.append(f"{name:{width}}  {_paid(recipe):18} {recipe.title}{words and f' ({words})'}")
    for entry in installed.declared(installed.RECIPES):
        hidden = ", hidden by the preset above" if entry.name in PRESETS else ""
        said = f"{entry.identity}, declared by {entry.package}{hidden}"
        lines.append(f"{entry.name:{width}}  {'not measured':18} {said}")
    return [*lines, *_footnotes()]


def _fixed(recipe: Recipe) -> dict[str, Any]:
    """Return the parameters that are the same for all samples."""
    drawn = {"class", "parameters", *(parameter.name for parameter in recipe.parameters)}
    return {k: v for k, v in recipe.configuration().items() if k not in drawn}


def _drawn(recipe: Recipe) -> list[str]:
    """Return the parameters that are drawn for each sample, with their ranges."""
    return [
        f"{p.name} from {p.low:g} to {p.high:g}{' by its logarithm' * (p.scale == 'log')}"
        for p in recipe.parameters
    ]


def _footnotes() -> list[str]:
    from sobolev.datasets.recipes.costs import machine

    return [
        f"Seconds were measured on {machine()} by benchmarks/recipe_costs.py; bytes are those of float32 at the usual",
        "resolution. `sobolev recipes NAME` says the equation, the resolutions and the parameters of one.",
    ]


def _paid(recipe: Recipe) -> str:
    """Return what a sample takes, in time and on disk."""
    from sobolev.datasets.recipes.costs import cost_of
    from sobolev.datasets.store.cards import size_in_words

    cost = cost_of(recipe)
    if cost is None:
        return "not measured"
    digits = 0 if cost.seconds >= 10 else 1 if cost.seconds >= 1 else 2
    return f"{cost.seconds:5.{digits}f} s  {size_in_words(cost.bytes):>8}"


def _all_of(recipe: Recipe) -> list[str]:
    """Return the lines that say all of a recipe."""
    from sobolev.datasets.recipes.costs import machine
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
    on = "" if (paid := _paid(recipe)) == "not measured" else f", measured on {machine()}"
    lines.append(f"  a sample takes: {' '.join(paid.split())}{on}")
    if times := recipe.times:
        lines.append(f"  frames: {len(times)}, from t = {times[0]:g} to {times[-1]:g}")
    if drawn := _drawn(recipe):
        lines.append(f"  drawn for each sample, by --vary: {', '.join(drawn)}")
    if recipe.ranges:
        usual = ", ".join(f"{name}={ends}" for name, ends in recipe.ranges.items())
        lines.append(f"  usually varied over, by --vary: {usual}")
    lines.append("  parameters, for --set:")
    parameters = _fixed(recipe)
    width = max(map(len, parameters), default=0)
    return [*lines, *(f"    {name:{width}}  {as_text(v)}" for name, v in parameters.items())]
