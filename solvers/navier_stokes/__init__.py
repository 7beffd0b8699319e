"""Flow on the torus, by its vorticity."""

from sobolev.solvers.navier_stokes.equation import NavierStokes
from sobolev.solvers.navier_stokes.states import (
    band_limited,
    energy,
    enstrophy,
    kinetic_energy_spectrum,
    stream_function,
    velocity,
)

__all__ = [
    "NavierStokes",
    "band_limited",
    "energy",
    "enstrophy",
    "kinetic_energy_spectrum",
    "stream_function",
    "velocity",
]
