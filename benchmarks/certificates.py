"""Error bounds of a Darcy surrogate beside true errors, and what its predictions save the solver.

.venv/bin/python benchmarks/certificates.py RUN            # 3 minutes, 1 GB
.venv/bin/python benchmarks/certificates.py RUN --fields 50 --fine 2 --symmetrize

RUN is a run folder of `sobolev train --config darcy-fno` or its kin. Media are drawn from the recipe of its data, from
seeds of their own. Stored fields are not needed: bounds and errors are against the discrete solution on each grid.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from sobolev.certification import effectivity
from sobolev.certification.certificates import Guarantee, certificate_of
from sobolev.datasets import DarcyRecipe
from sobolev.grids.streams import stream
from sobolev.solvers import Grid
from sobolev.solvers.elliptic.conjugate_gradients import conjugate_gradients
from sobolev.solvers.elliptic.fast_poisson import FastPoisson
from sobolev.solvers.elliptic.multigrid import Multigrid
from sobolev.solvers.elliptic.stiffness import Stiffness
from sobolev.solvers.inner_products import norm
from sobolev.surrogates import Surrogate
from sobolev.surrogates.applying import comfortable_batch

SEED, TOLERANCE = 20_250_101, 1e-3


@torch.no_grad()
def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--fields", type=int, default=1000, help="on the surrogate's own grid")
    parser.add_argument("--fine", type=int, default=8, help="on the grid of the data's solves")
    parser.add_argument(
        "--symmetrize", action="store_true", help="average over the square's symmetries"
    )
    options = parser.parse_args()
    surrogate = Surrogate.load(options.run)
    if options.symmetrize:
        surrogate = surrogate.symmetrized()
    certificate = certificate_of(surrogate)
    if not (isinstance(certificate, Guarantee) and isinstance(certificate.recipe, DarcyRecipe)):
        parser.error(f"{options.run} predicts no Darcy flow")
    recipe = certificate.recipe
    grid, finest = surrogate.grid, recipe.grid(recipe.solver_resolution)
    coarse, fine = media(recipe, grid, options.fields), media(recipe, finest, options.fine)

    print("| grid | bound holds | true error, mean | effectivity: median, 90 %, max |")
    print("|---|---|---|---|")
    effectivities(surrogate, coarse, grid)
    effectivities(surrogate, fine, finest)
    print()
    print(
        f"| grid | start | iterations to a guaranteed {TOLERANCE:g}: mean, max | ms a field | to a true L² error of "
        f"{TOLERANCE:g} | the same with multigrid |"
    )
    print("|---|---|---|---|---|---|")
    savings(surrogate, recipe, coarse[:50], grid)
    savings(surrogate, recipe, fine, finest)


def media(recipe: DarcyRecipe, grid: Grid, count: int) -> Tensor:
    """Permeabilities, ``(count, 1, y, x)``; a few at a time, since they come from the finest grid."""
    parts = [range(i, min(i + 20, count)) for i in range(0, count, 20)]
    drawn = (recipe.draw([stream(SEED, i) for i in part], grid.shape[0]) for part in parts)
    return torch.cat(list(drawn))


def predicted(surrogate: Surrogate, inputs: Tensor, grid: Grid) -> tuple[Tensor, float]:
    """Predictions, and seconds a field."""
    started = time.perf_counter()
    found = torch.cat([surrogate(a) for a in inputs.split(comfortable_batch(grid))])
    return found, (time.perf_counter() - started) / len(inputs)


def effectivities(surrogate: Surrogate, inputs: Tensor, grid: Grid) -> None:
    """A row of the first table."""
    outputs, _ = predicted(surrogate, inputs, grid)
    found = effectivity(surrogate, inputs, outputs, outputs, grid)
    holds = int((found.bound >= found.error).sum())
    shares = torch.tensor([0.5, 0.9, 1.0], dtype=torch.float64)
    median, most, largest = found.ratio.quantile(shares).tolist()
    print(
        f"| {grid.shape[0]}² | {holds} of {len(inputs)} | {float(found.error.mean()):.4f} | "
        f"{median:.3f}, {most:.3f}, {largest:.3f} |",
        flush=True,
    )


def savings(surrogate: Surrogate, recipe: DarcyRecipe, inputs: Tensor, grid: Grid) -> None:
    """Two rows of the second table."""
    outputs, seconds = predicted(surrogate, inputs, grid)
    truth = recipe.solve(inputs, grid)
    for name, start, extra in (("zero", 0 * outputs, 0.0), ("prediction", outputs, seconds)):
        started = time.perf_counter()
        count = recipe.improved(inputs, start, grid, TOLERANCE)[1].double()
        spent = (time.perf_counter() - started) / len(inputs)
        accurate = [
            iterations_to_true_error(make, inputs, start, truth, grid, recipe.forcing).double()
            for make in (lambda a: FastPoisson(grid, a.device), lambda a: Multigrid(a, grid))
        ]
        print(
            f"| {grid.shape[0]}² | {name} | {count.mean():.2f}, {count.max():.0f} | "
            f"{1e3 * spent:.1f} + {1e3 * extra:.1f} | {accurate[0].mean():.2f} | {accurate[1].mean():.2f} |",
            flush=True,
        )


def iterations_to_true_error(
    make: Callable[[Tensor], Callable[[Tensor], Tensor]],
    inputs: Tensor,
    start: Tensor,
    truth: Tensor,
    grid: Grid,
    forcing: float,
) -> Tensor:
    """Iterations until the relative L² error is at most the tolerance, with the preconditioner that
    ``make`` makes of a permeability."""
    a, p, u = (t[:, 0].double() for t in (inputs, start, truth))
    A, count = Stiffness(a, grid), torch.zeros(len(a), dtype=torch.int64)

    def error(x: Tensor, r: Tensor, rz: Tensor) -> Tensor:
        return norm((p - u)[:, 1:-1, 1:-1] + x) / norm(u)

    residual, target = forcing - A(p[:, 1:-1, 1:-1]), torch.full_like(u[:, 0, 0], TOLERANCE)
    conjugate_gradients(A, residual, make(a), target, count, most=1000, measure=error)
    return count


if __name__ == "__main__":
    main()
