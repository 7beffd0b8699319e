"""The command line: ``sobolev generate | train | evaluate | predict | verify | export …``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_GENERATE = """\
Draw random inputs, solve the PDE, and write NetCDF shards with a data card. Interrupted runs continue when called
again; the files' bytes do not depend on workers or interruptions.

examples:
  sobolev generate burgers-fno data/burgers --samples train=1000 --samples test=200 --resolution 1024
  sobolev generate darcy-fno data/darcy --resolution 85
  sobolev generate ns-fno-1e-3 data/ns-1e-3 --samples train=1000 --workers 2

presets:
  burgers-fno                                   u(.,0) to u(.,1), viscosity 0.1 (Li et al. 2021)
  darcy-fno, darcy-lognormal, darcy-rough       permeability to pressure
  darcy-fno-published                           the same with the released files' detours
  ns-fno-1e-3, ns-fno-1e-4, ns-fno-1e-5         forced turbulence on the torus, trajectories
  ns-sym                                        the same with a forcing that quarter turns leave alone
  ns-mcwilliams                                 decaying turbulence
  swe-random, swe-galewsky                      shallow water on the rotating sphere
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 if verification found damage, 2 for bad input,
    130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("sobolev").setLevel(logging.INFO)
    try:
        if arguments[:1] == ["train"]:  # its options are Lightning's, parsed there
            return _train(arguments[1:])
        if arguments[:1] == ["boost"]:
            return _boost(arguments[1:])
        options = _parser().parse_args(arguments)
        return options.command(options)
    except KeyboardInterrupt:
        again = "add --resume to" if arguments[:1] in (["train"], ["boost"]) else "run"
        print(
            f"\nsobolev: stopped, and kept what was finished; {again} the same command to continue",
            file=sys.stderr,
        )
        return 130
    except (ValueError, OSError, ArithmeticError, ImportError) as error:
        if os.environ.get("SOBOLEV_TRACEBACK"):
            raise
        print(f"sobolev: error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sobolev",
        description="Neural operators for PDEs: trusted data, training in Sobolev norms, prediction at any resolution.",
        epilog="`sobolev COMMAND --help` explains a command. SOBOLEV_TRACEBACK=1 shows where an error came from.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        name: str, command: Callable[[argparse.Namespace], int], text: str, details: str = ""
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=details or text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=command)
        return sub

    sub = add("generate", _generate, "draw a data set from a recipe", _GENERATE)
    sub.add_argument("recipe", help="a published preset, see below")
    sub.add_argument("path", help="folder of the data set")
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
        type=_positive,
        help="processes to draw with, one thread each (default: one per core)",
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

    commands.add_parser(
        "train", help="train a surrogate on a data set (all of Lightning's options)", add_help=False
    )
    commands.add_parser(
        "boost",
        help="train the stages of a SpecBoost one after another (train's options and more)",
        add_help=False,
    )

    sub = add(
        "evaluate",
        _evaluate,
        "judge a trained surrogate on test fields, at any resolution",
        _EVALUATE,
    )
    sub.add_argument("run", help="run folder of `sobolev train`, or a surrogate folder")
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
        type=_positive,
        metavar="N",
        help="how many to roll out, where the data are trajectories (default: 32)",
    )
    sub.add_argument(
        "--no-solver-timing",
        action="store_true",
        help="leave out what takes classical solves: their times and the break-even",
    )

    sub = add("predict", _predict, "predict from a NetCDF file")
    sub.add_argument("run", help="run folder of `sobolev train`, or a surrogate folder")
    sub.add_argument(
        "input",
        help="NetCDF file with the input variables (or given frames along time) and their coordinates",
    )
    sub.add_argument("output", help="NetCDF file to write")
    sub.add_argument(
        "--resolution", type=int, help="nodes per axis of the output (default: the input's)"
    )
    sub.add_argument(
        "--certify", action="store_true", help="add an upper bound of the error of each prediction"
    )
    sub.add_argument(
        "--tolerance",
        type=float,
        help="have the classical solver make those good whose guaranteed relative error exceeds this",
    )

    sub = add("refine", _refine, "predict, and make it good by the PDE's residual", _REFINE)
    sub.add_argument("run", help="run folder of `sobolev train`, or a surrogate folder")
    sub.add_argument("input", help="NetCDF file: given frames along time, or the input variables")
    sub.add_argument("output", help="NetCDF file to write")
    sub.add_argument(
        "--modes",
        type=_positive,
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
        type=_positive,
        default=100,
        help="of conjugate gradients, for each sample (default: 100)",
    )

    sub = add("calibrate", _calibrate, "learn error bounds of trajectories", _CALIBRATE)
    sub.add_argument("run", help="run folder of `sobolev train`, or a surrogate folder")
    sub.add_argument("--data", required=True, help="data set with the trajectories")
    sub.add_argument("--split", default="valid", help="split to calibrate on (default: valid)")
    sub.add_argument(
        "--quantile",
        type=float,
        default=0.9,
        help="share of predictions whose error the bound shall not fall below (default: 0.9)",
    )

    sub = add("onnx", _onnx, "write a surrogate as one ONNX file for every resolution", _ONNX)
    sub.add_argument("run", help="run folder of `sobolev train`, or a surrogate folder")
    sub.add_argument("file", help="ONNX file to write; one that is there is replaced")

    sub = add(
        "verify",
        _verify,
        "check a data set: files, values, physics, and on request the seeds",
        _VERIFY,
    )
    sub.add_argument("path", help="folder of the data set")
    sub.add_argument(
        "--redraw",
        type=_positive,
        default=0,
        metavar="N",
        help="draw N samples of each split again from their seeds and compare (default: none)",
    )

    sub = add("show", _show, "draw a data set: samples, animations, spectra, statistics", _SHOW)
    sub.add_argument("data", help="folder of the data set")
    sub.add_argument("--out", help="folder for the files (default: DATA/figures)")
    sub.add_argument("--split", help="split to draw (default: the first)")
    sub.add_argument(
        "--samples", type=int, nargs="+", metavar="N", help="samples to draw (default: the first 4)"
    )
    sub.add_argument(
        "--animation",
        choices=("gif", "mp4", "none"),
        default="gif",
        help="how to animate trajectories (default: gif; mp4 needs ffmpeg)",
    )

    sub = add("export", _export, "write a data set in another tool's layout", _EXPORT)
    sub.add_argument("data", help="folder of the data set")
    sub.add_argument("target", help="folder for the files")
    sub.add_argument("--to", required=True, choices=("well", "pdebench", "neuralop"))
    sub.add_argument(
        "--split", action="append", help="split to export; repeat (default: all of them)"
    )
    sub.add_argument("--name", help="name of the data set in the files (default: the folder's)")
    sub.add_argument("--float32", action="store_true", help="round float64 fields to float32")
    sub.add_argument("--skip-failed", action="store_true", help="leave out flagged samples")
    sub.add_argument("--overwrite", action="store_true", help="replace files of the same names")

    sub = add("import", _import, "read another tool's data set into a sobolev one", _IMPORT)
    sub.add_argument(
        "source", nargs="+", help="a file, a folder of The Well, or SPLIT=FILE for each split"
    )
    sub.add_argument("path", help="folder of the new data set")
    sub.add_argument(
        "--from",
        dest="layout",
        choices=("well", "pdebench", "neuralop", "fno-mat"),
        help="layout of the source (default: recognised by its content)",
    )
    sub.add_argument("--split", default="train", help="where all samples go (default: train)")
    sub.add_argument(
        "--splits",
        action="append",
        type=_share,
        metavar="SPLIT=COUNT",
        help="cut one file into splits, by count (train=1000) or fraction (train=0.8); repeat",
    )
    sub.add_argument(
        "--boundary",
        action="append",
        type=_per_axis,
        metavar="[AXIS=]KIND",
        help="periodic, dirichlet or neumann, for all axes or one, where the file does not say",
    )
    sub.add_argument(
        "--length",
        action="append",
        type=_per_axis,
        metavar="[AXIS=]LENGTH",
        help="extent of the axes, where the file does not say",
    )
    sub.add_argument("--without", action="append", default=[], help="variable to leave out; repeat")
    sub.add_argument(
        "--dtype", choices=("float32", "float64"), help="on disk (default: the file's)"
    )
    sub.add_argument("--overwrite", action="store_true", help="replace a data set in PATH")

    sub = add(
        "demo", _demo, "generate, train, evaluate and plot, from nothing to a saved surrogate"
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
    return parser


_REFINE = """\
Predict, then fit the last spectral layer to the equation, sample by sample: least squares for the residual in H^-1, by
Gauss-Newton and conjugate gradients, in float64. Needs no data. Flows on the torus take an operator that ends in a
series in time, Trajectory(SpatioTemporalFNO); Darcy takes any. The output also holds residual_before, residual_after
and iterations of each sample.

example, ten frames in:
  python -c "from sobolev.datasets import open_dataset
             given = open_dataset('data/ns-1e-3', 'test').isel(sample=slice(0, 4), time=slice(0, 10))
             given.to_netcdf('given.nc', engine='h5netcdf')"
  sobolev refine runs/ns-1e-3-stfno given.nc refined.nc --tolerance 1e-3
"""

_CALIBRATE = """\
Compare residuals of predicted trajectories with their true errors on data that the surrogate was not trained on, and
save in the surrogate how large errors are beside residuals. `sobolev predict --certify` then bounds errors without
knowing the truth. Darcy flow needs no calibration: its bound is guaranteed.
"""


_EVALUATE = """\
Predict the test fields at each resolution and compare with the solver's. Writes report.html, one file that opens
from disk, and the same numbers as evaluation.json: errors in several norms, fields, spectra, rollouts of
trajectories, error bounds beside true errors, and after how many fields the surrogate has paid for its data and
training, against the cheapest solve that is as accurate. Resolutions finer than the data are drawn again from the
data set's seeds, once, on the solver's grid.

example:
  sobolev evaluate runs/burgers-fno --data data/burgers --resolution 1024 --resolution 8192
"""


_ONNX = """\
Write one ONNX file for any batch and resolution, normalisation included. It takes `inputs`, float32 (batch, inputs,
space...) in physical units, and gives `outputs`. Names, units, grid and provenance are in its metadata. It is compared
with torch at three resolutions before it takes its place. Needs pip install 'sobolev[onnx]'.

example:
  sobolev onnx runs/burgers-fno burgers.onnx
  python -c "import onnxruntime as o, numpy as n; s = o.InferenceSession('burgers.onnx');
             print(s.run(None, {'inputs': n.zeros((1, 1, 2048), n.float32)})[0].shape)"
"""

_SHOW = """\
Draw samples, trajectories (as strips and animated), energy spectra and statistics of a data set to files. Statistics
are of all samples; those that the solver gave up on are left out.
"""

_EXPORT = """\
Write a data set in the layout of The Well (HDF5 and stats.yaml), of PDEBench (HDF5), or of neuralop (.pt of plain
tensors). What the target cannot hold is refused, unless an option says to leave it out.

example:
  sobolev export data/ns exports --to well
"""

_IMPORT = """\
Read The Well, PDEBench, neuralop's .pt, or the .mat files of the original FNO (v5 and v7.3) into a sobolev data set.
What a file does not say about its grid is asked for, not guessed.

examples:
  sobolev import NavierStokes_V1e-3_N5000_T50.mat data/ns --splits train=1000 --splits test=200
  sobolev import train=darcy_train_16.pt test=darcy_test_16.pt data/darcy --boundary neumann --length 1
"""

_VERIFY = """\
Check every file's presence, size and SHA-256, that all values are finite, and what the equation
promises of them: conserved quantities, maximum principles, boundary values. With --redraw, draw
samples again from their seeds: bit for bit equal with the same versions on the same machine, to a
stated tolerance elsewhere, and with a small residual of the PDE in H^-1.
"""


class _Version(argparse.Action):
    """Looks the version up only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import sobolev

        print(f"sobolev {sobolev.__version__}")
        parser.exit()


def _positive(text: str) -> int:
    if not (text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _share(text: str) -> tuple[str, int | float]:
    name, _, share = text.partition("=")
    try:
        return name, float(share) if "." in share else int(share)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form SPLIT=COUNT or SPLIT=FRACTION, such as train=1000 or train=0.8"
        ) from None


def _per_axis(text: str) -> tuple[str, str]:
    axis, equals, value = text.partition("=")
    return (axis, value) if equals else ("", text)


def _split(text: str) -> tuple[str, int]:
    name, equals, count = text.partition("=")
    if not (name and equals and count.isdigit() and int(count) > 0):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form SPLIT=COUNT, such as train=1000"
        )
    return name, int(count)


def _generate(options: argparse.Namespace) -> int:

    import torch

    from sobolev.datasets import Manifest, generate

    samples = dict(options.samples) if options.samples else None
    resolution, seed, dtype = options.resolution, options.seed, options.dtype
    if options.resume:
        found = Manifest.read(Path(options.path))
        samples = samples or found.requested
        resolution = resolution or found.resolution
        seed = found.seed if seed is None else seed
        dtype = dtype or found.dtype
    generate(
        options.recipe, options.path, samples, resolution=resolution, seed=seed or 0, dtype=dtype or "float32",
        overwrite=options.overwrite, workers=options.workers or torch.get_num_threads(), dask=options.dask,
    )  # fmt: skip
    total = ", ".join(
        f"{split} {count}" for split, count in Manifest.read(Path(options.path)).requested.items()
    )
    print(
        f"{options.path}: {total} samples. Open with sobolev.datasets.open_dataset({options.path!r})"
    )
    return 0


def _show(options: argparse.Namespace) -> int:
    from sobolev.datasets import show

    animation = None if options.animation == "none" else options.animation
    for file in show(
        options.data, options.out, split=options.split, samples=options.samples, animation=animation
    ):
        print(file)
    return 0


def _export(options: argparse.Namespace) -> int:
    from sobolev.datasets import export

    files = export(
        options.data, options.target, options.to, splits=options.split, name=options.name,
        round_to_float32=options.float32, skip_failed=options.skip_failed, overwrite=options.overwrite,
    )  # fmt: skip
    for file in files:
        print(file)
    return 0


def _import(options: argparse.Namespace) -> int:
    from sobolev.datasets import Manifest, import_data

    sources = dict(s.partition("=")[::2] for s in options.source if "=" in s)
    if (sources and len(sources) < len(options.source)) or (
        len(options.source) > 1 and not sources
    ):
        raise ValueError(
            f"give one file or folder, or SPLIT=FILE for each split; got {options.source}"
        )
    path = import_data(
        sources or options.source[0], options.path, options.layout, split=options.split,
        splits=dict(options.splits) if options.splits else None, boundary=_by_axis(options.boundary),
        length=_by_axis(options.length, float), without=options.without, dtype=options.dtype,
        overwrite=options.overwrite,
    )  # fmt: skip
    total = ", ".join(f"{split} {count}" for split, count in Manifest.read(path).requested.items())
    print(f"{path}: {total} samples")
    return 0


def _by_axis(pairs: list[tuple[str, str]] | None, kind: Callable[[str], Any] = str) -> Any:
    """One value for all axes, or one for each that is named."""
    if not pairs:
        return None
    try:
        values = {axis: kind(value) for axis, value in pairs}
    except ValueError:
        raise ValueError(f"--length takes a number, got {', '.join(v for _, v in pairs)}") from None
    if "" in values and len(values) > 1:
        raise ValueError("give one value for all axes, or AXIS=VALUE for each")
    return values.get("", values)


def _train(arguments: Sequence[str]) -> int:
    from sobolev.training.fitting import train

    return _saved(train(arguments))


def _boost(arguments: Sequence[str]) -> int:
    from sobolev.training.boost_command import boost_command

    return _saved(boost_command(arguments))


def _saved(run: Path) -> int:
    from lightning.pytorch.utilities import rank_zero_only

    rank_zero_only(print)(f'surrogate saved: sobolev.Surrogate.load("{run / "surrogate"}")')
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from sobolev.training.evaluation import evaluate_run
    from sobolev.training.trajectories import TRAJECTORIES

    evaluate_run(
        options.run, options.data, options.resolution, split=options.split, out=options.out,
        solver_timing=not options.no_solver_timing, trajectories=options.trajectories or TRAJECTORIES,
    )  # fmt: skip
    return 0


def _predict(options: argparse.Namespace) -> int:
    prediction = _from_file_to_file(
        options,
        lambda surrogate, dataset: surrogate.predict(
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


def _refine(options: argparse.Namespace) -> int:
    from sobolev.training.refining import refine

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

    from sobolev.datasets.store import write_netcdf
    from sobolev.training.evaluation import load_run

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


def _calibrate(options: argparse.Namespace) -> int:
    from dataclasses import astuple

    from sobolev.datasets import OperatorDataModule
    from sobolev.training.certificates import calibrate
    from sobolev.training.comparison import check_same_meaning
    from sobolev.training.evaluation import load_run

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


def _onnx(options: argparse.Namespace) -> int:
    import json

    from sobolev.training.evaluation import load_run

    surrogate = load_run(options.run)
    file = surrogate.export_onnx(options.file)
    import onnx

    stated = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    least = " × ".join(map(str, json.loads(stated["least_sizes"])))
    print(f"{file}: any batch, any {' × '.join(surrogate.grid.dims)} of at least {least} nodes")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from sobolev.datasets import verify

    problems = verify(options.path, redraw=options.redraw)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(
        f"{options.path}: {len(problems)} problem(s)"
        if problems
        else f"{options.path}: every file is as it was written, and its fields are what the equation allows"
    )
    return 1 if problems else 0


def _demo(options: argparse.Namespace) -> int:
    from sobolev.training.demo import demo

    demo(options.problem, run=options.run, data=options.data, small=options.small)
    return 0


if __name__ == "__main__":
    sys.exit(main())
