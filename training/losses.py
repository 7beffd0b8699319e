"""Losses: Sobolev norms of any real order, bands of wavenumbers, frames of a trajectory, and their
sums.

Each is made for a grid. A class (``SobolevLoss``) or a function of the grid says which loss is wanted
before the grid is known.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sobolev.grids import AbstractGrid, energy_spectrum
from sobolev.grids.checks import plain, real_number
from sobolev.grids.norms import norm_per_sample

Fields = Float[Tensor, " batch *field"]
"""Fields of a batch, ``field`` being ``*space``, ``channels, *space`` or ``time, variables, *space``."""


class FieldLoss(nn.Module, ABC):
    """A loss between fields: the batch mean of one number per sample.

    Fields are ``(batch, *space)``, ``(batch, channels, *space)`` or, as ``OperatorModule`` hands them
    over, trajectories ``(batch, time, variables, *space)``. Losses add up and scale:
    ``SobolevLoss(grid, 0.0) + 0.1 * SobolevLoss(grid, 1.0)``; ``SumLoss`` says the same in YAML.
    """

    @abstractmethod
    def per_sample(self, prediction: Fields, target: Fields) -> Float[Tensor, " batch"]:
        """Return the loss of each sample."""

    def forward(
        self, prediction: Float[Tensor, " ..."], target: Float[Tensor, " ..."]
    ) -> Float[Tensor, ""]:
        """Return the mean of the losses of all samples.

        Raises:
            ValueError: for fields of different shapes.
        """
        if prediction.shape != target.shape:
            raise ValueError(
                f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape"
            )
        return self.per_sample(prediction, target).mean()

    def __add__(self, other: FieldLoss) -> FieldLoss:
        return _Sum((self, 1.0), (other, 1.0))

    def __mul__(self, factor: float) -> FieldLoss:
        return _Sum((self, real_number("a loss's factor", factor)))

    __rmul__ = __mul__


class _Sum(FieldLoss):
    """A sum of losses times factors, Σ factor · loss."""

    def __init__(self, *terms: tuple[FieldLoss, float]) -> None:
        super().__init__()
        self.losses = nn.ModuleList(loss for loss, _ in terms)
        self.factors = [factor for _, factor in terms]

    def per_sample(self, prediction: Fields, target: Fields) -> Float[Tensor, " batch"]:
        terms = zip(self.losses, self.factors, strict=True)
        return sum(factor * loss.per_sample(prediction, target) for loss, factor in terms)  # type: ignore


class SumLoss(_Sum):
    """A weighted sum Σ weight · loss of losses that are made for one grid::

        loss:
          class_path: SumLoss
          init_args:
            terms: [SobolevLoss, {class_path: SobolevLoss, init_args: {order: 1.0}}]
            weights: [1.0, 0.1]

    Args:
        grid: the grid of the fields.
        terms: classes of losses, or functions that make one for a grid.
        weights: one per term; 1 by default.
    """

    def __init__(
        self,
        grid: AbstractGrid,
        terms: Sequence[Callable[[AbstractGrid], FieldLoss]],
        weights: Sequence[float] | None = None,
    ) -> None:
        weights = [1.0] * len(terms) if weights is None else weights
        if not terms or len(weights) != len(terms):
            raise ValueError(
                f"a sum needs one or more terms and a weight for each, got {len(terms)} and {len(weights)}"
            )
        factors = [real_number("a loss's weight", weight) for weight in weights]
        super().__init__(*zip((made_for(grid, term) for term in terms), factors, strict=True))


class SobolevLoss(FieldLoss):
    """Batch mean of the Sobolev error ‖p − y‖_{H^s}, divided by ‖y‖_{H^s} if ``relative``.

    Args:
        grid: the grid of the fields; fixes boundary conditions and physical wavenumbers.
        order: s, any real number; 0 weighs all scales alike, 1 stresses gradients, −1 large scales.
        relative: divide each sample's error by the norm of its target. A target of zero, to which
            nothing is relative, adds nothing to the loss.
    """

    def __init__(self, grid: AbstractGrid, order: float = 0.0, relative: bool = True) -> None:
        super().__init__()
        self.grid = grid
        self.relative = relative
        self.order = real_number("the order of a Sobolev norm", order)

    def per_sample(self, prediction: Fields, target: Fields) -> Float[Tensor, " batch"]:
        error = norm_per_sample(prediction - target, self.grid, self.order)
        if not self.relative:
            return error
        return _relative(error, norm_per_sample(target, self.grid, self.order))


class BandLoss(FieldLoss):
    """Batch mean of Σ_b w_b ‖P_b(p − y)‖ / ‖P_b y‖ over bands b of wavenumbers, P_b the projection
    on the modes of a band.

    Each band is judged by its own energy, so that fine scales of little energy are not drowned.
    Channels are taken together. A band in which a target has no energy but rounding adds nothing.

    Args:
        grid: the grid of the fields.
        edges: wavenumbers (physical, as ``grid.shells`` gives them) between the bands, ascending;
            n edges make n + 1 bands, a band's lower edge belonging to it.
        weights: one per band, each at least 0; equal shares by default.
    """

    def __init__(
        self, grid: AbstractGrid, edges: Sequence[float], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        edges = plain(edges)
        ascending = all(a < b for a, b in itertools.pairwise(edges))
        if not edges or not ascending:
            raise ValueError(f"edges must be one or more ascending wavenumbers, got {edges}")
        count = len(edges) + 1
        self.weights = [1 / count] * count if weights is None else plain(list(weights))
        if len(self.weights) != count or not all(w >= 0 for w in self.weights):
            raise ValueError(
                f"{len(edges)} edges make {count} bands; weights needs as many numbers of at least 0, got {weights}"
            )
        self.grid = grid
        self.edges = list(edges)
        band = torch.bucketize(
            grid.shells()[0],
            torch.tensor(self.edges, dtype=torch.float64, device="cpu"),
            right=True,
        )
        if len(missing := set(range(count)) - set(band.tolist())):
            raise ValueError(
                f"no mode of the grid falls into band {min(missing)} of edges {edges}; its wavenumbers reach to "
                f"{float(grid.shells()[0].max()):.4g}"
            )

    def per_sample(self, prediction: Fields, target: Fields) -> Float[Tensor, " batch"]:
        error = self._energies(prediction - target)
        energy = self._energies(target)
        weights = torch.tensor(self.weights, dtype=error.dtype, device=error.device)
        some = error > 0  # the root has no derivative at 0
        root = torch.where(some, torch.where(some, error, 1.0).sqrt(), 0.0)
        rounding = (8 * torch.finfo(energy.dtype).eps) ** 2 * energy.sum(-1, keepdim=True)
        size = torch.where(energy <= rounding, 0.0, energy).sqrt()
        return (weights * _relative(root, size)).sum(-1)

    def _energies(self, u: Fields) -> Float[Tensor, "batch bands"]:
        """Return the energy per sample and band."""
        wavenumbers, shells = energy_spectrum(u, self.grid)
        edges = torch.tensor(self.edges, dtype=wavenumbers.dtype, device=u.device)
        band = torch.bucketize(wavenumbers, edges, right=True)
        channels = tuple(range(1, shells.ndim - 1))
        per_sample = shells.sum(channels) if channels else shells
        return per_sample.new_zeros(len(u), len(self.weights)).index_add(-1, band, per_sample)


class FrameLoss(FieldLoss):
    """A loss of each frame by itself, averaged over the frames of a trajectory.

    Without this, a relative loss divides by the norm of the whole trajectory, in which frames of
    little energy hardly count. Takes ``(batch, time, variables, *space)`` alone.

    Args:
        grid: the grid of the fields.
        loss: class of the loss of a single frame, or a function that makes one for a grid.
    """

    def __init__(
        self, grid: AbstractGrid, loss: Callable[[AbstractGrid], FieldLoss] = SobolevLoss
    ) -> None:
        super().__init__()
        self.grid = grid
        self.loss = made_for(grid, loss)

    def per_sample(self, prediction: Fields, target: Fields) -> Float[Tensor, " batch"]:
        if prediction.ndim != self.grid.ndim + 3:
            raise ValueError(
                f"FrameLoss takes (batch, time, variables, *space) with {self.grid.ndim} space dimensions, got "
                f"{tuple(prediction.shape)}"
            )
        frames = self.loss.per_sample(prediction.flatten(0, 1), target.flatten(0, 1))
        return frames.unflatten(0, prediction.shape[:2]).mean(1)


def _relative(
    error: Float[Tensor, "*batch"], size: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Return ``error / size``, and 0 with gradient 0 where there is no size."""
    none = size == 0
    return torch.where(none, 0.0, error / torch.where(none, 1.0, size))


def made_for(grid: AbstractGrid, loss: Callable[[AbstractGrid], FieldLoss]) -> FieldLoss:
    """Return ``loss(grid)``.

    Raises:
        ValueError: if ``loss`` is a loss already, or what it makes is none.
    """
    made = None if isinstance(loss, nn.Module) else loss(grid)
    if not isinstance(made, FieldLoss):
        raise ValueError(
            "a loss is given as a class or function that makes a FieldLoss for a grid, such as SobolevLoss or "
            f"functools.partial(SobolevLoss, order=1.0); got {loss!r}"
        )
    return made
