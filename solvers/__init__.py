"""Classical numerics on batched tensors: grids, norms, random fields and the equations that make
the data."""

from sobolev.solvers.burgers import Burgers
from sobolev.solvers.darcy import Darcy, RoundingWarning, Solution
from sobolev.solvers.darcy_published import EllipticityWarning, PublishedDarcy
from sobolev.solvers.grids import AbstractGrid, Axis, Grid
from sobolev.solvers.integrators import ETDRK4, Semilinear, SolutionError
from sobolev.solvers.multigrid import Multigrid
from sobolev.solvers.navier_stokes import NavierStokes
from sobolev.solvers.norms import energy_spectrum, sobolev_norm
from sobolev.solvers.random_fields import GaussianRandomField
from sobolev.solvers.shallow_water import ShallowWater
from sobolev.solvers.sphere import SphereGrid

__all__ = [
    "ETDRK4",
    "AbstractGrid",
    "Axis",
    "Burgers",
    "Darcy",
    "EllipticityWarning",
    "GaussianRandomField",
    "Grid",
    "Multigrid",
    "NavierStokes",
    "PublishedDarcy",
    "RoundingWarning",
    "Semilinear",
    "ShallowWater",
    "Solution",
    "SolutionError",
    "SphereGrid",
    "energy_spectrum",
    "sobolev_norm",
]
