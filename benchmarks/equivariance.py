"""Error of a trained run on scalar test data that are turned by quarters about node 0, on the torus.

    .venv/bin/python benchmarks/equivariance.py runs/ns-sym-gfno data/ns-sym
    .venv/bin/python benchmarks/equivariance.py runs/ns-sym-fno data/ns-sym

Inputs and outputs of one application are turned together. Where the equation commutes with quarter turns (ns-sym),
turned data are as good test data as any, and an operator that errs more on them has learnt the directions of its
training data. The defect is ‖F(Tu) − T F(u)‖ / ‖F(u)‖, whatever the truth.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import torch
from torch import Tensor

from sobolev.datasets import OperatorDataModule
from sobolev.grids.norms import relative_error
from sobolev.grids.symmetries import turned
from sobolev.solvers import Grid
from sobolev.surrogates import Surrogate

BATCH = 20
ITEMS = 500
"""At most so many test items, spread over the split."""


def quarters(number: int, grid: Grid) -> Callable[[Tensor], Tensor]:
    """The turn by so many quarters."""
    return lambda u: turned(u, grid, ("quarter turns",), (number % 2, number // 2, 0))


@torch.no_grad()
def judge(surrogate: Surrogate, data: OperatorDataModule, number: int) -> tuple[float, float]:
    """Mean relative error on turned items, and mean defect."""
    items, turn = data.pairs("test"), quarters(number, data.grid)
    some = items[:: math.ceil(len(items) / ITEMS)]
    errors, defects = [], []
    for inputs, targets in zip(*(u.split(BATCH) for u in some), strict=True):
        straight, p = surrogate(inputs), surrogate(turn(inputs))
        fields = (surrogate.comparable(u).double() for u in (p, turn(targets), turn(straight)))
        p, y, expected = fields
        errors.append(relative_error(p, y, data.grid))
        defects.append(relative_error(p, expected, data.grid))
    return float(torch.cat(errors).mean()), float(torch.cat(defects).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="run folder or surrogate folder")
    parser.add_argument("data", help="folder of the data set")
    options = parser.parse_args()
    surrogate = Surrogate.load(options.run)
    window = surrogate.provenance.data.window or (1, 1)
    resolution = surrogate.provenance.data.resolution[0]
    data = OperatorDataModule(options.data, resolution=resolution, window=window)
    grid = data.grid
    kinds = [(a.boundary, a.size, a.length) for a in grid.axes] if isinstance(grid, Grid) else []
    if len(kinds) != 2 or kinds[0] != kinds[1] or kinds[0][0] != "periodic":
        raise ValueError(
            f"quarter turns about node 0 are symmetries of square tori; {options.data} lies on {grid}"
        )
    protocol = surrogate.provenance.protocol or "protocol unknown"
    print(f"{options.run}: {type(surrogate.operator).__name__}, {protocol}\n")
    print("| turned by | relative L² | over unturned | defect |")
    print("|---|---|---|---|")
    errors: list[float] = []
    for number in range(4):
        error, defect = judge(surrogate, data, number)
        errors.append(error)
        print(
            f"| {90 * number}° | {error:.5f} | {error / errors[0]:.3f} | {defect:.1e} |", flush=True
        )


if __name__ == "__main__":
    main()
