"""Programs in processes of their own, without the type checks of the test run.

They are forked from one process that has imported torch and the package, so that only the first
program waits for the imports.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch._dynamo", "sobolev.__main__", "sobolev.training"])


@dataclass(frozen=True)
class Finished:
    """A program that has come to its end; it is minus the number of the signal that ended it."""

    returncode: int
    output: str
    """What it wrote to standard output and standard error."""


def started(program: str, *arguments: str, output: str = os.devnull) -> BaseProcess:
    """Begin to run Python source with arguments, as ``python -c`` does."""
    process = _CONTEXT.Process(target=_run, args=(program, arguments, output))
    process.start()
    return process


def finished(program: str, *arguments: str) -> Finished:
    """Run Python source with arguments to its end."""
    with tempfile.NamedTemporaryFile("r") as output:
        process = started(program, *arguments, output=output.name)
        process.join()
        return Finished(process.exitcode, output.read())


def _run(program: str, arguments: tuple[str, ...], output: str) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.argv = ["-c", *arguments]
    exec(program, {"__name__": "__main__"})
