"""``sobolev calibrate``: error bounds of trajectories, learnt from data."""

from __future__ import annotations

import argparse

from sobolev.commands.options import RUN, Commands, add, add_operators, add_recipes

_CALIBRATE = """\
Compare residuals of predicted trajectories with their true errors on data that the surrogate was not trained on, and
save in the surrogate how large errors are beside residuals. `sobolev predict --certify` then bounds errors without
knowing the truth. Darcy flow needs no calibration: its bound is guaranteed.
"""


def declare(commands: Commands) -> None:
    sub = add(commands, "calibrate", run, "learn error bounds of trajectories", _CALIBRATE)
    sub.add_argument("run", help=RUN)
    sub.add_argument("--data", required=True, help="data set with the trajectories")
    sub.add_argument("--split", default="valid", help="split to calibrate on (default: valid)")
    sub.add_argument(
        "--quantile",
        type=float,
        default=0.9,
        help="share of predictions whose error the bound shall not fall below (default: 0.9)",
    )
    add_recipes(sub)
    add_operators(sub)


def run(options: argparse.Namespace) -> int:
    from sobolev.certification import calibrate
    from sobolev.commands.classes import operators_of, recipes_of
    from sobolev.datasets import OperatorDataModule
    from sobolev.evaluation.comparison import check_same_meaning
    from sobolev.surrogates import Surrogate
    from sobolev.surrogates.files import surrogate_folder

    surrogate = Surrogate.load(options.run, operators=operators_of(options))
    data = OperatorDataModule(options.data, window=surrogate.meaning.cut)
    check_same_meaning(surrogate, data, options.data)
    found = calibrate(
        surrogate, data, quantile=options.quantile, split=options.split, recipes=recipes_of(options)
    )
    surrogate.save(surrogate_folder(options.run))
    print(
        f"{options.run}: errors are at most {found.factor:.3g} times the residual for {found.quantile:.0%} of "
        f"trajectories ({found.samples} seen)"
    )
    return 0
