"""``sobolev verify``: the check that a data set is what it says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sobolev.commands.options import Commands, add, add_recipes, positive

_VERIFY = """\
Check every file's presence, size and SHA-256, that all values are finite, and what the equation
promises of them: conserved quantities, maximum principles, boundary values. With --redraw, draw
samples again from their seeds: bit for bit equal with the same versions on the same machine, to a
stated tolerance elsewhere, and with a small residual of the PDE in H^-1.
"""


def declare(commands: Commands) -> None:
    sub = add(
        commands,
        "verify",
        run,
        "check a data set: files, values, physics, and on request the seeds",
        _VERIFY,
    )
    sub.add_argument("path", help="folder of the data set")
    sub.add_argument(
        "--redraw",
        type=positive,
        default=0,
        metavar="N",
        help="draw N samples of each split again from their seeds and compare (default: none)",
    )
    add_recipes(sub)


def run(options: argparse.Namespace) -> int:
    from sobolev.commands.classes import recipes_of
    from sobolev.datasets import Manifest, verify
    from sobolev.datasets.recipes.presets import class_of

    recipes = recipes_of(options)
    problems = verify(options.path, redraw=options.redraw, recipes=recipes)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print(f"{options.path}: {len(problems)} problem(s)")
        return 1
    known = class_of(Manifest.read(Path(options.path)).recipe, recipes) is not None
    allowed = "what the equation allows" if known else "finite; no equation is known to check"
    print(f"{options.path}: every file is as it was written, and its fields are {allowed}")
    return 0
