"""One equation, or one family, a file."""

from sobolev.solvers.equations.barotropic_vorticity import BarotropicVorticity
from sobolev.solvers.equations.burgers import Burgers
from sobolev.solvers.equations.heat import AdvectionDiffusion, Heat
from sobolev.solvers.equations.kdv import KdV
from sobolev.solvers.equations.kolmogorov_flow import KolmogorovFlow
from sobolev.solvers.equations.kuramoto_sivashinsky import KuramotoSivashinsky
from sobolev.solvers.equations.phase_fields import AllenCahn, CahnHilliard, SwiftHohenberg
from sobolev.solvers.equations.reaction_diffusion import FisherKPP, FitzHughNagumo, GrayScott
from sobolev.solvers.equations.vector_burgers import VectorBurgers
from sobolev.solvers.equations.waves import KleinGordon, Schroedinger

__all__ = [
    "AdvectionDiffusion",
    "AllenCahn",
    "BarotropicVorticity",
    "Burgers",
    "CahnHilliard",
    "FisherKPP",
    "FitzHughNagumo",
    "GrayScott",
    "Heat",
    "KdV",
    "KleinGordon",
    "KolmogorovFlow",
    "KuramotoSivashinsky",
    "Schroedinger",
    "SwiftHohenberg",
    "VectorBurgers",
]
