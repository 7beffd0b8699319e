"""Commands that train surrogates, judge and use them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sobolev.commands.options import Commands, add, positive

_RUN = "run folder of `sobolev train`, or a surrogate folder"
_SYMMETRIZE = """\
average over the symmetries that the recipe of the training data declares: as a rule more accurate, and as many times
the work as they are (Darcy 8, Burgers 2)"""


def _add_train(commands: Commands) -> None:
    commands.add_parser(
        "train", help="train a surrogate on a data set (all of Lightning's options)", add_help=False
    )


def train(arguments: Sequence[str]) -> int:
    from sobolev.training.runs.fitting import train

    return _saved(train(arguments))


def _add_boost(commands: Commands) -> None:
    commands.add_parser(
        "boost",
        help="train the stages of a SpecBoost one after another (train's options and more)",
        add_help=False,
    )


def boost(arguments: Sequence[str]) -> int:
    from sobolev.training.boosting.command import boost_command

    return _saved(boost_command(arguments))


def _saved(run: Path) -> int:
    from lightning.pytorch.utilities import rank_zero_only

    rank_zero_only(print)(f'surrogate saved: sobolev.Surrogate.load("{run / "surrogate"}")')
    return 0


_EVALUATE = """\
Predict the test fields at each resolution and compare with the solver's. Writes report.html, one file that opens
from disk, and the same numbers as evaluation.json: errors in several norms, fields, spectra, rollouts of
trajectories, error bounds beside true errors, and after how many fields the surrogate has paid for its data and
training, against the cheapest solve that is as accurate. Resolutions finer than the data are drawn again from the
data set's seeds, once, on the solver's grid.

example:
  sobolev evaluate runs/burgers-fno --data data/burgers --resolution 1024 --resolution 8192
"""


def _add_evaluate(commands: Commands) -> None:
    sub = add(
        commands,
        "evaluate",
        _evaluate,
        "judge a trained surrogate on test fields, at any resolution",
        _EVALUATE,
    )
    sub.add_argument("run", help=_RUN)
    sub.add_argument("--data", required=True, help="data set with the fields to test on")
    sub.add_argument("--split", default="test", help="split to test on (default: test)")
    sub.add_argument(
        "--resolution",
        type=int,
        action="append",
        help="nodes per axis; repeat (default: as stored)",
    )
    sub.add_argument(
        "--out", help="folder for report.html and evaluation.json (default: RUN/evaluation)"
    )
    sub.add_argument(
        "--trajectories",
        type=positive,
        metavar="N",
        help="how many to roll out, where the data are trajectories (default: 32)",
    )
    sub.add_argument("--symmetrize", action="store_true", help=_SYMMETRIZE)
    sub.add_argument(
        "--no-solver-timing",
        action="store_true",
        help="leave out what takes classical solves: their times and the break-even",
    )


def _evaluate(options: argparse.Namespace) -> int:
    from sobolev.evaluation.judged import evaluate_run
    from sobolev.evaluation.rollouts import TRAJECTORIES

    evaluate_run(
        options.run, options.data, options.resolution, split=options.split, out=options.out,
        solver_timing=not options.no_solver_timing, trajectories=options.trajectories or TRAJECTORIES,
        symmetrize=options.symmetrize,
    )  # fmt: skip
    return 0


def _add_predict(commands: Commands) -> None:
    sub = add(commands, "predict", _predict, "predict from a NetCDF file")
    sub.add_argument("run", help=_RUN)
    sub.add_argument(
        "input",
        help="NetCDF file with the input variables (or given frames along time) and their coordinates",
    )
    sub.add_argument("output", help="NetCDF file to write")
    sub.add_argument(
        "--resolution", type=int, help="nodes per axis of the output (default: the input's)"
    )
    sub.add_argument("--symmetrize", action="store_true", help=_SYMMETRIZE)
    sub.add_argument(
        "--certify", action="store_true", help="add an upper bound of the error of each prediction"
    )
    sub.add_argument(
        "--tolerance",
        type=float,
        help="have the classical solver make those good whose guaranteed relative error exceeds this",
    )


def _predict(options: argparse.Namespace) -> int:
    prediction = _from_file_to_file(
        options,
        lambda surrogate, dataset: (
            surrogate.symmetrized() if options.symmetrize else surrogate
        ).predict(
            dataset,
            resolution=options.resolution,
            certify=options.certify,
            tolerance=options.tolerance,
        ),
    )
    if "error_bound" in prediction:
        bound = prediction["error_bound"]
        about = f"{bound.attrs['long_name']}, {bound.attrs['norm']}"
        print(f"{about}: {float(bound.max()):.2g} at most")
    return 0


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


def _add_refine(commands: Commands) -> None:
    sub = add(
        commands, "refine", _refine, "predict, and make it good by the PDE's residual", _REFINE
    )
    sub.add_argument("run", help=_RUN)
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


def _refine(options: argparse.Namespace) -> int:
    from sobolev.certification.refinement import refine

    refined = _from_file_to_file(
        options,
        lambda surrogate, dataset: refine(
            surrogate, dataset, modes=options.modes, tolerance=options.tolerance,
            max_iterations=options.max_iterations,
        ),
    )  # fmt: skip
    before, after = (float(refined[f"residual_{when}"].max()) for when in ("before", "after"))
    print(
        f"relative residual: {after:.1e} at most, {before:.1e} before; {refined.attrs['seconds']:.2g} s"
    )
    return 0


def _from_file_to_file(options: argparse.Namespace, work: Callable[[Any, Any], Any]) -> Any:
    """What ``work`` makes of the surrogate in ``options.run`` and the dataset in ``options.input``,
    written to ``options.output``."""
    import xarray as xr

    from sobolev.datasets.store.shards import write_netcdf
    from sobolev.surrogates.surrogate import load_run

    source, target = Path(options.input), Path(options.output)
    if not source.is_file():
        raise FileNotFoundError(f"there is no file {source}")
    if target.resolve() == source.resolve():
        raise ValueError(f"input and output are the same file, {source}; choose another output")
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; name the file to write")
    try:
        opened = xr.open_dataset(source, engine="h5netcdf")
    except OSError as error:
        raise OSError(f"{source} cannot be read as NetCDF-4: {error}") from error
    with opened as dataset:
        prediction = work(load_run(options.run), dataset)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_netcdf(prediction, target)
    print(f"{options.output}: {', '.join(map(str, prediction.data_vars))} {dict(prediction.sizes)}")
    return prediction


_CALIBRATE = """\
Compare residuals of predicted trajectories with their true errors on data that the surrogate was not trained on, and
save in the surrogate how large errors are beside residuals. `sobolev predict --certify` then bounds errors without
knowing the truth. Darcy flow needs no calibration: its bound is guaranteed.
"""


def _add_calibrate(commands: Commands) -> None:
    sub = add(commands, "calibrate", _calibrate, "learn error bounds of trajectories", _CALIBRATE)
    sub.add_argument("run", help=_RUN)
    sub.add_argument("--data", required=True, help="data set with the trajectories")
    sub.add_argument("--split", default="valid", help="split to calibrate on (default: valid)")
    sub.add_argument(
        "--quantile",
        type=float,
        default=0.9,
        help="share of predictions whose error the bound shall not fall below (default: 0.9)",
    )


def _calibrate(options: argparse.Namespace) -> int:
    from dataclasses import astuple

    from sobolev.certification.certificates import calibrate
    from sobolev.datasets import OperatorDataModule
    from sobolev.evaluation.comparison import check_same_meaning
    from sobolev.surrogates.surrogate import load_run

    surrogate, run = load_run(options.run), Path(options.run)
    window = (1, 1) if surrogate.window is None else astuple(surrogate.window)
    data = OperatorDataModule(options.data, window=window)
    check_same_meaning(surrogate, data, options.data)
    found = calibrate(surrogate, data, quantile=options.quantile, split=options.split)
    surrogate.save(run / "surrogate" if (run / "surrogate").is_dir() else run)
    print(
        f"{options.run}: errors are at most {found.factor:.3g} times the residual for {found.quantile:.0%} of "
        f"trajectories ({found.samples} seen)"
    )
    return 0


_ONNX = """\
Write one ONNX file for any batch and resolution, normalisation included. It takes `inputs`, float32 (batch, inputs,
space...) in physical units, and gives `outputs`. Names, units, grid and provenance are in its metadata. It is compared
with torch at three resolutions before it takes its place. Needs pip install 'sobolev[onnx]'.

example:
  sobolev onnx runs/burgers-fno burgers.onnx
  python -c "import onnxruntime as o, numpy as n; print(o.InferenceSession('burgers.onnx').run(
             None, {'inputs': n.zeros((1, 1, 2048), n.float32)})[0].shape)"
"""


def _add_onnx(commands: Commands) -> None:
    sub = add(
        commands, "onnx", _onnx, "write a surrogate as one ONNX file for every resolution", _ONNX
    )
    sub.add_argument("run", help=_RUN)
    sub.add_argument("file", help="ONNX file to write; one that is there is replaced")


def _onnx(options: argparse.Namespace) -> int:
    import json

    from sobolev.surrogates.surrogate import load_run

    surrogate = load_run(options.run)
    file = surrogate.export_onnx(options.file)
    import onnx

    stated = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    least = " × ".join(map(str, json.loads(stated["least_sizes"])))
    print(f"{file}: any batch, any {' × '.join(surrogate.grid.dims)} of at least {least} nodes")
    return 0


def _add_demo(commands: Commands) -> None:
    sub = add(
        commands,
        "demo",
        _demo,
        "generate, train, evaluate and plot, from nothing to a saved surrogate",
    )
    sub.add_argument(
        "problem",
        nargs="?",
        default="burgers",
        choices=("burgers", "darcy"),
        help="default: burgers",
    )
    sub.add_argument("--run", help="run folder (default: runs/demo, runs/demo-darcy)")
    sub.add_argument("--data", help="folder of the data set (default: data/demo-PROBLEM)")
    sub.add_argument("--small", action="store_true", help="a minute's worth, to see that it works")


def _demo(options: argparse.Namespace) -> int:
    from sobolev.evaluation.demo import demo

    demo(options.problem, run=options.run, data=options.data, small=options.small)
    return 0


COMMANDS = (
    _add_train,
    _add_boost,
    _add_evaluate,
    _add_predict,
    _add_refine,
    _add_calibrate,
    _add_onnx,
    _add_demo,
)
