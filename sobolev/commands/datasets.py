"""Commands that make data sets and look at them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sobolev.commands.options import Commands, add, positive

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


def _add_generate(commands: Commands) -> None:
    sub = add(commands, "generate", _generate, "draw a data set from a recipe", _GENERATE)
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
        type=positive,
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


def _split(text: str) -> tuple[str, int]:
    name, equals, count = text.partition("=")
    if not (name and equals and count.isdigit() and int(count) > 0):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form SPLIT=COUNT, such as train=1000"
        )
    return name, int(count)


_VERIFY = """\
Check every file's presence, size and SHA-256, that all values are finite, and what the equation
promises of them: conserved quantities, maximum principles, boundary values. With --redraw, draw
samples again from their seeds: bit for bit equal with the same versions on the same machine, to a
stated tolerance elsewhere, and with a small residual of the PDE in H^-1.
"""


def _add_verify(commands: Commands) -> None:
    sub = add(
        commands,
        "verify",
        _verify,
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


_SHOW = """\
Draw samples, trajectories (as strips and animated), energy spectra and statistics of a data set to files. Statistics
are of all samples; those that the solver gave up on are left out.
"""


def _add_show(commands: Commands) -> None:
    sub = add(
        commands, "show", _show, "draw a data set: samples, animations, spectra, statistics", _SHOW
    )
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


def _show(options: argparse.Namespace) -> int:
    from sobolev.datasets import show

    animation = None if options.animation == "none" else options.animation
    for file in show(
        options.data, options.out, split=options.split, samples=options.samples, animation=animation
    ):
        print(file)
    return 0


_EXPORT = """\
Write a data set in the layout of The Well (HDF5 and stats.yaml), of PDEBench (HDF5), or of neuralop (.pt of plain
tensors). What the target cannot hold is refused, unless an option says to leave it out.

example:
  sobolev export data/ns exports --to well
"""


def _add_export(commands: Commands) -> None:
    sub = add(commands, "export", _export, "write a data set in another tool's layout", _EXPORT)
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


def _export(options: argparse.Namespace) -> int:
    from sobolev.datasets import export

    files = export(
        options.data, options.target, options.to, splits=options.split, name=options.name,
        round_to_float32=options.float32, skip_failed=options.skip_failed, overwrite=options.overwrite,
    )  # fmt: skip
    for file in files:
        print(file)
    return 0


_IMPORT = """\
Read The Well, PDEBench, neuralop's .pt, or the .mat files of the original FNO (v5 and v7.3) into a sobolev data set.
What a file does not say about its grid is asked for, not guessed.

examples:
  sobolev import NavierStokes_V1e-3_N5000_T50.mat data/ns --splits train=1000 --splits test=200
  sobolev import train=darcy_train_16.pt test=darcy_test_16.pt data/darcy --boundary neumann --length 1
"""


def _add_import(commands: Commands) -> None:
    sub = add(
        commands, "import", _import, "read another tool's data set into a sobolev one", _IMPORT
    )
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


COMMANDS = (_add_generate, _add_verify, _add_show, _add_export, _add_import)
