"""Operators that depend on scalars: a viscosity, the amplitude of a forcing, a lead time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from sobolev.grids.checks import check_whole
from sobolev.grids.grid import AbstractGrid
from sobolev.operators.base import Operator
from sobolev.operators.layers.film import Film
from sobolev.operators.layers.spectral_conv import full_precision
from sobolev.operators.wrapping import CompositeOperator, check_operators


class Modulated(CompositeOperator):
    """An operator whose layers are scaled and shifted by functions of a few scalars p (FiLM; Perez et
    al., AAAI 2018, arXiv:1709.07871).

    After each layer l and before its activation v ↦ (1 + γ_l(p)) ⊙ v + β_l(p), with a scale and a
    shift per hidden channel, the same at all nodes: so shifts, turns and rotations commute as they
    do without, and no more depends on the grid. What counts as a layer is a block with its linear
    parts, skip and normalisation (of an SFNO the branch, before it is added; of a G-FNO what the inner
    activation is applied to). All γ and β come from
    one small network, p ↦ GELU layer ↦ linear. Its last weights start as zero, and training with
    the operator as it is.

    The scalars come as the first channels of the input, each constant over space and normalised as
    other channels are. They are read at the first node; that the others agree is not checked.

    Frames, planes and stages may be inside or outside: ``Modulated(Trajectory(operator))``,
    ``Trajectory(Modulated(operator), static=1)``, ``SpecBoost([Modulated(a), Modulated(b)])``. A
    ``SpecBoost`` is not modulated as a whole, since its stages are trained one by one.

    Args:
        operator: any with ``film_channels``, as all of sobolev's have but ``SpecBoost``; its
            ``forward`` takes ``films``.
        parameters: scalars, at the front of the input's channels.
        hidden: width of the network.

    Shape:
        ``(batch, parameters + operator.in_channels, *space) -> (batch, out_channels, *size)``.

    >>> import torch
    >>> from sobolev.operators import FNO
    >>> fno = FNO(1, 1, modes=(4,), width=8)
    >>> operator, u = Modulated(fno), torch.randn(2, 2, 32)
    >>> torch.allclose(operator(u), fno(u[:, 1:]), atol=1e-6)  # until it is trained
    True

    Raises:
        ValueError: for an operator that takes no modulation, or counts below 1.
    """

    def __init__(self, operator: Operator, parameters: int = 1, hidden: int = 32) -> None:
        super().__init__()
        check_operators("Modulated", [operator])
        check_whole("Modulated", parameters=parameters, hidden=hidden)
        self.operator = operator
        self.scalars = int(parameters)  # a module's ``parameters`` are its weights
        self.hidden = hidden
        self._sizes = [size for width in _film_channels(operator) for size in (width, width)]
        self.in_channels = parameters + operator.in_channels
        self.out_channels = operator.out_channels
        self.boundary = operator.boundary
        self.axes = operator.axes
        last = nn.Linear(hidden, sum(self._sizes))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(nn.Linear(parameters, hidden), nn.GELU(), last)

    @property
    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-able, the operator by its description."""
        return super().configuration | {"parameters": self.scalars}

    @property
    def parts(self) -> list[Operator]:
        return [self.operator]

    @property
    def ndim(self) -> int:
        return self.operator.ndim

    def check_grid(self, grid: AbstractGrid) -> None:
        self.operator.check_grid(grid)

    def forward(
        self, u: Float[Tensor, "batch in_channels *space"], size: Sequence[int] | None = None
    ) -> Float[Tensor, "batch out_channels *size"]:
        """Apply the operator to the channels after the scalars, modulated by these."""
        self.check(u)
        scalars = u[:, : self.scalars]
        for _ in range(self.ndim):
            scalars = scalars[..., 0]
        return self.operator(u[:, self.scalars :], size, films=self.films(scalars))

    def films(self, scalars: Float[Tensor, "batch parameters"]) -> list[Film]:
        """Return the modulation of each of the operator's layers."""
        with full_precision(scalars):  # 1 + γ has few digits left in bfloat16
            values = self.network(scalars.to(next(self.network.parameters()).dtype))
        pairs = values.split(self._sizes, dim=1)
        return [Film(1 + g, b) for g, b in zip(pairs[::2], pairs[1::2], strict=True)]


def _film_channels(operator: Operator) -> Sequence[int]:
    """Return the hidden channels of the operator's layers, or refuse one that takes no modulation."""
    name = type(operator).__name__
    if any(isinstance(part, Modulated) for part in operator.modules()):
        raise ValueError(
            "the operator is Modulated already; give that one all parameters, as Modulated(operator, parameters=2)"
        )
    if operator.film_channels:
        return operator.film_channels
    if isinstance(operator, CompositeOperator):
        raise ValueError(
            f"{name} is not modulated as a whole; give it Modulated operators as its parts"
        )
    raise ValueError(
        f"Modulated needs an operator whose film_channels are the hidden channels of its layers and whose forward "
        f"takes films, one for each layer to apply before its activation; {name} has no film_channels"
    )
