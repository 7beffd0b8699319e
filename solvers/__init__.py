"""Classical numerics on batched tensors: grids, norms, random fields and the equations that make
the data."""

from sobolev.grids.axis import Axis
from sobolev.grids.grid import AbstractGrid, Grid
from sobolev.grids.norms import energy_spectrum, sobolev_norm
from sobolev.grids.random_fields import GaussianRandomField
from sobolev.grids.sphere import SphereGrid
from sobolev.solvers.elliptic.darcy import Darcy, RoundingWarning, Solution
from sobolev.solvers.elliptic.darcy_published import EllipticityWarning, PublishedDarcy
from sobolev.solvers.elliptic.multigrid import Multigrid
from sobolev.solvers.equations.burgers import Burgers
from sobolev.solvers.integrators import ETDRK4, Semilinear, SolutionError
from sobolev.solvers.navier_stokes.equation import NavierStokes
from sobolev.solvers.shallow_water.equation import ShallowWater

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
