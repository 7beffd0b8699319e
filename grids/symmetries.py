"""Symmetries of equation and domain: what turns one solution into another.

A recipe declares them by name::

    odd reflection    u(x) → −u(−x), in one dimension
    reflections       of each axis
    transposition     of the two axes
    quarter turns     of the two axes, about node 0
    shifts            along all axes, which are periodic
    diagonal glides   ω(x, y) → ω(1/8 − x, 1/8 − y) and −ω(y + 1/4, x + 1/4) on the unit torus

The last are those of vorticity under a forcing sin 2πs + cos 2πs with s = x + y, that of the FNO
papers: the half turn takes s to 1/4 − s, where the forcing is the same; the reflection changes the
vorticity's sign and the glide the forcing's. Twice the second is a shift by (1/2, 1/2).

An element of the group that some of them generate, shifts aside, is a tuple of ``coins``, 0 or 1:
one for the reflection of each axis and a last one for the transposition; as a binary number, the
first one its lowest digit, they count the quarter turns; the first one is the half turn, the other
two count the glides. Nodes go to nodes. Periodic axes are reflected about node 0, which is where it
is on every grid, others about their middle.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.grids.grid import AbstractGrid, Grid

SYMMETRIES = (
    "odd reflection", "reflections", "transposition", "quarter turns", "shifts", "diagonal glides",
)  # fmt: skip


def turned(
    u: Float[Tensor, "*batch_and_space"],
    grid: AbstractGrid,
    symmetries: Sequence[str],
    coins: Sequence[int],
    offsets: Sequence[int] = (),
    *,
    unsigned: int = 0,
) -> Float[Tensor, "*batch_and_other_space"]:
    """Return ``u``, ``(..., *space)``, under one element of the group, and shifted by ``offsets`` nodes.

    The first ``unsigned`` channels of ``(batch, channels, *space)`` are moved, but keep their sign: a
    viscosity, say.
    """
    if unsigned and _changes_sign(symmetries, coins):
        u = torch.cat([-u[:, :unsigned], u[:, unsigned:]], dim=1)
    if "odd reflection" in symmetries and coins[0]:
        u = -_reflected(u, grid, [0])
    if "reflections" in symmetries:
        u = _reflected(u, grid, [i for i in range(grid.ndim) if coins[i]])
    if "quarter turns" in symmetries:
        for _ in range(coins[0] + 2 * coins[1]):
            u = u.rot90(1, (-2, -1)).roll(1, -2)
    if "shifts" in symmetries and offsets:
        u = u.roll(tuple(offsets), tuple(range(-grid.ndim, 0)))
    if "diagonal glides" in symmetries:
        _check_eighths(u.shape[-2:])
        u = _half_turned(u) if coins[0] else u
        for _ in range(coins[1] + 2 * coins[2]):
            u = -u.transpose(-1, -2)
            u = u.roll([-(n // 4) for n in u.shape[-2:]], (-2, -1))
    return u.transpose(-1, -2) if "transposition" in symmetries and coins[-1] else u


def turned_back(
    u: Float[Tensor, "*batch_and_space"],
    grid: AbstractGrid,
    symmetries: Sequence[str],
    coins: Sequence[int],
) -> Float[Tensor, "*batch_and_other_space"]:
    """Return the inverse of ``turned`` without shifts, applied to ``u``."""
    if "diagonal glides" in symmetries:
        _check_eighths(u.shape[-2:])
        for _ in range(coins[1] + 2 * coins[2]):
            u = -u.roll([n // 4 for n in u.shape[-2:]], (-2, -1)).transpose(-1, -2)
        u = _half_turned(u) if coins[0] else u
    if "transposition" in symmetries and coins[-1]:
        u = u.transpose(-1, -2)
    if "quarter turns" in symmetries:
        for _ in range(coins[0] + 2 * coins[1]):
            u = u.roll(-1, -2).rot90(-1, (-2, -1))
    if "reflections" in symmetries:
        u = _reflected(u, grid, [i for i in range(grid.ndim) if coins[i]])
    if "odd reflection" in symmetries and coins[0]:
        u = -_reflected(u, grid, [0])
    return u


def elements(symmetries: Sequence[str], ndim: int) -> list[tuple[int, ...]]:
    """Return the coins of every element of the group, the identity first; of shifts none.

    >>> elements(["reflections", "transposition"], 2)[:3]
    [(0, 0, 0), (0, 0, 1), (0, 1, 0)]
    >>> len(elements(["quarter turns", "shifts"], 2))
    4
    """
    deciding = {
        "odd reflection": [0],
        "reflections": [*range(ndim)],
        "transposition": [ndim],
        "quarter turns": [0, 1],
        "shifts": [],
        "diagonal glides": [0, 1, ndim],
    }
    used = {i for symmetry in symmetries for i in deciding[symmetry]}
    return list(itertools.product(*[(0, 1) if i in used else (0,) for i in range(ndim + 1)]))


def exchanges_axes(symmetries: Sequence[str], coins: Sequence[int]) -> bool:
    """Return true if ``turned`` makes rows of columns."""
    odd_turn = "quarter turns" in symmetries and coins[0] == 1
    odd_glide = "diagonal glides" in symmetries and coins[1] == 1
    return (odd_turn != odd_glide) != ("transposition" in symmetries and coins[-1] == 1)


def _changes_sign(symmetries: Sequence[str], coins: Sequence[int]) -> bool:
    """Return true if ``turned`` changes the sign of fields."""
    reflected = "odd reflection" in symmetries and coins[0] == 1
    glided = "diagonal glides" in symmetries and coins[1] == 1
    return reflected != glided


def averaged(
    operator: Callable[
        [Float[Tensor, "batch ..."], Sequence[int] | None], Float[Tensor, "batch ..."]
    ],
    u: Float[Tensor, "batch ..."],
    size: Sequence[int] | None,
    grid: AbstractGrid,
    symmetries: Sequence[str],
    *,
    unsigned: int = 0,
) -> Float[Tensor, "batch ..."]:
    """Return 1/|G| Σ_g g⁻¹ F(g u), with F(u, size) the ``operator``, whose outputs have ``size``; ``unsigned``
    as for ``turned``.

    Raises:
        ValueError: where the nodes of input or output do not go to nodes.
    """
    if size is not None and "diagonal glides" in symmetries:
        _check_eighths(size)
    images = []
    for coins in elements(symmetries, grid.ndim):
        crosswise = exchanges_axes(symmetries, coins)
        sizes = size[::-1] if size is not None and crosswise else size
        image = operator(turned(u, grid, symmetries, coins, unsigned=unsigned), sizes)
        images.append(turned_back(image, grid, symmetries, coins))
    return torch.stack(images).mean(0)


def check_symmetries(symmetries: Sequence[str], grid: AbstractGrid) -> None:
    """Refuse symmetries that are unknown, or that the grid does not have.

    Raises:
        ValueError: saying which, and why.
    """
    if unknown := [s for s in symmetries if s not in SYMMETRIES]:
        raise ValueError(
            f"the symmetries are {', '.join(SYMMETRIES)}; got {', '.join(map(repr, unknown))}"
        )
    if not symmetries:
        return
    if not isinstance(grid, Grid):
        raise ValueError(f"symmetries are those of flat grids, and the fields live on {grid}")
    if "odd reflection" in symmetries and grid.ndim != 1:
        raise ValueError(f"the odd reflection is one of lines; the grid has {grid.ndim} axes")
    exchanged = {"transposition", "quarter turns", "diagonal glides"}.intersection(symmetries)
    if exchanged and not _is_square(grid):
        raise ValueError(f"{' and '.join(sorted(exchanged))} need a square; the grid is {grid}")
    if "quarter turns" in symmetries and grid.axes[0].boundary != "periodic":
        raise ValueError("quarter turns about node 0 need periodic axes")
    if "diagonal glides" in symmetries:
        if len(symmetries) > 1 or any(a.boundary != "periodic" for a in grid.axes):
            raise ValueError("diagonal glides need periodic axes, and go with no other symmetry")
        _check_eighths(grid.shape)


def _is_square(grid: Grid) -> bool:
    extents = {(a.length, a.origin, a.boundary) for a in grid.axes}
    return grid.ndim == 2 and len(extents) == 1


def _check_eighths(sizes: Sequence[int]) -> None:
    if any(n % 8 for n in sizes):
        next_ones = tuple(-(-n // 8) * 8 for n in sizes)
        raise ValueError(
            f"diagonal glides take nodes to nodes where 8 divides their number; got {tuple(sizes)}, take {next_ones}"
        )


def _half_turned(u: Float[Tensor, "*batch y x"]) -> Float[Tensor, "*batch y x"]:
    """Return u(1/8 − x, 1/8 − y)."""
    return u.flip((-2, -1)).roll([n // 8 + 1 for n in u.shape[-2:]], (-2, -1))


def _reflected(
    u: Float[Tensor, "*batch_and_space"], grid: AbstractGrid, axes: Sequence[int]
) -> Float[Tensor, "*batch_and_space"]:
    for i in axes:
        u = u.flip(i - grid.ndim)
        if isinstance(grid, Grid) and grid.axes[i].boundary == "periodic":
            u = u.roll(1, i - grid.ndim)
    return u
