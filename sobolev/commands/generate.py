"""``sobolev generate``: a data set drawn from a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path

from sobolev.commands.options import Commands, add, positive

_GENERATE = """\
Draw random inputs, solve the PDE, and write NetCDF shards with a data card. Interrupted runs continue when called
again; the files' bytes do not depend on workers or interruptions.

examples:
  sobolev generate burgers-fno data/burgers --samples train=1000 --samples test=200 --resolution 1024
  sobolev generate darcy-fno data/darcy --resolution 85
  sobolev generate burgers-fno data/thin --set viscosity=0.02 --set time=2
  sobolev generate ns-fno-1e-3 data/ns-1e-3 --samples train=1000 --workers 2
  sobolev generate my_solver.py:HeatRecipe data/heat

presets (`sobolev recipes` says more):
  burgers-fno                                   u(.,0) to u(.,1), viscosity 0.1 (Li et al. 2021)
  darcy-fno, darcy-lognormal, darcy-rough       permeability to pressure
  darcy-fno-published                           the same with the released files' detours
  ns-fno-1e-3, ns-fno-1e-4, ns-fno-1e-5         forced turbulence on the torus, trajectories
  ns-sym                                        the same with a forcing that quarter turns leave alone
  ns-mcwilliams                                 decaying turbulence
  swe-random, swe-galewsky                      shallow water on the rotating sphere
"""


def declare(commands: Commands) -> None:
    sub = add(commands, "generate", run, "draw a data set from a recipe", _GENERATE)
    sub.add_argument(
        "recipe", help="a published preset, see below, or MODULE:CLASS or FILE.py:CLASS of your own"
    )
    sub.add_argument("path", help="folder of the data set")
    sub.add_argument(
        "--set",
        action="append",
        type=_parameter,
        default=[],
        metavar="NAME=VALUE",
        help="another value of a parameter of the recipe, which `sobolev recipes RECIPE` lists; it is no longer "
        "drawn; repeat for each",
    )
    sub.add_argument(
        "--samples",
        action="append",
        type=_split,
        metavar="SPLIT=COUNT",
        help="how many of a split; repeat for each (default: train=1000, valid=100, test=200)",
    )
    sub.add_argument("--resolution", type=int, help="stored nodes per axis (default: the preset's)")
    sub.add_argument("--seed", type=int, help="root of all random streams (default: 0)")
    sub.add_argument("--dtype", choices=("float32", "float64"), help="on disk (default: float32)")
    sub.add_argument(
        "--workers",
        type=positive,
        help="processes to draw with, one thread each (default: one per core)",
    )
    sub.add_argument(
        "--vary",
        action="append",
        default=[],
        type=_varied,
        metavar="NAME[=LOW:HIGH[:log]]",
        help="draw a parameter for each sample, such as viscosity=0.01:1:log, or over its usual range, which `sobolev "
        "recipes RECIPE` says; repeat",
    )
    sub.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="draw on a Dask cluster instead, such as tcp://host:8786; its workers must see PATH",
    )
    group = sub.add_mutually_exclusive_group()
    group.add_argument(
        "--overwrite", action="store_true", help="replace a data set of another configuration"
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="continue the data set in PATH; options left out are taken from it",
    )


def run(options: argparse.Namespace) -> int:
    import torch

    from sobolev.commands.classes import recipe_named
    from sobolev.datasets import Manifest, generate
    from sobolev.datasets.recipes.presets import changed, class_of, recipe_from, words_for

    recipe = recipe_named(options.recipe)
    samples = dict(options.samples) if options.samples else None
    resolution = options.resolution
    seed = options.seed
    dtype = options.dtype
    if options.resume:
        found = Manifest.read(Path(options.path))
        is_same = class_of(found.recipe, [type(recipe)]) is type(recipe)
        if is_same and (":" in options.recipe or words_for(found.recipe)[:1] == [options.recipe]):
            recipe = recipe_from(found.recipe, [type(recipe)])
        samples = samples or found.requested
        resolution = resolution or found.resolution
        seed = found.seed if seed is None else seed
        dtype = dtype or found.dtype
    recipe = changed(recipe, dict(options.set), dict(options.vary))
    generate(
        recipe, options.path, samples, resolution=resolution, seed=seed or 0, dtype=dtype or "float32",
        overwrite=options.overwrite, workers=options.workers or torch.get_num_threads(), dask=options.dask,
    )  # fmt: skip
    total = ", ".join(
        f"{split} {count}" for split, count in Manifest.read(Path(options.path)).requested.items()
    )
    print(
        f"{options.path}: {total} samples. Open with sobolev.datasets.open_dataset({options.path!r})"
    )
    return 0


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form NAME=VALUE, such as viscosity=0.02"
        )
    return name, value


def _varied(text: str) -> tuple[str, str]:
    return _parameter(text) if "=" in text else (text, "")


def _split(text: str) -> tuple[str, int]:
    name, equals, count = text.partition("=")
    if not (name and equals and count.isdigit() and int(count) > 0):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form SPLIT=COUNT, such as train=1000"
        )
    return name, int(count)
