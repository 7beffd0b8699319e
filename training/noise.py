"""Noise on the frames that a training step is given."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.grids import AbstractGrid, GaussianRandomField
from sobolev.surrogates.rollout import State


def with_noise(
    state: State,
    deviations: Float[Tensor, "quantities ..."],
    grid: AbstractGrid,
    *,
    pink: bool,
    dice: torch.Generator,
) -> State:
    """Return a state with normal noise on its frames.

    Args:
        state: static inputs and frames.
        deviations: standard deviation of the noise in each quantity, ``(quantities, 1, …)``.
        grid: where the nodes lie.
        pink: equal variance in every octave of wavenumbers, rather than independent nodes.
        dice: on the frames' device.
    """
    frames = state.frames
    space = grid.mode_shape if pink else grid.shape
    draw = torch.randn(
        (*frames.shape[:3], *space), generator=dice, device=frames.device, dtype=frames.dtype
    )
    if pink:
        draw = grid.from_modes(draw * pink_spectrum(grid, frames.device).to(frames.dtype))
    return replace(state, frames=frames + deviations * draw)


def pink_spectrum(
    grid: AbstractGrid, device: torch.device | str = "cpu"
) -> Float[Tensor, "*modes"]:
    """Return the standard deviations of the modes of a field with equal variance in every octave, unit
    variance at the mean node, and no constant part: |k|^(−d/2), float64."""
    spectrum = GaussianRandomField(grid, grid.ndim / 2, tau=0.0).standard_deviations(device)
    return spectrum * (grid.quadrature(device).sum() / spectrum.square().sum()).sqrt()
