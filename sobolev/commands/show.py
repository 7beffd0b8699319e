"""``sobolev show``: pictures of a data set."""

from __future__ import annotations

import argparse

from sobolev.commands.options import Commands, add

_SHOW = """\
Draw samples, trajectories (as strips and animated), energy spectra and statistics of a data set to files. Statistics
are of all samples; those that the solver gave up on are left out.
"""


def declare(commands: Commands) -> None:
    sub = add(
        commands, "show", run, "draw a data set: samples, animations, spectra, statistics", _SHOW
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


def run(options: argparse.Namespace) -> int:
    from sobolev.datasets import show

    animation = None if options.animation == "none" else options.animation
    for file in show(
        options.data, options.out, split=options.split, samples=options.samples, animation=animation
    ):
        print(file)
    return 0
