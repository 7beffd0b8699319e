"""What every neural operator has in common."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sobolev.grids.checks import plain
from sobolev.grids.grid import AbstractGrid, Grid

AnyOperator = TypeVar("AnyOperator", bound="Operator")


def check_tensor(u: Any, owner: str) -> None:
    """Refuse what is no tensor.

    Raises:
        ValueError: saying how to make one.
    """
    if not isinstance(u, Tensor):
        raise ValueError(
            f"{owner} takes a torch.Tensor, got {type(u).__name__}; torch.as_tensor makes one of an array"
        )


class Operator(nn.Module, ABC):
    """A map between fields that is not tied to a grid: ``(batch, in_channels, *space) -> (batch,
    out_channels, *size)``.

    A subclass keeps each constructor argument, JSON-able, in an attribute of the same name;
    ``configuration`` reads them back, so that ``type(op)(**op.configuration)`` builds the same
    operator with fresh weights. Its parameters are real. Its layers are applied through ``run``, so
    that ``checkpointing`` – recomputing activations in the backward pass instead of keeping them –
    is one attribute, to be set at any time.
    """

    in_channels: int
    out_channels: int
    boundary: list[str] | None = None
    """Kinds of the axes that the operator is built for; None if it takes what comes."""
    checkpointing: bool = False
    """Whether the layers' activations are recomputed in the backward pass."""
    exportable: bool = False
    """Whether ``torch.export`` and ONNX take it with a free resolution."""
    axes: str = "zyx"
    """Names of the axes, the last ones of which it has."""

    @property
    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-able; lists and mappings are copies."""
        names = inspect.signature(type(self)).parameters
        return {name: plain(getattr(self, name)) for name in names}

    @property
    def description(self) -> dict[str, Any]:
        """The name of the class, by ``class_name``, and the configuration: what ``operator_from``
        builds from."""
        return {"class": class_name(type(self)), "arguments": self.configuration}

    @property
    def film_channels(self) -> list[int] | None:
        """Hidden channels of each layer that ``Modulated`` is to scale and shift; None if there are none.

        An operator that has some takes ``films`` in its ``forward``, one for each layer, and applies
        it after the layer's linear parts, before its activation: ``film(v, batch=0, channels=-1)``.
        """
        return None

    @property
    @abstractmethod
    def ndim(self) -> int:
        """Number of space axes."""

    @abstractmethod
    def forward(
        self, u: Float[Tensor, "batch in_channels *space"], size: Sequence[int] | None = None
    ) -> Float[Tensor, "batch out_channels *size"]:
        """Apply to ``(batch, in_channels, *space)``; ``size`` asks for output on a grid of these
        sizes."""

    def check(self, u: Shaped[Tensor, " ..."]) -> None:
        """Refuse what is no tensor, input of the wrong rank, channel count or dtype, and empty batches
        and axes.

        Raises:
            ValueError: saying what was expected.
        """
        check_tensor(u, type(self).__name__)
        axes = ", ".join(self.axes[-self.ndim :])
        if u.ndim != self.ndim + 2:
            raise ValueError(
                f"{type(self).__name__} expects (batch, channels, {axes}), got a tensor of shape {tuple(u.shape)}"
            )
        if u.shape[1] != self.in_channels:
            raise ValueError(
                f"{type(self).__name__} was built for in_channels={self.in_channels}, got {u.shape[1]} channels "
                f"in a tensor of shape {tuple(u.shape)}"
            )
        if u.shape[0] == 0:
            raise ValueError(f"{type(self).__name__} got an empty batch, shape {tuple(u.shape)}")
        if 0 in u.shape[2:]:
            raise ValueError(
                f"{type(self).__name__} got an axis without nodes, shape {tuple(u.shape)}"
            )
        expected = next(self.parameters(), u).dtype
        autocast = u.is_floating_point() and torch.is_autocast_enabled(u.device.type)
        if expected.itemsize == 2 and not autocast:
            raise ValueError(
                f"{type(self).__name__} has {expected} parameters, in which its transforms cannot be computed; use "
                ".float(), and torch.autocast where products may have 16 bits"
            )
        if u.dtype != expected and not autocast:
            raise ValueError(
                f"{type(self).__name__} has {expected} parameters, got {u.dtype} input; convert one or the other "
                "by .to(dtype)"
            )

    def check_grid(self, grid: AbstractGrid) -> None:
        """Refuse a grid whose fields the operator is not built for.

        Raises:
            ValueError: saying what it is built for.
        """
        name = type(self).__name__
        if not isinstance(grid, Grid):
            raise ValueError(
                f"{name} works on flat grids, the data live on a sphere; SFNO is for those"
            )
        if self.ndim != grid.ndim:
            raise ValueError(
                f"{name} works on {self.ndim}-dimensional fields here, the data are {grid.ndim}-dimensional; give it "
                f"modes, or whatever says so, for {grid.ndim} axes, or the data that it is for"
            )
        kinds = [axis.boundary for axis in grid.axes]
        if self.boundary is not None and self.boundary != kinds:
            raise ValueError(
                f"the operator was built for boundary={self.boundary}, the data's axes are {kinds}"
            )

    def run(self, layer: nn.Module, *inputs: Any) -> Float[Tensor, " ..."]:
        """Apply one of the operator's layers, recomputing it in the backward pass if
        ``checkpointing``."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)


def class_name(operator: type[Operator]) -> str:
    """The name of an operator's class in a file: ``module:Class``, or ``Class`` alone if it is one of
    sobolev's own.

    >>> from sobolev.operators import FNO
    >>> class_name(FNO)
    'FNO'
    """
    home = operator.__module__
    own = home.startswith("sobolev.operators.")
    return operator.__qualname__ if own else f"{home}:{operator.__qualname__}"


def channel_axes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Which axes of each parameter are channels, by the parameter's name.

    They are the first two, as in torch's own layers, but where a layer says otherwise in an
    attribute ``CHANNEL_AXES``, a mapping from the names of its own parameters.

    >>> from sobolev.operators import SpectralConv
    >>> channel_axes(SpectralConv(3, 3, (4, 4), boundary="periodic"))
    {'weight': (-3, -2)}
    """
    return {
        f"{prefix}.{name}".lstrip("."): getattr(module, "CHANNEL_AXES", {}).get(name, (0, 1))
        for prefix, module in network.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }


def with_weights(operator: AnyOperator, state: Mapping[str, Shaped[Tensor, " ..."]]) -> AnyOperator:
    """Give the operator these weights, and move it to their device and dtype; returns it."""
    like = next(value for value in state.values() if value.is_floating_point())
    operator.to(device=like.device, dtype=like.dtype)
    operator.load_state_dict(state)
    return operator
