"""``sobolev refine``: predictions made good by the residual of their equation."""

from __future__ import annotations

import argparse

from sobolev.commands.files import from_file_to_file
from sobolev.commands.options import RUN, Commands, add, add_operators, add_recipes, positive

_REFINE = """\
Predict, then fit the last spectral layer to the equation, sample by sample: least squares for the residual in H^-1, by
Gauss-Newton and conjugate gradients, in float64. Needs no data. Flows on the torus take an operator that ends in a
series in time, Trajectory(SpatioTemporalFNO); Darcy takes any. The output also holds residual_before, residual_after
and iterations of each sample.

example, ten frames in:
  python -c "from sobolev.datasets import open_dataset as o; o('data/ns-1e-3', 'test').isel(
             sample=slice(0, 4), time=slice(0, 10)).to_netcdf('given.nc', engine='h5netcdf')"
  sobolev refine runs/ns-1e-3-stfno given.nc refined.nc --tolerance 1e-3
"""


def declare(commands: Commands) -> None:
    sub = add(commands, "refine", run, "predict, and make it good by the PDE's residual", _REFINE)
    sub.add_argument("run", help=RUN)
    sub.add_argument("input", help="NetCDF file: given frames along time, or the input variables")
    sub.add_argument("output", help="NetCDF file to write")
    sub.add_argument(
        "--modes",
        type=positive,
        nargs="+",
        metavar="N",
        help="of the series that is fitted: KY KX M for flows, KY KX for Darcy (default: all that the grid "
        "resolves, and twice the operator's in time)",
    )
    sub.add_argument(
        "--tolerance",
        type=float,
        default=1e-3,
        help="stop at this relative residual, about the relative error of a flow (default: 1e-3)",
    )
    sub.add_argument(
        "--max-iterations",
        type=positive,
        default=100,
        help="of conjugate gradients, for each sample (default: 100)",
    )
    add_recipes(sub)
    add_operators(sub)


def run(options: argparse.Namespace) -> int:
    from sobolev.certification import refine
    from sobolev.commands.classes import recipes_of

    refined = from_file_to_file(
        options,
        lambda surrogate, dataset: refine(
            surrogate, dataset, modes=options.modes, tolerance=options.tolerance,
            max_iterations=options.max_iterations, recipes=recipes_of(options),
        ),
    )  # fmt: skip
    before, after = (float(refined[f"residual_{when}"].max()) for when in ("before", "after"))
    print(
        f"relative residual: {after:.1e} at most, {before:.1e} before; {refined.attrs['seconds']:.2g} s"
    )
    return 0
