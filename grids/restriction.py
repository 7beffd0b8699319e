"""Fields on fewer nodes: one rule, with sizes per axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.grids.checks import is_whole, make_plain
from sobolev.grids.description import by
from sobolev.grids.grid import AbstractGrid
from sobolev.grids.sphere import SphereGrid

Resolution = int | Sequence[int]
"""Nodes per axis as a user gives them: one number for each axis, or n for all; on a sphere n × 2n."""
HOW = ("subsample", "spectral")


def at_resolution(grid: AbstractGrid, resolution: Resolution) -> AbstractGrid:
    """Return ``grid`` with other numbers of nodes.

    >>> at_resolution(SphereGrid(8, 16), 12).shape
    (12, 24)

    Raises:
        ValueError: for a wrong number of sizes, sizes that are not whole numbers, or too few nodes.
    """
    if is_whole(resolution):
        n = int(cast(int, resolution))
        return grid.resized(*((n, 2 * n) if isinstance(grid, SphereGrid) else [n] * grid.ndim))
    if isinstance(resolution, str) or not isinstance(resolution, Iterable):
        raise ValueError(
            f"resolution needs a whole number, or one for each axis; got {resolution!r}"
        )
    return grid.resized(*resolution)


def resolution_of(grid: AbstractGrid) -> int | list[int]:
    """Return the shortest ``Resolution`` that stands for the sizes of ``grid``.

    >>> from sobolev.grids import Grid
    >>> resolution_of(Grid.periodic(64, 64)), resolution_of(Grid.periodic(64, 32))
    (64, [64, 32])
    """
    first = grid.shape[0]
    return first if at_resolution(grid, first).shape == grid.shape else list(grid.shape)


@dataclass(frozen=True)
class Restriction:
    """Fields of one grid on fewer nodes of the same domain.

    Args:
        sizes: nodes per axis to be left.
        how: ``"subsample"`` picks every n-th node, ``"spectral"`` cuts the modes that the coarser grid
            cannot carry; by default nodes are picked where the coarser grid's are among the finer
            one's, and modes cut elsewhere.

    >>> from sobolev.grids import Grid
    >>> fine = Grid.periodic(8)
    >>> Restriction((4,))(fine.points()[0], fine).tolist()
    [0.0, 0.25, 0.5, 0.75]

    Raises:
        ValueError: for an unknown ``how``.
    """

    sizes: tuple[int, ...]
    how: str | None = None

    def __post_init__(self) -> None:
        make_plain(self)
        if self.how not in (*HOW, None):
            raise ValueError(f"restriction must be {' or '.join(HOW)}, got {self.how!r}")

    def target(self, grid: AbstractGrid) -> AbstractGrid:
        """Return the coarser grid.

        Raises:
            ValueError: if it is finer along any axis, or nodes are to be picked that are not there.
        """
        coarser = grid.resized(*self.sizes)
        if any(n > m for n, m in zip(coarser.shape, grid.shape, strict=True)):
            raise ValueError(f"{by(grid.shape)} nodes cannot be restricted to {by(self.sizes)}")
        if self.how == "subsample":  # says which sizes are possible
            grid.subsample(torch.zeros(grid.shape, device="cpu"), coarser)
        return coarser

    def __call__(
        self, u: Float[Tensor, "*batch_and_space"], grid: AbstractGrid
    ) -> Float[Tensor, "*batch_and_other_space"]:
        """Return ``u``, ``(..., *grid.shape)``, as ``(..., *sizes)``."""
        coarser = self.target(grid)
        picked = grid.can_subsample(coarser) if self.how is None else self.how == "subsample"
        return grid.subsample(u, coarser) if picked else grid.resample(u, coarser)


def restricted(
    u: Float[Tensor, "*batch_and_space"], grid: AbstractGrid, coarser: AbstractGrid
) -> Float[Tensor, "*batch_and_coarser_space"]:
    """Return ``u`` at the nodes of a coarser grid: picked where they are nodes of ``grid``, else by cutting
    modes."""
    return Restriction(coarser.shape)(u, grid)
