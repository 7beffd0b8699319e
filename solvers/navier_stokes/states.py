"""Maps from the vorticity of a flow: velocity, stream function, energy, enstrophy and spectrum."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.grids.grid import Grid
from sobolev.grids.norms import energy_spectrum
from sobolev.solvers.navier_stokes.failures import check_vorticity
from sobolev.solvers.navier_stokes.modes import FlowModes


def velocity(vorticity: Float[Tensor, "*batch y x"], grid: Grid) -> Float[Tensor, "*batch 2 y x"]:
    """Return (u, v) = (ψ_y, −ψ_x) of a vorticity on the torus."""
    modes = _modes_of(vorticity, grid)
    z = modes.velocity(modes.transform(vorticity.double()))
    return torch.stack([z.real, z.imag], dim=-3).to(vorticity.dtype)


def stream_function(
    vorticity: Float[Tensor, "*batch y x"], grid: Grid
) -> Float[Tensor, "*batch y x"]:
    """Return ψ with −Δψ = ω and mean zero."""
    modes = _modes_of(vorticity, grid)
    return modes.inverse(modes.transform(vorticity.double()) * modes.inverse_k2).to(vorticity.dtype)


def energy(vorticity: Float[Tensor, "*batch y x"], grid: Grid) -> Float[Tensor, "*batch"]:
    """Return the kinetic energy ½∫|u|²."""
    return velocity(vorticity, grid).square().sum(dim=(-3, -2, -1)) * cell_area(grid) / 2


def enstrophy(vorticity: Float[Tensor, "*batch y x"], grid: Grid) -> Float[Tensor, "*batch"]:
    """Return the enstrophy ½∫ω²."""
    grid.check(vorticity)
    return vorticity.square().sum(dim=(-2, -1)) * cell_area(grid) / 2


def kinetic_energy_spectrum(
    vorticity: Float[Tensor, "*batch y x"], grid: Grid
) -> tuple[Float[Tensor, " shell"], Float[Tensor, "*batch shell"]]:
    """Return the wavenumbers of the shells, and the kinetic energy in each, which sum to ``energy``."""
    wavenumbers, both = energy_spectrum(velocity(vorticity, grid), grid)
    return wavenumbers, both.sum(dim=-2) / 2


def band_limited(vorticity: Float[Tensor, "*batch y x"], grid: Grid) -> Float[Tensor, "*batch y x"]:
    """Return ``vorticity`` cut to the modes that the 2/3 rule keeps on ``grid``, without its mean."""
    modes = _modes_of(vorticity, grid, dealiased=True)
    return modes.inverse(modes.transform(vorticity.double())).to(vorticity.dtype)


def _modes_of(
    vorticity: Float[Tensor, "*batch y x"], grid: Grid, *, dealiased: bool = False
) -> FlowModes:
    check_vorticity(vorticity.reshape(-1, *vorticity.shape[-2:]), grid)
    return FlowModes(grid, vorticity.device, dealiased=dealiased)


def cell_area(grid: Grid) -> float:
    return grid.axes[0].spacing * grid.axes[1].spacing
