"""``sobolev demo``: the main job, from nothing to a saved surrogate."""

from __future__ import annotations

import argparse

from sobolev.commands.options import Commands, add


def declare(commands: Commands) -> None:
    sub = add(
        commands,
        "demo",
        run,
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


def run(options: argparse.Namespace) -> int:
    from sobolev.commands.demonstration import demo

    demo(options.problem, run=options.run, data=options.data, small=options.small)
    return 0
