"""Recipes by name: the published presets, and the recipe that a file describes.

A recipe's fields are all there is to know; ``docs/data.md`` says what the papers leave open and
what was chosen here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, replace
from typing import Any, get_type_hints

from sobolev.datasets.recipes.base import Recipe, identity
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
from sobolev.datasets.recipes.reaction_diffusion import (
    FisherKPPRecipe,
    FitzHughNagumoRecipe,
    GrayScottRecipe,
)
from sobolev.datasets.recipes.shallow_water import ShallowWaterRecipe
from sobolev.datasets.recipes.waves import KdVRecipe, KleinGordonRecipe, SchroedingerRecipe
from sobolev.grids import installed
from sobolev.grids.checks import as_annotated, did_you_mean, is_of_kind
from sobolev.grids.variables import Parameter


def varying(name: str, text: str) -> Parameter:
    """Return the parameter that is drawn from ``LOW:HIGH``, or ``LOW:HIGH:log`` for even logarithms.

    >>> varying("viscosity", "0.01:1:log").scale
    'log'

    Raises:
        ValueError: for another form, or a range that is none.
    """
    low, _, rest = text.partition(":")
    high, _, scale = rest.partition(":")
    try:
        ends = (float(low), float(high))
    except ValueError:
        raise ValueError(
            f"{name} varies over LOW:HIGH, or LOW:HIGH:log for even logarithms, got {text!r}"
        ) from None
    return Parameter(name, name.replace("_", " "), "1", *ends, scale or "linear")


PRESETS: dict[str, Recipe] = {
    "burgers-fno": BurgersRecipe(),
    "burgers-nu": BurgersRecipe(
        solver_resolution=2048, parameters=(varying("viscosity", "0.01:1:log"),)
    ),
    "darcy-fno": DarcyRecipe(),
    "darcy-fno-published": PublishedDarcyRecipe(),
    "darcy-lognormal": DarcyRecipe(medium="lognormal", sigma=3.0),
    "darcy-rough": DarcyRecipe(tau=5.0, solver_resolution=511, stored_resolution=256),
    "darcy-holes": HoledDarcyRecipe(),
    "darcy-forced": ForcedDarcyRecipe(),
    "darcy-3d": ForcedDarcyRecipe(
        walls=("dirichlet",) * 3, solver_resolution=65, stored_resolution=33, source_sigma=40.0
    ),
    "ns-fno-1e-3": NavierStokesRecipe(),
    "ns-fno-1e-4": NavierStokesRecipe(
        viscosity=1e-4, time=30.0, step=0.0125, solver_resolution=128
    ),
    "ns-fno-1e-5": NavierStokesRecipe(
        viscosity=1e-5, time=20.0, step=0.00625, solver_resolution=256
    ),
    "ns-sym": NavierStokesRecipe(
        viscosity=1e-4, time=30.0, forcing="symmetric", step=0.0125, solver_resolution=128
    ),
    "ns-nu": NavierStokesRecipe(
        time=20.0, step=0.025, parameters=(varying("viscosity", "1e-4:1e-2:log"),)
    ),
    "ns-mcwilliams": DecayingTurbulenceRecipe(),
    "swe-random": ShallowWaterRecipe(),
    "swe-galewsky": ShallowWaterRecipe(start="galewsky", hours=144, interval=4 * 3600.0),
    "heat": HeatRecipe(),
    "advection": AdvectionRecipe(),
    "kdv": KdVRecipe(),
    "ks": KuramotoSivashinskyRecipe(),
    "ks-2d": FlameFrontRecipe(),
    "schroedinger": SchroedingerRecipe(),
    "wave": KleinGordonRecipe(),
    "klein-gordon": KleinGordonRecipe(mass=10.0, cubic=100.0),
    "allen-cahn": AllenCahnRecipe(),
    "allen-cahn-sphere": AllenCahnRecipe(
        domain="sphere",
        length=1.0,
        diffusivity=1e-2,
        rate=1.0,
        time=20.0,
        interval=0.5,
        step=0.1,
        solver_resolution=64,
        stored_resolution=32,
    ),
    "cahn-hilliard": CahnHilliardRecipe(),
    "swift-hohenberg": SwiftHohenbergRecipe(),
    "fisher-kpp": FisherKPPRecipe(),
    "gray-scott": GrayScottRecipe(),
    "fitzhugh-nagumo": FitzHughNagumoRecipe(),
    "burgers-2d": VectorBurgersRecipe(),
    "kolmogorov": KolmogorovFlowRecipe(),
    "barotropic": BarotropicVorticityRecipe(),
}
OWN: tuple[type[Recipe], ...] = (
    BurgersRecipe,
    DarcyRecipe,
    PublishedDarcyRecipe,
    HoledDarcyRecipe,
    ForcedDarcyRecipe,
    NavierStokesRecipe,
    DecayingTurbulenceRecipe,
    ShallowWaterRecipe,
    HeatRecipe,
    AdvectionRecipe,
    KdVRecipe,
    KuramotoSivashinskyRecipe,
    FlameFrontRecipe,
    SchroedingerRecipe,
    KleinGordonRecipe,
    AllenCahnRecipe,
    CahnHilliardRecipe,
    SwiftHohenbergRecipe,
    FisherKPPRecipe,
    GrayScottRecipe,
    FitzHughNagumoRecipe,
    VectorBurgersRecipe,
    KolmogorovFlowRecipe,
    BarotropicVorticityRecipe,
)
"""The classes that come with sobolev."""


def find_recipe(recipe: str | Recipe) -> Recipe:
    """Return the preset of this name, or the recipe that an installed package declares by it, with its
    defaults; a recipe is returned as it is.

    Raises:
        ValueError: for an unknown name, with the nearest one, and a declared class that is no good.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe in PRESETS:
        return PRESETS[recipe]
    if (entry := installed.named(installed.RECIPES, recipe)) is not None:
        return with_defaults(entry.load(Recipe))
    known = [*PRESETS, *(entry.name for entry in installed.declared(installed.RECIPES))]
    near = did_you_mean(recipe, known)
    hint = f"; {near}" if near else ""
    raise ValueError(f"unknown recipe {recipe!r}{hint} (known: {', '.join(known)})")


def with_defaults(recipe: type[Recipe]) -> Recipe:
    """Return the recipe of a class with its defaults.

    Raises:
        ValueError: for a class with parameters that have none.
    """
    parameters = fields(recipe)
    if bare := [f.name for f in parameters if f.default is f.default_factory is MISSING]:
        raise ValueError(
            f"{identity(recipe)} has no default for {', '.join(bare)}: give it one in the class; --set changes it"
        )
    return recipe()


def class_of(configuration: Any, recipes: Sequence[type[Recipe]] = ()) -> type[Recipe] | None:
    """Return the class that ``configuration`` names, if it is sobolev's, one of ``recipes`` or one that an
    installed package declares.

    A class from outside is named ``module:Class``; nothing is imported because a file says so.

    Raises:
        ValueError: for a declared class that is no good.
    """
    name = configuration.get("class") if isinstance(configuration, Mapping) else None
    known = {identity(recipe): recipe for recipe in (*OWN, *recipes)}
    if not isinstance(name, str) or name in known or ":" not in name:
        return known.get(name) if isinstance(name, str) else None
    entry = installed.with_identity(installed.RECIPES, name)
    return None if entry is None else entry.load(Recipe)


def recipe_from(configuration: Any, recipes: Sequence[type[Recipe]] = ()) -> Recipe:
    """Return the recipe that ``configuration``, JSON that may be anybody's, describes.

    Args:
        configuration: the class and the parameters, as ``Recipe.configuration`` gives them.
        recipes: classes from outside the package that may be meant.

    Raises:
        ValueError: if its class is none of the known ones, nothing ever being imported by name; for
            parameters that the class lacks, or that are of another type or not finite.
    """
    recipe = class_of(configuration, recipes)
    if recipe is None:
        name = configuration.get("class") if isinstance(configuration, Mapping) else configuration
        names = ", ".join(identity(known) for known in (*OWN, *recipes))
        raise ValueError(
            f"the data were made by a recipe of class {name!r}; sobolev can only draw again from {names}"
            f"{_how_to_say(name)}"
        )
    return _with_parameters(recipe, {k: v for k, v in configuration.items() if k != "class"})


def _with_parameters(recipe: type[Recipe], parameters: dict[str, Any]) -> Recipe:
    """Return the recipe of a class with parameters from JSON, each of which is checked."""
    kinds = get_type_hints(recipe)
    known = {f.name: kinds[f.name] for f in fields(recipe) if f.name != "parameters"}
    arguments = dict(parameters)
    for name, value in parameters.items():
        if name == "parameters":
            arguments[name] = _parameters(value)
            continue
        if name not in known:
            near = did_you_mean(name, known)
            raise ValueError(
                f"{recipe.__name__} has no parameter {name!r}; {near and near + ' '}it has {', '.join(known)}"
            )
        if not is_of_kind(value, known[name]):
            kind = known[name].__name__ if isinstance(known[name], type) else known[name]
            raise ValueError(f"{recipe.__name__} needs a finite {kind} for {name}, got {value!r}")
        arguments[name] = as_annotated(value, known[name])
    return recipe(**arguments)


def _parameters(content: Any) -> tuple[Parameter, ...]:
    """Return the parameters that differ from sample to sample, from JSON that may be anybody's."""
    kinds = get_type_hints(Parameter)
    entries = content if isinstance(content, list) else [content]
    for entry in entries:
        good = isinstance(entry, Mapping) and set(entry) == set(kinds)
        if not (good and all(is_of_kind(entry[name], kind) for name, kind in kinds.items())):
            raise ValueError(f"parameters are lists of {', '.join(kinds)}, got {entry!r}")
    return tuple(Parameter(**entry) for entry in entries)


def changed(
    recipe: Recipe, parameters: Mapping[str, str], vary: Mapping[str, str] | None = None
) -> Recipe:
    """Return the recipe with some parameters replaced, as ``sobolev generate --set`` takes them.

    >>> changed(PRESETS["burgers-fno"], {"viscosity": "0.02", "zero_mean": "false"}) == BurgersRecipe(
    ...     viscosity=0.02, zero_mean=False
    ... )
    True

    Args:
        recipe: a preset or any other.
        parameters: the values by name: numbers, lists, true, false and null as in JSON, the rest text.
        vary: the ranges of parameters that are drawn for each sample, as ``varying`` reads them; an empty one is
            the recipe's own. Others that
            the recipe draws stay drawn, but for those that are given a value.

    Raises:
        ValueError: for parameters that the recipe lacks, with the nearest name, or that are of another
            type, not finite or out of range.
    """
    kinds = get_type_hints(type(recipe))
    values = {name: _value(text, kinds.get(name)) for name, text in parameters.items()}
    present = {k: v for k, v in recipe.configuration().items() if k != "class"}
    other = _with_parameters(type(recipe), {**present, **values})
    kept = [p for p in other.parameters if p.name not in {*values, *(vary or {})}]
    added = [
        varying(name, text or _usual_range(recipe, name)) for name, text in (vary or {}).items()
    ]
    other = replace(other, parameters=(*kept, *added))
    other.check_parameters()
    return other


def _usual_range(recipe: Recipe, name: str) -> str:
    """Return the range over which a recipe's number is usually varied.

    Raises:
        ValueError: if the recipe says none.
    """
    if name not in recipe.ranges:
        known = ", ".join(recipe.ranges) or "none"
        raise ValueError(
            f"{type(recipe).__name__} says no usual range of {name!r} (it does of: {known}); give one, {name}=LOW:HIGH"
        )
    return recipe.ranges[name]


def _value(text: str, kind: Any) -> Any:
    """Return what a text says of a parameter of this kind."""
    if kind is str:
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def words_for(configuration: Mapping[str, Any]) -> list[str]:
    """Return the arguments of ``sobolev generate`` that ask for a recipe: the nearest preset, or the name by
    which an installed package declares it, and what is set otherwise. Other recipes have none.

    >>> words_for(BurgersRecipe(viscosity=0.02).configuration())
    ['burgers-fno', '--set', 'viscosity=0.02']
    """
    changes = {}
    presets = dict(PRESETS)
    for entry in installed.declared(installed.RECIPES):
        if entry.identity == configuration.get("class"):
            presets.setdefault(entry.name, with_defaults(entry.load(Recipe)))
    wanted = {"parameters": [], **configuration}
    for name, preset in presets.items():
        known = {"parameters": [], **preset.configuration()}
        if known["class"] == wanted.get("class"):
            changes[name] = {k: v for k, v in wanted.items() if known.get(k, ...) != v}
    if not changes:
        return []
    nearest = min(changes, key=lambda name: len(changes[name]))
    different = changes[nearest]
    drawn = {one["name"]: one for one in wanted["parameters"]}
    drawn_there = {one.name: asdict(one) for one in presets[nearest].parameters}
    fixed = {name: wanted[name] for name in drawn_there if name not in drawn}
    words = [nearest]
    for name, one in drawn.items():
        if drawn_there.get(name) != one or name in different:  # which a value would take away
            log = ":log" if one["scale"] == "log" else ""
            words += ["--vary", f"{name}={one['low']:g}:{one['high']:g}{log}"]
    for name, value in {**different, **fixed}.items():
        if name != "parameters":
            words += ["--set", f"{name}={as_text(value)}"]
    return words


def as_text(value: Any) -> str:
    """Return the value of a parameter as ``--set`` takes it.

    >>> as_text("two-phase"), as_text(None), as_text(0.5)
    ('two-phase', 'null', '0.5')
    """
    return value if isinstance(value, str) else json.dumps(value)


def _how_to_say(name: Any) -> str:
    """Return the way to name a class from outside, if this is one."""
    if not (isinstance(name, str) and ":" in name):
        return ""
    return f"; if it is yours, say so: recipes=[{name.rpartition(':')[2]}], or --recipes {name}"
