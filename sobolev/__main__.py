"""The command line: ``sobolev generate | train | evaluate | predict | verify | export …``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from sobolev.commands import (
    boost,
    calibrate,
    demo,
    evaluate,
    export,
    generate,
    import_data,
    new,
    onnx,
    predict,
    recipes,
    refine,
    show,
    train,
    verify,
)

COMMANDS = (
    new, recipes, generate, verify, show, export, import_data,
    train, boost, evaluate, predict, refine, calibrate, onnx, demo,
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, and return the exit code: 0, 1 if verification found damage, 2 for bad input,
    130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("sobolev").setLevel(logging.INFO)
    try:
        if arguments[:1] == ["train"]:  # its options are Lightning's, parsed there
            return train.run(arguments[1:])
        if arguments[:1] == ["boost"]:
            return boost.run(arguments[1:])
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
    for command in COMMANDS:
        command.declare(commands)
    return parser


class _Version(argparse.Action):
    """Show the version, which is looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"sobolev {version('sobolev')}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
