"""Flat operators on a sphere's latitudes and longitudes, to compare with."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from sobolev.grids.axis import Axis
from sobolev.grids.grid import AbstractGrid, Grid
from sobolev.grids.sphere import SphereGrid
from sobolev.operators.base import Operator
from sobolev.operators.layers.film import Film
from sobolev.operators.wrapping import CompositeOperator, applied, check_operators

_PLANE = Grid(Axis("lat", 64, boundary="neumann"), Axis("lon", 128))


class Planar(CompositeOperator):
    """A flat operator on a sphere: rings and meridians are taken for straight axes, latitude as cells
    between two walls, longitude as a period.

    It is there to be compared with, as the planar FNO of Bonev et al. (ICML 2023, arXiv:2306.03838)
    is with their SFNO. What it gets wrong: a pole is a wall, where on the sphere a field goes on
    along the opposite meridian; nodes, which crowd towards the poles, all count alike; a number of
    waves around a ring stands for ever shorter ones the nearer the ring is to a pole; it commutes with
    turns about the polar axis if its operator commutes with shifts, and with no other rotation.

    Args:
        operator: a flat operator on two axes, of boundary ``["neumann", "periodic"]``.

    Shape:
        ``(batch, in_channels, lat, lon) -> (batch, out_channels, *size)``.

    >>> import torch
    >>> from sobolev.operators import FNO
    >>> operator = Planar(FNO(3, 3, modes=(6, 8), width=8, boundary=["neumann", "periodic"]))
    >>> operator(torch.zeros(2, 3, 16, 32)).shape
    torch.Size([2, 3, 16, 32])

    Raises:
        ValueError: for an operator that does not work on such a plane.
    """

    exportable = False

    def __init__(self, operator: Operator) -> None:
        super().__init__()
        check_operators("Planar", [operator])
        self.operator = operator
        try:
            operator.check_grid(_PLANE)
        except ValueError as error:
            raise ValueError(
                "Planar needs an operator on two flat axes with boundary=['neumann', 'periodic']: "
                f"{error}"
            ) from error
        self.in_channels = operator.in_channels
        self.out_channels = operator.out_channels

    @property
    def parts(self) -> list[Operator]:
        return [self.operator]

    @property
    def film_channels(self) -> list[int] | None:
        return self.operator.film_channels

    @property
    def ndim(self) -> int:
        return 2

    def check_grid(self, grid: AbstractGrid) -> None:
        """Refuse a grid that is no sphere.

        Raises:
            ValueError: saying what to take for it.
        """
        if not isinstance(grid, SphereGrid):
            raise ValueError(
                "Planar flattens a sphere, the data live on a flat grid already; give its operator alone"
            )

    def forward(
        self,
        u: Float[Tensor, "batch in_channels lat lon"],
        size: Sequence[int] | None = None,
        *,
        films: Sequence[Film] | None = None,
    ) -> Float[Tensor, "batch out_channels lat_out lon_out"]:
        """Apply the flat operator to the field's rings and meridians."""
        self.check(u)
        return applied(self.operator, u, size, films)
