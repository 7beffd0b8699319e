"""``sobolev export``: a data set in another tool's layout."""

from __future__ import annotations

import argparse

from sobolev.commands.options import Commands, add

_EXPORT = """\
Write a data set in the layout of The Well (HDF5 and stats.yaml), of PDEBench (HDF5), or of neuralop (.pt of plain
tensors). What the target cannot hold is refused, unless an option says to leave it out.

example:
  sobolev export data/ns exports --to well
"""


def declare(commands: Commands) -> None:
    sub = add(commands, "export", run, "write a data set in another tool's layout", _EXPORT)
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


def run(options: argparse.Namespace) -> int:
    from sobolev.datasets import export

    files = export(
        options.data, options.target, options.to, splits=options.split, name=options.name,
        round_to_float32=options.float32, skip_failed=options.skip_failed, overwrite=options.overwrite,
    )  # fmt: skip
    for file in files:
        print(file)
    return 0
