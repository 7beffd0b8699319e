"""What every neural operator has in common."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Operator(nn.Module, ABC):
    """A map between fields that is not tied to a grid: ``(batch, in_channels, *space) -> (batch,
    out_channels, *space)``.

    A subclass keeps each constructor argument, JSON-able, in an attribute of the same name;
    ``configuration`` reads them back, so that ``type(op)(**op.configuration)`` builds the same
    operator with fresh weights.
    """

    in_channels: int
    out_channels: int

    @property
    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @property
    @abstractmethod
    def ndim(self) -> int:
        """Number of space axes."""

    @abstractmethod
    def forward(self, u: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Apply to ``(batch, in_channels, *space)``; ``size`` asks for output on a grid of these
        sizes."""

    def check(self, u: Tensor) -> None:
        """Refuse input of the wrong rank or channel count.

        Raises:
            ValueError: saying what was expected.
        """
        axes = ", ".join("zyx"[-self.ndim :])
        if u.ndim != self.ndim + 2:
            raise ValueError(
                f"{type(self).__name__} expects (batch, channels, {axes}), got a tensor of shape {tuple(u.shape)}"
            )
        if u.shape[1] != self.in_channels:
            raise ValueError(
                f"{type(self).__name__} was built for in_channels={self.in_channels}, got {u.shape[1]} channels "
                f"in a tensor of shape {tuple(u.shape)}"
            )
