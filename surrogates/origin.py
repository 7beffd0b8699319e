"""The recipe behind a surrogate's training data, which knows their equation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sobolev.surrogates.provenance import DataRecord

if TYPE_CHECKING:
    from sobolev.datasets.recipes.base import Recipe


def recipe_of(data: DataRecord, recipes: Sequence[type[Recipe]] = ()) -> Recipe:
    """Return the recipe of the data that a surrogate was trained on.

    Args:
        data: the surrogate's record of them.
        recipes: classes from outside the package that may have drawn them.

    Raises:
        ValueError: if there is none, or none that is known.
    """
    from sobolev.datasets.recipes.presets import (  # solvers, which predicting needs not
        class_of,
        recipe_from,
    )

    if class_of(data.recipe, recipes) is None:
        name = None if data.recipe is None else data.recipe.get("class")
        found = "nothing" if data.recipe is None else f"the class {name!r}"
        own = (
            f"; if it is yours, name it: recipes=[...], or --recipes {name}"
            if ":" in str(name)
            else ""
        )
        raise ValueError(
            f"which equation the predictions should obey is not known: of the recipe of its data the surrogate's "
            f"provenance says {found}; it has to be trained on a data set of `sobolev generate`{own}"
        )
    recipe = recipe_from(data.recipe, recipes)
    if recipe.parameters:
        names = ", ".join(parameter.name for parameter in recipe.parameters)
        raise ValueError(
            f"{names} differs from sample to sample in the training data, so that no one equation says how far a "
            "prediction is from it"
        )
    return recipe


def declared_symmetries(data: DataRecord) -> tuple[str, ...]:
    """Return the symmetries that the data declare; in records of older versions, by their recipe.

    Raises:
        ValueError: if nothing is known of them.
    """
    found = recipe_of(data).symmetries if data.symmetries is None else data.symmetries
    return tuple(found)
