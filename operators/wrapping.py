"""The common part of operators that are made of other operators."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from sobolev.operators.base import Operator
from sobolev.operators.layers.film import Film


class CompositeOperator(Operator):
    """An operator made of others, its ``parts``.

    They are constructor arguments, each an operator or a list of operators, and the ``configuration``
    holds their descriptions; ``operator_from`` builds them first.
    """

    @property
    @abstractmethod
    def parts(self) -> Sequence[Operator]:
        """The operators that it is made of."""

    @property
    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-able, operators by their descriptions."""
        return {name: _described(value) for name, value in super().configuration.items()}

    @property
    def exportable(self) -> bool:  # type: ignore[override]
        """True if all parts are exportable."""
        return all(part.exportable for part in self.parts)

    @property
    def checkpointing(self) -> bool:
        """True if all parts recompute their activations in the backward pass; setting it sets theirs."""
        return all(part.checkpointing for part in self.parts)

    @checkpointing.setter
    def checkpointing(self, value: bool) -> None:
        for part in self.parts:
            part.checkpointing = value


def check_operators(owner: str, operators: Sequence[Any]) -> None:
    """Refuse anything but operators, their descriptions included.

    Raises:
        ValueError: showing the first that is none.
    """
    for operator in operators:
        if not isinstance(operator, Operator):
            raise ValueError(
                f"{owner} takes operators; operator_from builds one from a mapping of class and arguments, as "
                f".description is; got {operator!r}"
            )


def applied(
    operator: Operator,
    u: Float[Tensor, "batch in_channels *space"],
    size: Sequence[int] | None,
    films: Sequence[Film] | None,
) -> Float[Tensor, "batch out_channels *size"]:
    """Apply an operator, which need not know of ``films`` as long as there are none."""
    return operator(u, size) if films is None else operator(u, size, films=films)


def _described(value: Any) -> Any:
    if isinstance(value, Operator):
        return value.description
    return [_described(part) for part in value] if isinstance(value, nn.ModuleList) else value
