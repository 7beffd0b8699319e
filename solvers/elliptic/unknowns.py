"""Which nodes of a box are solved for, and what lies beyond them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import pad

from sobolev.grids.grid import Grid

# a cell has a face on either side along each axis; flow through the outermost ones is open where
# there is a node behind it, and on a periodic axis the first of them is the last
_OPEN = {"dirichlet": slice(None), "neumann": slice(1, -1), "periodic": slice(1, None)}


class Unknowns:
    """The nodes of a grid at which a pressure is sought: all but those on Dirichlet walls.

    Every unknown has a cell of the same size around it. Along an axis with m unknowns there are m + 1
    faces; those in a Neumann wall are closed, and the first and the last of a periodic axis are one.

    >>> Unknowns(Grid.dirichlet(5, 4)).shape, Unknowns(Grid.neumann(5, 4)).shape
    ((3, 2), (5, 4))
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.walled = [axis.boundary == "dirichlet" for axis in grid.axes]
        self.periodic = [i for i, axis in enumerate(grid.axes) if axis.boundary == "periodic"]
        self.shape = grid.mode_shape
        self.spacings = tuple(axis.spacing for axis in grid.axes)
        self.cell = math.prod(self.spacings)
        self.closed = not any(self.walled)
        """No wall holds the pressure: it is known up to a constant."""
        self._inside = (..., *(slice(1, -1) if wall else slice(None) for wall in self.walled))

    def inside(self, t: Shaped[Tensor, "*batch_and_space"]) -> Shaped[Tensor, "*batch_and_inner"]:
        """Return a view of the unknowns among all nodes."""
        return t[self._inside]

    def with_walls(
        self, t: Shaped[Tensor, "*batch_and_inner"]
    ) -> Shaped[Tensor, "*batch_and_space"]:
        """Return fields on all nodes, zero on the Dirichlet walls."""
        return pad(t, self._widths(on_walls=True))

    def ringed(self, t: Float[Tensor, " batch *inner"]) -> Float[Tensor, " batch *ringed"]:
        """Return the unknowns with one more node at either end of each axis: zero behind walls, the other
        end of a periodic axis."""
        return self._wrapped(pad(t, (1, 1) * len(self.shape)))

    def all_ringed(self, t: Float[Tensor, " batch *space"]) -> Float[Tensor, " batch *ringed"]:
        """Return fields on all nodes likewise; their values on Dirichlet walls are the outermost nodes."""
        return self._wrapped(pad(t, self._widths(on_walls=False)))

    def between(
        self, t: Float[Tensor, " batch *ringed"], i: int
    ) -> tuple[Float[Tensor, " batch *faces"], Float[Tensor, " batch *faces"]]:
        """Return views of the nodes before and behind each face along axis ``i``."""
        lines = t[tuple(slice(None) if j in (0, i + 1) else slice(1, -1) for j in range(t.ndim))]
        count = lines.shape[i + 1] - 1
        return lines.narrow(i + 1, 0, count), lines.narrow(i + 1, 1, count)

    def open_faces(
        self, t: Float[Tensor, " batch *faces"], i: int
    ) -> Float[Tensor, " batch *open_faces"]:
        """Return a view of the faces along axis ``i`` that something may flow through, each once."""
        return t[(slice(None),) * (i + 1) + (_OPEN[self.grid.axes[i].boundary],)]

    def face_sums(
        self, a: Float[Tensor, " batch *space"], i: int
    ) -> Float[Tensor, " batch *faces"]:
        """Return the sum of the two coefficients beside each face along axis ``i``, zero where it is closed."""
        before, behind = self.between(self.all_ringed(a), i)
        sums = before + behind
        if self.grid.axes[i].boundary != "neumann":
            return sums
        return pad(self.open_faces(sums, i), [0, 0] * (len(self.shape) - 1 - i) + [1, 1])

    def _widths(self, *, on_walls: bool) -> list[int]:
        """Return by how much to pad each axis, last one first: the Dirichlet ones or the others."""
        return [int(wall == on_walls) for wall in reversed(self.walled) for _ in range(2)]

    def _wrapped(self, t: Float[Tensor, " batch *ringed"]) -> Float[Tensor, " batch *ringed"]:
        for i in self.periodic:
            n = t.shape[i + 1] - 2
            first, last = t.narrow(i + 1, 1, 1), t.narrow(i + 1, n, 1)
            t = torch.cat([last, t.narrow(i + 1, 1, n), first], dim=i + 1)
        return t
