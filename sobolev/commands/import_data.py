"""``sobolev import``: another tool's data set as one of sobolev's."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from sobolev.commands.options import Commands, add

_IMPORT = """\
Read The Well, PDEBench, neuralop's .pt, or the .mat files of the original FNO (v5 and v7.3) into a sobolev data set.
What a file does not say about its grid is asked for, not guessed.

examples:
  sobolev import NavierStokes_V1e-3_N5000_T50.mat data/ns --splits train=1000 --splits test=200
  sobolev import train=darcy_train_16.pt test=darcy_test_16.pt data/darcy --boundary neumann --length 1
"""


def declare(commands: Commands) -> None:
    sub = add(commands, "import", run, "read another tool's data set into a sobolev one", _IMPORT)
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
        type=_axis_and_value,
        metavar="[AXIS=]KIND",
        help="periodic, dirichlet or neumann, for all axes or one, where the file does not say",
    )
    sub.add_argument(
        "--length",
        action="append",
        type=_axis_and_value,
        metavar="[AXIS=]LENGTH",
        help="extent of the axes, where the file does not say",
    )
    sub.add_argument("--without", action="append", default=[], help="variable to leave out; repeat")
    sub.add_argument(
        "--dtype", choices=("float32", "float64"), help="on disk (default: the file's)"
    )
    sub.add_argument("--overwrite", action="store_true", help="replace a data set in PATH")


def run(options: argparse.Namespace) -> int:
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


def _axis_and_value(text: str) -> tuple[str, str]:
    axis, equals, value = text.partition("=")
    return (axis, value) if equals else ("", text)


def _by_axis(pairs: list[tuple[str, str]] | None, kind: Callable[[str], Any] = str) -> Any:
    """Return one value for all axes, or one for each that is named."""
    if not pairs:
        return None
    try:
        values = {axis: kind(value) for axis, value in pairs}
    except ValueError:
        raise ValueError(f"--length takes a number, got {', '.join(v for _, v in pairs)}") from None
    if "" in values and len(values) > 1:
        raise ValueError("give one value for all axes, or AXIS=VALUE for each")
    return values.get("", values)
