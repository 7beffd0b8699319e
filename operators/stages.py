"""Demands on operators that are summed as stages of one."""

from __future__ import annotations

from collections.abc import Sequence

from sobolev.operators.base import Operator
from sobolev.operators.sfno import SFNO


def check_stages(stages: Sequence[Operator], *, hand_over: bool) -> None:
    """Refuse operators whose outputs cannot be summed.

    Args:
        stages: the operators, in the order in which they are trained.
        hand_over: whether all but the first get the prediction so far as further input channels.

    Raises:
        ValueError: naming the first that does not fit those before it.
    """
    if not stages:
        raise ValueError("SpecBoost needs at least one stage")
    if len({id(stage) for stage in stages}) < len(stages):
        raise ValueError("every stage of SpecBoost needs weights of its own; one is there twice")
    _check_common_grid(stages)
    first = stages[0]
    extra = first.out_channels if hand_over else 0
    why = " (input and prediction so far)" if hand_over else ""
    kinds = first.boundary
    for k, stage in enumerate(stages[1:], 1):
        for name, expected, hint in (
            ("in_channels", first.in_channels + extra, why),
            ("out_channels", first.out_channels, ""),
            ("ndim", first.ndim, ""),
        ):
            if getattr(stage, name) != expected:
                raise ValueError(
                    f"stage {k} needs {name}={expected}{hint} to go with stage 0, it has {getattr(stage, name)}"
                )
        kinds = stage.boundary if kinds is None else kinds
        if stage.boundary is not None and stage.boundary != kinds:
            raise ValueError(
                f"stage {k} was built for boundary={stage.boundary}, those before it for {kinds}"
            )


def _check_common_grid(stages: Sequence[Operator]) -> None:
    """Refuse stages beside an SFNO, which may be part of one, that do not work on its sphere; other operators say by
    ``boundary`` what they work on."""
    parts = (part for stage in stages for part in stage.modules())
    sphere = next((part.sphere for part in parts if isinstance(part, SFNO)), None)
    if sphere is None:
        return
    for k, stage in enumerate(stages):
        try:
            stage.check_grid(sphere)
        except ValueError as error:
            raise ValueError(
                f"no grid suits all stages: on {sphere}, stage {k} says: {error}"
            ) from error
