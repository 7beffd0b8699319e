"""Losses: Sobolev norms of any real order."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from sobolev.solvers import Grid, sobolev_norm


def relative_error(
    prediction: Float[Tensor, "batch channels *space"],
    target: Float[Tensor, "batch channels *space"],
    grid: Grid,
    order: float = 0.0,
) -> Float[Tensor, " batch"]:
    """‖p − y‖_{H^s} / ‖y‖_{H^s} per sample, the norm taken over all channels.

    For s = 0 on a periodic or Dirichlet grid this is the relative L² error of the FNO paper. There
    is no hidden ε: a target of zero gives infinity or NaN.
    """
    error = sobolev_norm(prediction - target, grid, order).norm(dim=1)
    return error / sobolev_norm(target, grid, order).norm(dim=1)


class SobolevLoss(nn.Module):
    """Batch mean of the Sobolev error ‖p − y‖_{H^s}, divided by ‖y‖_{H^s} if ``relative``.

    Args:
        grid: the grid of the fields; fixes boundary conditions and physical wavenumbers.
        order: s, any real number; 0 weighs all scales alike, 1 stresses gradients, −1 large scales.
        relative: divide each sample's error by the norm of its target.
    """

    def __init__(self, grid: Grid, order: float = 1.0, relative: bool = True) -> None:
        super().__init__()
        if isinstance(order, bool) or not isinstance(order, (int, float)):
            raise ValueError(f"the order of a Sobolev norm is a real number, got {order!r}")
        self.grid, self.order, self.relative = grid, float(order), relative

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """``(batch, channels, *space)`` twice → a scalar."""
        if prediction.shape != target.shape:
            raise ValueError(
                f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape"
            )
        if self.relative:
            return relative_error(prediction, target, self.grid, self.order).mean()
        return sobolev_norm(prediction - target, self.grid, self.order).norm(dim=1).mean()
