"""``sobolev predict``: from a NetCDF file to a NetCDF file."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from sobolev.commands.files import from_file_to_file
from sobolev.commands.options import (
    RUN,
    SYMMETRIZE,
    Commands,
    add,
    add_operators,
    add_recipes,
    resolution,
)

if TYPE_CHECKING:
    import xarray as xr

    from sobolev.surrogates import Surrogate


def declare(commands: Commands) -> None:
    sub = add(commands, "predict", run, "predict from a NetCDF file")
    sub.add_argument("run", help=RUN)
    sub.add_argument(
        "input",
        help="NetCDF file with the input variables (or given frames along time) and their coordinates",
    )
    sub.add_argument("output", help="NetCDF file to write")
    sub.add_argument(
        "--resolution",
        type=resolution,
        metavar="N",
        help="nodes per axis of the output, such as 64 or 64x32 (default: the input's)",
    )
    sub.add_argument("--symmetrize", action="store_true", help=SYMMETRIZE)
    sub.add_argument(
        "--certify", action="store_true", help="add an upper bound of the error of each prediction"
    )
    sub.add_argument(
        "--tolerance",
        type=float,
        help="have the classical solver make those good whose guaranteed relative error exceeds this",
    )
    add_recipes(sub)
    add_operators(sub)


def run(options: argparse.Namespace) -> int:
    prediction = from_file_to_file(options, partial(_predicted, options))
    if "error_bound" in prediction:
        bound = prediction["error_bound"]
        about = f"{bound.attrs['long_name']}, {bound.attrs['norm']}"
        print(f"{about}: {float(bound.max()):.2g} at most")
    return 0


def _predicted(
    options: argparse.Namespace, surrogate: Surrogate, dataset: xr.Dataset
) -> xr.Dataset:
    if options.symmetrize:
        surrogate = surrogate.symmetrized()
    if not options.certify and options.tolerance is None:
        return surrogate.predict(dataset, resolution=options.resolution)
    from sobolev.certification import certified
    from sobolev.commands.classes import recipes_of
    from sobolev.grids.restriction import at_resolution
    from sobolev.surrogates.tensors import given_inputs

    grid = given_inputs(dataset, surrogate.meaning).grid
    if options.resolution is not None and at_resolution(grid, options.resolution) != grid:
        raise ValueError(
            "a certificate takes the input on the grid of the prediction; give the input at that resolution, and leave "
            "--resolution out"
        )
    return certified(surrogate, dataset, options.tolerance, recipes=recipes_of(options))
