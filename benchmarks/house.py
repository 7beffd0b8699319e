"""The sizes of the house, and how long its door takes.

python benchmarks/house.py                 sizes of files, functions and constructors of this checkout
python benchmarks/house.py --of FOLDER     those of another one
python benchmarks/house.py --imports       seconds that sobolev.Surrogate takes beyond `import torch`
"""

from __future__ import annotations

import argparse
import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOMS = (
    "grids", "solvers", "operators", "datasets", "surrogates", "training", "certification", "evaluation", "sobolev",
)  # fmt: skip
_TIMED = """
import time
begun = time.perf_counter()
import torch
between = time.perf_counter()
{more}
print(between - begun, time.perf_counter() - between)
"""
_SURROGATE = "import sobolev; sobolev.Surrogate.load"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--of", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--imports", action="store_true")
    options = parser.parse_args()
    if options.imports:
        time_imports()
    else:
        print_sizes(options.of)


def print_sizes(root: Path) -> None:
    """Print lines per file and function, and arguments per constructor."""
    files = [file for room in ROOMS for file in (root / room).rglob("*.py")]
    trees = {file: ast.parse(file.read_text()) for file in files}
    lines = {str(file.relative_to(root)): len(file.read_text().splitlines()) for file in files}
    functions = dict(_functions(root, trees))
    constructors = dict(_constructors(root, trees))
    print("| | number | median | 90th percentile | largest |")
    print("|---|---|---|---|---|")
    for name, sizes in (
        ("lines of a file", lines),
        ("lines of a function, docstring included", functions),
        ("arguments of a constructor", constructors),
    ):
        values = list(sizes.values())
        largest = max(sizes, key=sizes.__getitem__)
        high = np.percentile(values, 90)
        print(
            f"| {name} | {len(values)} | {statistics.median(values):g} | {high:.0f} | "
            f"{sizes[largest]} ({largest}) |"
        )


def time_imports(repeats: int = 7) -> None:
    """Print medians over fresh interpreters."""
    program = _TIMED.format(more=_SURROGATE)
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        for _ in range(repeats)
    ]
    torch, ours = zip(*(map(float, run.stdout.split()) for run in runs), strict=True)
    print(
        f"import torch {statistics.median(torch):.2f} s, then {_SURROGATE!r} {statistics.median(ours):.2f} s"
    )


def _functions(root: Path, trees: dict[Path, ast.Module]) -> Iterator[tuple[str, int]]:
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                place = f"{file.relative_to(root)}:{node.lineno} {node.name}"
                yield place, (node.end_lineno or node.lineno) - node.lineno + 1


def _constructors(root: Path, trees: dict[Path, ast.Module]) -> Iterator[tuple[str, int]]:
    for file, tree in trees.items():
        for node in ast.walk(tree):
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
                    arguments = [*inner.args.posonlyargs, *inner.args.args, *inner.args.kwonlyargs]
                    place = f"{file.relative_to(root)} {node.name}"
                    yield place, len(arguments) - 1


if __name__ == "__main__":
    main()
