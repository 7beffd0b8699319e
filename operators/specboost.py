"""An operator made of stages, each trained on what the earlier ones leave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sobolev.grids.grid import AbstractGrid
from sobolev.operators.base import Operator
from sobolev.operators.stages import check_stages
from sobolev.operators.wrapping import CompositeOperator, check_operators

Moments = tuple[int, Float[Tensor, " channels"], Float[Tensor, " channels"]]
"""Count, means and sums of squared deviations."""


class SpecBoost(CompositeOperator):
    """u ↦ Σ_k (μ_k + σ_k G_k(u)), stage G_k fitted to the residual of those before it (Qin et al.
    2024, arXiv:2404.07200).

    A network trained on fields spends its gradient on the few modes that carry the energy; a second
    one, trained on what the first leaves, spends it on the rest. Stages usually keep more and more
    modes. What is left is ten to a hundred times smaller than the field, so each stage learns
    (residual − μ_k) / σ_k, with the residual's mean and standard deviation per channel, which
    ``fit_scale`` measures; the paper does not say whether its residuals are rescaled. Stage 0 has
    μ = 0, σ = 1. Later stages start at μ = σ = 0: until its scale is fitted, a stage is evaluated and
    multiplied by zero; ``active`` leaves it out.

    Args:
        stages: operators. All map the same number of input to the same number of output channels, on
            one kind of grid.
        hand_over: later stages get the prediction so far, on the input's grid, as further input
            channels: ``in_channels + out_channels`` of them.
        active: how many stages the prediction sums, the first ones; all by default.

    Training, stage by stage::

        for k in range(len(operator.stages)):
            if k:
                operator.fit_scale(k, (operator.residual(u, y, k) for u, y in batches))
            operator.train_stage(k)  # DistributedDataParallel wraps the operator after this call
            # minimise loss(*operator.learning_pair(u, y, k)) over operator.stage_parameters(k)
        operator.train_stage(None)

    Shape:
        ``(batch, in_channels, *space) -> (batch, out_channels, *size)``.

    >>> from sobolev.operators import FNO
    >>> coarse, fine = FNO(1, 1, modes=(4,), width=8), FNO(2, 1, modes=(16,), width=8)
    >>> operator, u = SpecBoost([coarse, fine], hand_over=True), torch.ones(1, 1, 32)
    >>> torch.equal(operator(u), coarse(u))  # until the second stage's scale is fitted
    True

    Raises:
        ValueError: if there is no stage, one is a SpecBoost itself, or they do not fit together.
    """

    mean: Float[Tensor, "stages out_channels"]
    scale: Float[Tensor, "stages out_channels"]

    def __init__(
        self,
        stages: Sequence[Operator],
        *,
        hand_over: bool = False,
        active: int | None = None,
    ) -> None:
        super().__init__()
        check_operators("SpecBoost", stages)
        for k, stage in enumerate(stages):
            if isinstance(
                stage, SpecBoost
            ):  # its stages would have to be trained one by one as well
                raise ValueError(f"stage {k} is a SpecBoost; give its stages one by one")
        check_stages(stages, hand_over=hand_over)
        self.stages = nn.ModuleList(stages)
        self.hand_over = hand_over
        self.in_channels = stages[0].in_channels
        self.out_channels = stages[0].out_channels
        self.boundary = next((s.boundary for s in stages if s.boundary is not None), None)
        self.register_buffer("mean", torch.zeros(len(stages), self.out_channels))
        self.register_buffer("scale", torch.zeros(len(stages), self.out_channels))
        self.scale[0] = 1.0
        self.active = len(stages) if active is None else active
        self._in_training: int | None = None

    @property
    def parts(self) -> list[Operator]:
        return [cast(Operator, stage) for stage in self.stages]

    @property
    def ndim(self) -> int:
        return self._stage(0).ndim

    @property
    def active(self) -> int:
        """The number of stages that the prediction sums; all, unless set."""
        return self._active

    @active.setter
    def active(self, count: int) -> None:
        if type(count) is not int or not 1 <= count <= len(self.stages):
            raise ValueError(f"active counts stages, 1 to {len(self.stages)}; got {count}")
        self._active = count

    def check_grid(self, grid: AbstractGrid) -> None:
        for stage in self.parts:
            stage.check_grid(grid)

    def forward(
        self, u: Float[Tensor, "batch in_channels *space"], size: Sequence[int] | None = None
    ) -> Float[Tensor, "batch out_channels *size"]:
        """Sum the active stages; each is asked for ``size``."""
        self.check(u)
        return self.partial(u, self.active, size)

    def partial(
        self,
        u: Float[Tensor, "batch in_channels *space"],
        count: int,
        size: Sequence[int] | None = None,
    ) -> Float[Tensor, "batch out_channels *size"]:
        """Predict by stages 0 … ``count`` − 1; zero for none.

        With ``hand_over`` and a ``size`` other than the input's, a stage that another one follows
        is evaluated on both grids.

        Raises:
            ValueError: for a number of stages that there are not.
        """
        if not 0 <= count <= len(self.stages):
            raise ValueError(f"count is a number of stages, 0 to {len(self.stages)}; got {count}")
        space = tuple(u.shape[2:])
        if count == 0:
            return u.new_zeros(len(u), self.out_channels, *(space if size is None else size))
        elsewhere = size is not None and tuple(size) != space
        total = u.new_zeros(())
        here = u.new_zeros(())
        v = u
        for k in range(count):
            total = total + self._term(k, v, size)
            if self.hand_over and k + 1 < count:
                here = here + self._term(k, v, space) if elsewhere else total
                v = torch.cat([u, here.to(u.dtype)], dim=1)
        return total

    def residual(
        self,
        u: Float[Tensor, "batch in_channels *space"],
        y: Float[Tensor, "batch out_channels *size"],
        k: int,
    ) -> Float[Tensor, "batch out_channels *size"]:
        """Return what the stages before ``k`` leave of the target: ``y − partial(u, k)``, on the
        target's grid, without gradients."""
        with torch.no_grad():
            return y - self.partial(u, k, y.shape[2:])

    def learning_pair(
        self,
        u: Float[Tensor, "batch in_channels *space"],
        y: Float[Tensor, "batch out_channels *size"],
        k: int,
    ) -> tuple[
        Float[Tensor, "batch out_channels *size"], Float[Tensor, "batch out_channels *size"]
    ]:
        """Return the output of stage ``k`` and its target, ``(residual − μ_k) / σ_k``, both on the grid
        of ``y``.

        Raises:
            ValueError: if there is no such stage, or its scale has not been fitted.
        """
        self._check_fitted(k)
        residual = self.residual(u, y, k)
        space = u.shape[2:]
        if k and self.hand_over:
            with torch.no_grad():
                same = y.shape[2:] == space
                before = y - residual if same else self.partial(u, k, space)
                u = torch.cat([u, before.to(u.dtype)], dim=1)
        target = (residual - self._channels(self.mean[k])) / self._channels(self.scale[k])
        return self._stage(k)(u, y.shape[2:]), target

    @torch.no_grad()
    def fit_scale(
        self,
        k: int,
        residuals: Float[Tensor, "batch out_channels *space"]
        | Iterable[Float[Tensor, "_ out_channels *space"]],
    ) -> None:
        """Set μ_k and σ_k to mean and standard deviation, per channel, of ``residuals``.

        Args:
            k: the stage.
            residuals: ``(batch, out_channels, *space)``, or several such batches, merged one by one
                in float64 (Chan, Golub & LeVeque 1983).

        Raises:
            ValueError: for residuals of another shape, none at all, a constant channel, or values that
                are not finite.
        """
        moments = None
        for batch in [residuals] if isinstance(residuals, Tensor) else residuals:
            moments = self._merged(moments, batch)
        if moments is None:
            raise ValueError(f"there are no residuals to measure the scale of stage {k} by")
        count, mean, squares = moments
        scale = (squares / count).sqrt()
        if not bool((scale.isfinite() & (scale > 0)).all()):
            raise ValueError(
                f"stage {k} has nothing to learn: the standard deviations of its residuals, {scale.tolist()}, "
                "must be finite and positive"
            )
        self.mean[k] = mean.to(self.mean)
        self.scale[k] = scale.to(self.scale)

    def stage_parameters(self, k: int) -> Iterator[nn.Parameter]:
        """Return the parameters of stage ``k``, for its optimiser."""
        return self._stage(k).parameters()

    def train_stage(self, k: int | None) -> None:
        """Train stage ``k`` alone: earlier stages are frozen, in evaluation mode whatever ``train``
        says, and later ones are left out. None: all stages take part and are trained.

        ``freeze_except`` is part of it, so ``DistributedDataParallel`` has to wrap the operator after
        this call.

        Raises:
            ValueError: if there is no such stage, or its scale has not been fitted.
        """
        if k is not None:
            self._check_fitted(k)
        self.freeze_except(k)
        self._in_training = k
        self.active = len(self.stages) if k is None else k + 1
        self.train()

    def freeze_except(self, k: int | None) -> None:
        """Let the parameters of stage ``k`` alone want gradients, of all stages for None.

        ``DistributedDataParallel`` waits for every parameter that wanted one when it was wrapped
        around the operator: this comes before, whether or not the scale is known yet.
        """
        for i, stage in enumerate(self.stages):
            stage.requires_grad_(k is None or i == k)

    def train(self, mode: bool = True) -> SpecBoost:
        super().train(mode)
        for i, stage in enumerate(self.stages):
            stage.train(mode and self._in_training in (None, i))
        return self

    def _stage(self, k: int) -> Operator:
        return cast(Operator, self.stages[k])

    def _check_fitted(self, k: int) -> None:
        if not 0 <= k < len(self.stages):
            raise ValueError(f"there are stages 0 to {len(self.stages) - 1}, got {k}")
        if not bool((self.scale[k] > 0).all()):
            raise ValueError(f"stage {k} has no scale yet; fit_scale({k}, residuals) measures it")

    def _term(
        self, k: int, v: Float[Tensor, "batch channels *space"], size: Sequence[int] | None
    ) -> Float[Tensor, "batch out_channels *size"]:
        return self._channels(self.mean[k]) + self._channels(self.scale[k]) * self._stage(k)(
            v, size
        )

    def _channels(
        self, values: Float[Tensor, " out_channels"]
    ) -> Float[Tensor, " out_channels *ones"]:
        return values.reshape(-1, *[1] * self.ndim)

    def _merged(
        self, moments: Moments | None, batch: Float[Tensor, "batch channels *space"]
    ) -> Moments:
        """Return the moments with those of ``batch`` added."""
        if batch.ndim != self.ndim + 2 or batch.shape[1] != self.out_channels:
            raise ValueError(
                f"residuals are (batch, {self.out_channels}, *space) with {self.ndim} space axes, got a tensor of "
                f"shape {tuple(batch.shape)}"
            )
        values = batch.double().transpose(0, 1).flatten(1)
        n = values.shape[1]
        centre = values.mean(1)
        spread = (values - centre[:, None]).square().sum(1)
        if moments is None:
            return n, centre, spread
        count, mean, squares = moments
        shift = centre - mean
        squares = squares + spread + shift.square() * (count * n / (count + n))
        return count + n, mean + shift * (n / (count + n)), squares
