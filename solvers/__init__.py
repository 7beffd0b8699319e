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
from sobolev.solvers.equations import (
    AdvectionDiffusion,
    AllenCahn,
    BarotropicVorticity,
    Burgers,
    CahnHilliard,
    FisherKPP,
    FitzHughNagumo,
    GrayScott,
    Heat,
    KdV,
    KleinGordon,
    KolmogorovFlow,
    KuramotoSivashinsky,
    Schroedinger,
    SwiftHohenberg,
    VectorBurgers,
)
from sobolev.solvers.evolution import integrate
from sobolev.solvers.integrators import ETDRK4, SolutionError
from sobolev.solvers.navier_stokes.equation import NavierStokes
from sobolev.solvers.semilinear import Semilinear
from sobolev.solvers.shallow_water.equation import ShallowWater
from sobolev.solvers.spaces import Space

__all__ = [
    "ETDRK4",
    "AbstractGrid",
    "AdvectionDiffusion",
    "AllenCahn",
    "Axis",
    "BarotropicVorticity",
    "Burgers",
    "CahnHilliard",
    "Darcy",
    "EllipticityWarning",
    "FisherKPP",
    "FitzHughNagumo",
    "GaussianRandomField",
    "GrayScott",
    "Grid",
    "Heat",
    "KdV",
    "KleinGordon",
    "KolmogorovFlow",
    "KuramotoSivashinsky",
    "Multigrid",
    "NavierStokes",
    "PublishedDarcy",
    "RoundingWarning",
    "Schroedinger",
    "Semilinear",
    "ShallowWater",
    "Solution",
    "SolutionError",
    "Space",
    "SphereGrid",
    "SwiftHohenberg",
    "VectorBurgers",
    "energy_spectrum",
    "integrate",
    "sobolev_norm",
]
