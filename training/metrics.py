"""Metrics: functions of a batch that give one value (or a few) per sample, and their mean over all
samples in float64, whatever the batches.

Every function takes ``(batch, channels, *space)`` twice, prediction first, and the grid. Frames of a
trajectory are channels; input frames are not among them, so that given data are never scored as
predictions. There is no hidden ε: where a definition divides by zero, as a relative error does where
the true field is zero, the value is NaN, and the sample is left out of the mean. A prediction that is
not finite has an infinite error.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torchmetrics
from jaxtyping import Float
from torch import Tensor

from sobolev.grids import AbstractGrid, energy_spectrum
from sobolev.grids.norms import ratio, relative_error

Fields = Float[Tensor, "batch channels ..."]


def nrmse(prediction: Fields, target: Fields, grid: AbstractGrid) -> Float[Tensor, " batch"]:
    """Return √⟨(p − y)²⟩ / √⟨y²⟩, with ⟨⟩ the mean over space, averaged over the channels (PDEBench,
    Takamoto et al. 2022) that are not zero."""
    square = ratio(_mean((prediction - target).square(), grid), _mean(target.square(), grid))
    return square.sqrt().nanmean(1)


def vrmse(prediction: Fields, target: Fields, grid: AbstractGrid) -> Float[Tensor, " batch"]:
    """Return √(⟨(p − y)²⟩ / Var y), averaged over the channels that are not constant (The Well, Ohana
    et al. 2024). Predicting the mean scores 1.

    The Well divides the variance by n − 1 and adds 1e-7; here it is the variance over the domain.
    """
    variance = _mean((target - _mean(target, grid, keep=True)).square(), grid)
    rounding = (8 * torch.finfo(target.dtype).eps) ** 2 * _mean(target.square(), grid)
    variance = torch.where(variance <= rounding, 0.0, variance)
    return ratio(_mean((prediction - target).square(), grid), variance).sqrt().nanmean(1)


def max_error(prediction: Fields, target: Fields, grid: AbstractGrid) -> Float[Tensor, " batch"]:
    """Return max |p − y| over channels and nodes."""
    largest = (prediction - target).abs().flatten(1).amax(1)
    return ratio(largest, torch.ones_like(largest))


def binned_error(
    prediction: Fields, target: Fields, grid: AbstractGrid
) -> Float[Tensor, "batch shells"]:
    """Return ⟨(p − y)²⟩ by shells of wavenumber, averaged over the channels.

    The shells sum to the mean square error (Parseval), but for border values on Dirichlet axes and
    modes that a sphere's grid does not resolve.
    """
    energy = energy_spectrum(prediction - target, grid)[1].mean(1)
    return energy / float(grid.quadrature().sum())


def spectrum_error(
    prediction: Fields, target: Fields, grid: AbstractGrid
) -> Float[Tensor, " batch"]:
    """Return √⟨(log₁₀ E_p(k)/E_y(k))²⟩ over the shells in which the target has energy (above 1e-12 of
    its total): the distance of the energy spectra in decades, whatever the phases."""
    p, y = (energy_spectrum(u, grid)[1].sum(1) for u in (prediction, target))
    present = y > 1e-12 * y.sum(-1, keepdim=True)
    decades = torch.where(present, (p / torch.where(present, y, 1.0)).log10(), 0.0)
    return ratio(decades.square().sum(-1), present.sum(-1).to(decades.dtype)).sqrt()


def integral_error(
    prediction: Fields, target: Fields, grid: AbstractGrid
) -> Float[Tensor, "batch channels"]:
    """Return |∫ p − ∫ y| per channel: the drift of a conserved quantity."""
    weights = grid.quadrature(target.device).to(target.dtype)
    space = tuple(range(-grid.ndim, 0))
    return ((prediction - target) * weights).sum(space).abs()


def correlation(
    prediction: Fields, target: Fields, grid: AbstractGrid
) -> Float[Tensor, "batch channels"]:
    """Return Pearson's correlation over space, per channel."""
    p, y = (u - _mean(u, grid, keep=True) for u in (prediction, target))
    return _mean(p * y, grid) / (_mean(p.square(), grid) * _mean(y.square(), grid)).sqrt()


def correlation_time(
    prediction: Fields,
    target: Fields,
    grid: AbstractGrid,
    *,
    interval: float = 1.0,
    threshold: float = 0.8,
    variables: int = 1,
) -> Float[Tensor, " batch"]:
    """Return the time for which a trajectory stays correlated with the truth (Kochkov et al. 2021).

    It ends with the first frame whose correlation, averaged over its variables, falls below
    ``threshold``. Frames lie ``interval`` apart, the first one ``interval`` after the start. A
    trajectory that never falls below counts in full.
    """
    r = correlation(prediction, target, grid).unflatten(1, (-1, variables)).mean(2)
    held = (r >= threshold).long().cumprod(1).sum(1)  # NaN counts as lost
    return interval * held.to(r.dtype)


def _mean(
    u: Fields, grid: AbstractGrid, *, keep: bool = False
) -> Float[Tensor, "batch channels *ones"]:
    """Return the mean over the domain; with ``keep``, the axes of space stay, with one node each."""
    weights = grid.quadrature(u.device)
    space = tuple(range(-grid.ndim, 0))
    return (u * (weights / weights.sum()).to(u.dtype)).sum(space, keepdim=keep)


class SampleMean(torchmetrics.Metric):
    """The mean over samples of a function ``(prediction, target, grid) -> (batch, *size)``.

    It is summed in float64, and right for uneven batches and over processes. A value that is NaN
    though prediction and target are finite is no value, and is left out; NaN if all are.

    >>> from sobolev.solvers import Grid
    >>> metric = SampleMean(nrmse, Grid.periodic(8))
    >>> metric.update(torch.full((3, 1, 8), 3.0), torch.full((3, 1, 8), 2.0))
    >>> metric.compute().item()
    0.5
    """

    full_state_update = False
    total: Float[Tensor, "*size"]
    count: Float[Tensor, "*size"]

    def __init__(
        self,
        function: Callable[..., Float[Tensor, " batch *size"]],
        grid: AbstractGrid,
        size: int = 0,
    ) -> None:
        """Make the metric. ``size`` is the length of the vector of a sample's values; 0 stands for a
        single number."""
        super().__init__()
        self.function = function
        self.grid = grid
        shape = (size,) if size else ()
        zero = partial(torch.zeros, dtype=torch.float64, device="cpu")
        self.add_state("total", zero(shape), dist_reduce_fx="sum")
        self.add_state("count", zero(shape), dist_reduce_fx="sum")

    def update(self, prediction: Float[Tensor, " ..."], target: Float[Tensor, " ..."]) -> None:
        """Add a batch of fields, ``(batch, channels, *space)`` each.

        Raises:
            ValueError: for fields of other shapes, and for a function whose values are not of ``size``.
        """
        if prediction.shape != target.shape or tuple(target.shape[2:]) != tuple(self.grid.shape):
            raise ValueError(
                f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must be (batch, channels, "
                f"{', '.join(map(str, self.grid.shape))})"
            )
        values = self.function(prediction.double(), target.double(), self.grid)
        if values.shape[1:] != self.total.shape:
            raise ValueError(
                f"a sample has values of shape {tuple(values.shape[1:])}, the metric was made for "
                f"{tuple(self.total.shape)}; give SampleMean(size=...)"
            )
        finite = (prediction - target).isfinite().flatten(1).all(1)
        none = values.isnan() & finite.reshape(-1, *[1] * (values.ndim - 1))
        self.total += values.masked_fill(none, 0.0).sum(0)
        self.count += (~none).sum(0)

    def compute(self) -> Float[Tensor, "*size"]:
        """Return the mean over all samples that have a value."""
        return self.total / self.count


class RelativeError(SampleMean):
    """The mean over samples of the relative error in H^s (``sobolev.grids.norms.relative_error``)."""

    higher_is_better = False

    def __init__(self, grid: AbstractGrid, order: float = 0.0) -> None:
        super().__init__(partial(relative_error, order=order), grid)
