"""Steady flow in a part of a rectangle: a medium with holes."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sobolev.grids.grid import Grid
from sobolev.solvers.elliptic.stiffness import check_permeability, check_plane_of_zeros


def solve_in_domain(
    a: Float[Tensor, "batch y x"],
    domain: Bool[Tensor, "batch y x"],
    grid: Grid,
    forcing: float,
) -> Float[Tensor, "batch y x"]:
    """Solve −∇·(a ∇u) = f at the inner nodes of a domain; u = 0 at all other nodes, and on the border.

    The discretisation is that of ``Darcy``, whose pressure this is where the domain is the whole
    rectangle: fluxes between neighbours with the mean of their coefficients. Each sample is solved
    for directly, by a sparse factorisation on the CPU.

    Raises:
        ValueError: for a permeability that is not positive and finite, or a domain without a node inside
            the rectangle.
    """
    # imported here: scipy's solvers take longer to import than all the rest of the room
    import numpy as np
    import scipy.sparse
    import scipy.sparse.linalg

    check_plane_of_zeros(grid)
    check_permeability(a, grid)
    dy, dx = (axis.spacing for axis in grid.axes)
    found = []
    for medium, inside in zip(a.double().cpu().numpy(), domain.cpu().numpy(), strict=True):
        free = inside.copy()
        free[[0, -1], :] = False
        free[:, [0, -1]] = False
        if not free.any():
            raise ValueError(
                "the domain has no node inside the rectangle; nothing is left to solve for"
            )
        number = np.full(free.shape, -1)
        number[free] = np.arange(free.sum())
        rows, columns, values = [], [], []
        diagonal = np.zeros(free.shape)
        for axis, h in ((0, dy), (1, dx)):
            first = np.take(medium, range(medium.shape[axis] - 1), axis)
            second = np.take(medium, range(1, medium.shape[axis]), axis)
            flux = (first + second) / 2 / h**2
            low = [slice(None), slice(None)]
            high = [slice(None), slice(None)]
            low[axis] = slice(None, -1)
            high[axis] = slice(1, None)
            diagonal[tuple(low)] += flux
            diagonal[tuple(high)] += flux
            both = free[tuple(low)] & free[tuple(high)]
            one, other = number[tuple(low)][both], number[tuple(high)][both]
            rows += [one, other]
            columns += [other, one]
            values += [-flux[both], -flux[both]]
        rows.append(number[free])
        columns.append(number[free])
        values.append(diagonal[free])
        entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
        matrix = scipy.sparse.csc_array(entries)
        pressure = np.zeros(free.shape)
        right = np.full(int(free.sum()), float(forcing))
        pressure[free] = scipy.sparse.linalg.splu(matrix).solve(right)
        found.append(torch.from_numpy(pressure))
    return torch.stack(found).to(a)
