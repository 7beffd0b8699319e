"""Moments and spectra of a data set, gathered block by block: memory does not grow with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr

from sobolev.datasets.store.manifest import STATUS
from sobolev.grids import AbstractGrid, Grid, SphereGrid, energy_spectrum
from sobolev.grids.moments import Moments

_BLOCK = 2**22  # values held at a time while statistics are gathered


@dataclass(frozen=True)
class Statistics:
    """Moments of a variable over all samples of a split that did not fail, in float64.

    ``mean`` and ``variance`` are those of each frame of a trajectory (over samples and space) or of
    each node of a field without time (over samples). Nodes count alike on flat grids, and by their
    area on a sphere.
    """

    mean: np.ndarray
    variance: np.ndarray
    low: float
    high: float
    weights: np.ndarray  # of the nodes, 1 on average

    @classmethod
    def of(cls, data: xr.Dataset, name: str, grid: AbstractGrid) -> Statistics:
        """Return the moments of the variable ``name`` of an opened split, reading it block by block.

        Raises:
            ValueError: if samples that count as solved hold values that are not finite, or there
                are no samples that count as solved.
        """
        weights = node_weights(grid)
        space = tuple(range(-grid.ndim, 0)) if "time" in data[name].dims else ()
        found = Moments.none()
        low = math.inf
        high = -math.inf
        for block in _blocks(data, name):
            here = _averaged(block, weights, space).mean(axis=0)
            squares = _averaged((block - here) ** 2, weights, space).sum(axis=0)
            found += Moments(len(block), here, squares)
            low = min(low, float(block.min()))
            high = max(high, float(block.max()))
        if not found.count:
            raise ValueError(f"no statistics of {name}: every sample failed in the solver")
        return cls(found.mean, found.variance, low, high, weights)

    def summary(self) -> dict[str, float]:
        """Return mean, standard deviation, minimum and maximum over samples, time and space."""
        mean = float((self.mean * self.weights).mean())
        variance = float(((self.variance + (self.mean - mean) ** 2) * self.weights).mean())
        return {"mean": mean, "std": math.sqrt(variance), "min": self.low, "max": self.high}


@dataclass(frozen=True)
class Spectra:
    """Squared L² norm per shell of wavenumber: ``energy`` is ``(sample, frame, shell)``."""

    wavenumbers: np.ndarray
    energy: np.ndarray
    cutoff: float
    """The largest wavenumber that the grid resolves in every direction."""

    @classmethod
    def of(cls, fields: np.ndarray, grid: AbstractGrid) -> Spectra:
        """Return the spectra of ``fields``, ``(sample, frame, *space)``.

        Fields that do not vanish on the border of a box with nodes there are expanded in cosines
        instead of sines, whose slow decay would only tell of the border: the inner nodes, over
        which the norm is taken anyway, are the cell centres of a box with free ends.

        >>> grid = Grid.periodic(16, length=2 * math.pi)
        >>> spectra = Spectra.of(np.cos(3 * grid.points()[0].numpy())[None, None], grid)
        >>> [round(float(e), 12) for e in spectra.energy[0, 0, :5] / math.pi]    # ∫ cos² 3x = π
        [0.0, 0.0, 0.0, 1.0, 0.0]
        """
        if isinstance(grid, Grid):
            grid, fields = _free_ends(grid, fields)
        pairs = [energy_spectrum(torch.from_numpy(u.astype(np.float64)), grid) for u in fields]
        energy = torch.stack([energy for _, energy in pairs]).numpy()
        wavenumbers = pairs[0][0].numpy()
        if isinstance(grid, SphereGrid):
            return cls(wavenumbers, energy, float(wavenumbers[-1]))
        if not isinstance(grid, Grid):
            raise TypeError(f"no spectrum on a {type(grid).__name__}")
        cutoff = min(float(axis.wavenumbers().max()) for axis in grid.axes)
        return cls(wavenumbers, energy, cutoff)


def _free_ends(grid: Grid, fields: np.ndarray) -> tuple[Grid, np.ndarray]:
    """Return grid and fields without the border nodes of Dirichlet axes, if there is anything on them."""
    boxed = [axis.boundary == "dirichlet" for axis in grid.axes]
    inside = tuple(slice(1, -1) if box else slice(None) for box in boxed)
    border = np.ones(grid.shape, bool)
    border[inside] = False
    if not border.any() or np.abs(fields[..., border]).max() <= 1e-6 * np.abs(fields).max():
        return grid, fields
    axes = [
        replace(axis, size=axis.size - 2, length=axis.length - axis.spacing,
                origin=axis.origin + axis.spacing / 2, boundary="neumann") if box else axis
        for axis, box in zip(grid.axes, boxed, strict=True)
    ]  # fmt: skip
    return Grid(*axes), fields[(..., *inside)]


def good_samples(data: xr.Dataset) -> np.ndarray:
    """Return the numbers of the samples that did not fail."""
    return np.flatnonzero(data[STATUS].values == 0)


def _blocks(data: xr.Dataset, name: str) -> Iterator[np.ndarray]:
    """Yield the good samples of a variable in float64, as many at a time as memory should hold."""
    field = data[name]
    good = good_samples(data)
    length = max(1, _BLOCK // math.prod(field.shape[1:]))
    for start in range(0, len(good), length):
        block = field.isel(sample=good[start : start + length]).values.astype(np.float64)
        if not np.isfinite(block).all():
            raise ValueError(
                f"{name} holds values that are not finite in samples that count as solved; `sobolev verify` names them"
            )
        yield block


def node_weights(grid: AbstractGrid) -> np.ndarray:
    """Return one weight for each node, 1 on average: areas on a sphere, else equal."""
    if isinstance(grid, SphereGrid):
        areas = grid.quadrature().numpy()
        return areas / areas.mean()
    return np.ones(grid.shape)


def _averaged(block: np.ndarray, weights: np.ndarray, space: tuple[int, ...]) -> np.ndarray:
    return (block * weights).mean(axis=space, keepdims=True) if space else block
