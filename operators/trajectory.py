"""Operators with a time axis, where data hold frames as channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.grids.axis import Axis
from sobolev.grids.checks import check_whole
from sobolev.grids.grid import AbstractGrid, Grid
from sobolev.operators.base import Operator
from sobolev.operators.layers.film import Film
from sobolev.operators.wrapping import CompositeOperator, applied, check_operators


class Trajectory(CompositeOperator):
    """An operator on (space, time), made one on space whose channels are frames.

    Channels are those of a data window (``OperatorDataModule(..., window=[history, horizon])``):
    static inputs first, then the frames, oldest first, all variables of a frame before those of the
    next. The frames become the operator's last axis, and its output frames channels again.

    Args:
        operator: an operator whose last axis is time.
        history: frames in.
        horizon: frames out; the operator is asked for so many.
        static: channels at the front that do not depend on time; the operator gets them first, the
            same at all times.
        repeat: the input frames become ``history`` times as many channels, the same at all
            ``horizon`` times, as in the FNO paper's FNO-3D. Otherwise they are ``history`` times of
            the same channels, and the operator itself goes from ``history`` to ``horizon`` times.

    Shape:
        ``(batch, static + history · variables, *space) -> (batch, horizon · variables out, *size)``;
        the operator sees ``(batch, static + variables, *space, history)``, or with ``repeat``
        ``(batch, static + history · variables, *space, horizon)``.

    >>> from sobolev.operators import FNO
    >>> fno3d = FNO(10, 1, modes=(4, 4, 4), width=8, boundary=["periodic", "periodic", "dirichlet"])
    >>> operator = Trajectory(fno3d, history=10, horizon=20, repeat=True)
    >>> operator(torch.zeros(2, 10, 16, 16)).shape, operator.boundary
    (torch.Size([2, 20, 16, 16]), ['periodic', 'periodic'])

    Raises:
        ValueError: if the operator has only one axis, its channels do not hold the frames, or its time
            axis is Dirichlet and gets fewer than three times.
    """

    def __init__(
        self,
        operator: Operator,
        history: int,
        horizon: int,
        *,
        static: int = 0,
        repeat: bool = False,
    ) -> None:
        super().__init__()
        check_operators("Trajectory", [operator])
        self.operator = operator
        self.history = history
        self.horizon = horizon
        self.static = static
        self.repeat = repeat
        self._check_arguments()
        states = self.operator.in_channels - static
        self.in_channels = static + (states if repeat else history * states)
        self.out_channels = horizon * self.operator.out_channels
        kinds = self.operator.boundary
        self.boundary = None if kinds is None else kinds[:-1]

    @property
    def parts(self) -> list[Operator]:
        return [self.operator]

    @property
    def film_channels(self) -> list[int] | None:
        return self.operator.film_channels

    @property
    def ndim(self) -> int:
        return self.operator.ndim - 1

    def check_grid(self, grid: AbstractGrid) -> None:
        super().check_grid(grid)
        kinds = self.operator.boundary
        time = Axis("t", self.horizon, boundary="neumann" if kinds is None else kinds[-1])
        if isinstance(grid, Grid):
            self.operator.check_grid(Grid(*grid.axes, time))

    def forward(
        self,
        u: Float[Tensor, "batch in_channels *space"],
        size: Sequence[int] | None = None,
        *,
        films: Sequence[Film] | None = None,
    ) -> Float[Tensor, "batch out_channels *size"]:
        """Apply the operator to the frames, as fields in space and time; its output frames are
        channels."""
        self.check(u)
        fixed, frames = u.tensor_split([self.static], dim=1)
        frames = frames[:, None] if self.repeat else frames.unflatten(1, (self.history, -1))
        fixed = fixed[:, None].expand(-1, frames.shape[1], *fixed.shape[1:])
        v = torch.cat([fixed, frames], dim=2).movedim(1, -1)  # (batch, channels, *space, time)
        if self.repeat:
            v = v.expand(*v.shape[:-1], self.horizon)
        space = u.shape[2:] if size is None else size
        size = (*space, self.horizon)
        return applied(self.operator, v, size, films).movedim(-1, 1).flatten(1, 2)

    def _check_arguments(self) -> None:
        check_whole("Trajectory", history=self.history, horizon=self.horizon)
        if type(self.static) is not int or self.static < 0:
            raise ValueError(f"static counts channels, 0 or more; got {self.static!r}")
        if self.operator.ndim < 2:
            raise ValueError(
                f"Trajectory needs an operator with a time axis after its space axes; {type(self.operator).__name__} "
                "has one axis in all"
            )
        times = {"horizon": self.horizon} | ({} if self.repeat else {"history": self.history})
        for name, count in times.items():
            if (self.operator.boundary or [""])[-1] == "dirichlet" and count < 3:
                raise ValueError(
                    f"the operator's time axis is dirichlet and needs at least 3 times, got {name}={count}; build the "
                    "operator with another boundary in time"
                )
        states = self.operator.in_channels - self.static
        if states < 1 or (self.repeat and states % self.history):
            frames = f" and {self.history} frames of each variable" if self.repeat else ""
            raise ValueError(
                f"the operator's in_channels={self.operator.in_channels} must hold {self.static} static "
                f"channels{frames}"
            )
