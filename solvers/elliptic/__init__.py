"""Darcy flow, and the solvers of its linear systems."""

from sobolev.solvers.elliptic.darcy import Darcy, RoundingWarning, Solution
from sobolev.solvers.elliptic.darcy_published import EllipticityWarning, PublishedDarcy
from sobolev.solvers.elliptic.multigrid import Multigrid

__all__ = [
    "Darcy",
    "EllipticityWarning",
    "Multigrid",
    "PublishedDarcy",
    "RoundingWarning",
    "Solution",
]
