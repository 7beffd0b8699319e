"""Grids that know the eigenbasis of their Laplacian, and what that makes a line each: norms, random fields,
symmetries, pictures."""

from sobolev.grids.axis import Axis
from sobolev.grids.grid import AbstractGrid, Grid
from sobolev.grids.norms import energy_spectrum, sobolev_norm
from sobolev.grids.random_fields import GaussianRandomField
from sobolev.grids.sphere import SphereGrid
from sobolev.grids.variables import Variable

__all__ = [
    "AbstractGrid",
    "Axis",
    "GaussianRandomField",
    "Grid",
    "SphereGrid",
    "Variable",
    "energy_spectrum",
    "sobolev_norm",
]
