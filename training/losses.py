"""Losses: Sobolev norms of any real order."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from sobolev.solvers import AbstractGrid, sobolev_norm


def relative_error(
    prediction: Float[Tensor, "batch ..."],
    target: Float[Tensor, "batch ..."],
    grid: AbstractGrid,
    order: float = 0.0,
) -> Float[Tensor, " batch"]:
    """‖p − y‖_{H^s} / ‖y‖_{H^s} per sample, the norm taken over all channels.

    For s = 0 on a periodic or Dirichlet grid this is the relative L² error of the FNO paper. There
    is no hidden ε: a target of zero gives infinity or NaN.
    """
    return _per_sample(prediction - target, grid, order) / _per_sample(target, grid, order)


def _per_sample(u: Tensor, grid: AbstractGrid, order: float) -> Tensor:
    """The norm of each sample over its channels, if it has any."""
    return (
        sobolev_norm(u, grid, order).flatten(1).norm(dim=1)
        if u.ndim > grid.ndim + 1
        else sobolev_norm(u, grid, order)
    )


class SobolevLoss(nn.Module):
    """Batch mean of the Sobolev error ‖p − y‖_{H^s}, divided by ‖y‖_{H^s} if ``relative``.

    Args:
        grid: the grid of the fields; fixes boundary conditions and physical wavenumbers.
        order: s, any real number; 0 weighs all scales alike, 1 stresses gradients, −1 large scales.
        relative: divide each sample's error by the norm of its target.
    """

    def __init__(self, grid: AbstractGrid, order: float = 1.0, relative: bool = True) -> None:
        super().__init__()
        if isinstance(order, bool) or not isinstance(order, (int, float)):
            raise ValueError(f"the order of a Sobolev norm is a real number, got {order!r}")
        self.grid, self.order, self.relative = grid, float(order), relative

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """``(batch, channels, *space)`` or ``(batch, *space)`` twice → a scalar."""
        if prediction.shape != target.shape:
            raise ValueError(
                f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape"
            )
        if self.relative:
            return relative_error(prediction, target, self.grid, self.order).mean()
        return _per_sample(prediction - target, self.grid, self.order).mean()
