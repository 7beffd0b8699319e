"""Classical numerics on batched tensors: grids, norms, random fields and the equations that make
the data."""

from sobolev.solvers.burgers import Burgers
from sobolev.solvers.darcy import Darcy
from sobolev.solvers.grids import Axis, Grid
from sobolev.solvers.integrators import ETDRK4, Semilinear, SolutionError
from sobolev.solvers.navier_stokes import NavierStokes
from sobolev.solvers.norms import energy_spectrum, sobolev_norm
from sobolev.solvers.random_fields import GaussianRandomField

__all__ = [
    "ETDRK4",
    "Axis",
    "Burgers",
    "Darcy",
    "GaussianRandomField",
    "Grid",
    "NavierStokes",
    "Semilinear",
    "SolutionError",
    "energy_spectrum",
    "sobolev_norm",
]
