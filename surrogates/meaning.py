"""The meaning of a surrogate's channels: names, units, grid, frames, origin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from sobolev.datasets.loading.windows import Window
from sobolev.grids import AbstractGrid
from sobolev.grids.description import by, describe_grid, grid_from
from sobolev.grids.symmetries import check_symmetries
from sobolev.grids.variables import LEAD_TIME, Parameter, Variable, same_units, variable_from
from sobolev.surrogates.provenance import Provenance


@dataclass(frozen=True)
class Meaning:
    """The names, units, grid, frames and origin of a surrogate: all of it but operator and scales.

    Args:
        grid: the grid of the training data, flat or a sphere. Names, extents and kinds of its axes
            bind; sizes do not.
        inputs, outputs: the variables, in the order of the operator's channels. Inputs that are a
            ``Parameter``, a number of each sample, come first; the mask next.
        provenance: record of data, training and versions.
        symmetries: those that predictions are averaged over.
        conserved: outputs whose integral over the domain is made that of an input: the output's name,
            the input's.
        mask: the input that is 1 in the domain and 0 outside, where fields fill only a part of their box.

    Raises:
        ValueError: for a variable that occurs twice among the inputs or outputs, numbers or a mask that do
            not come first, symmetries that the
            grid does not have, and conserved quantities that are not there or have other units than
            their inputs.
    """

    grid: AbstractGrid
    inputs: tuple[Variable, ...]
    outputs: tuple[Variable, ...]
    provenance: Provenance = field(default_factory=Provenance)
    symmetries: tuple[str, ...] = ()
    conserved: Mapping[str, str] = field(default_factory=dict)
    mask: str | None = None

    def __post_init__(self) -> None:
        check_symmetries(self.symmetries, self.grid)
        self._check_order()
        for role, variables in (("input", self.inputs), ("output", self.outputs)):
            names = [v.name for v in variables]
            if len(set(names)) < len(names):
                raise ValueError(f"a variable occurs twice among the {role}s: {', '.join(names)}")
        for output, source in self.conserved.items():
            self._check_conserved(output, source)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Meaning:
        """Return the meaning that ``to_json`` wrote, or a stranger.

        Raises:
            ValueError: as the class, and for names, sizes and pairs that are none.
        """
        inputs, outputs = (
            tuple(variable_from(v) for v in content[role]) for role in ("inputs", "outputs")
        )
        for word in (word for v in (*inputs, *outputs) for word in (v.name, v.long_name, v.units)):
            if not isinstance(word, str):
                raise ValueError(f"variables have names and units in words, got {word!r}")
        grid = grid_from(content["grid"])
        if math.prod(grid.shape) > torch.iinfo(torch.int64).max:
            raise ValueError(f"no field has {by(grid.shape)} nodes")
        conserved = content.get("conserved", {})
        if not isinstance(conserved, dict):
            raise ValueError(f"conserved quantities are pairs of names, got {conserved!r}")
        provenance = Provenance.from_json(content["provenance"])
        symmetries = tuple(content.get("symmetries", ()))
        return cls(grid, inputs, outputs, provenance, symmetries, conserved, content.get("mask"))

    def to_json(self) -> dict[str, Any]:
        """Return the meaning as JSON."""
        return {
            "grid": describe_grid(self.grid),
            "inputs": [asdict(v) for v in self.inputs],
            "outputs": [asdict(v) for v in self.outputs],
            "provenance": self.provenance.to_json(),
            "symmetries": list(self.symmetries),
            "conserved": dict(self.conserved),
            **({"mask": self.mask} if self.mask else {}),
        }

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The inputs that are numbers of each sample: the first channels, the same at all nodes."""
        return tuple(v for v in self.inputs if isinstance(v, Parameter))

    @property
    def unsigned(self) -> int:
        """The number of first channels that symmetries leave their sign: numbers and the mask."""
        return len(self.parameters) + (self.mask is not None)

    @property
    def window(self) -> Window | None:
        """The frames of one application: ``history`` in, ``horizon`` out, every ``stride``-th stored
        one; None for a map that is not in time."""
        found = self.provenance.data.window
        return None if found is None or isinstance(found, str) else Window(*found)

    @property
    def cut(self) -> Sequence[int] | str:
        """The cut of trajectories as ``OperatorDataModule`` takes it, ``window``."""
        return self.provenance.data.window or (1, 1)

    @property
    def lead_time(self) -> Parameter | None:
        """The input that says how far ahead of its input a prediction lies, where there is one."""
        return next((p for p in self.parameters if p.name == LEAD_TIME[0]), None)

    @property
    def in_time(self) -> Window:
        """The ``window``, where there has to be one.

        Raises:
            ValueError: if there is none, or the variables are not its frames.
        """
        window = self.window
        if self.lead_time is not None:
            raise ValueError(
                "this surrogate is told how far ahead to predict: give predict one lead_time or many, "
                "dataset.assign(lead_time=('lead_time', [0.5, 1.0]))"
            )
        if window is None:
            raise ValueError(
                "this surrogate maps single fields; only one trained on the windows of trajectories can be rolled out"
            )
        given = window.inputs(self.quantities)
        frames = window.outputs(self.quantities)
        found = [(v.name, v.units) for v in (*self.inputs[-len(given) :], *self.outputs)]
        if found != [(v.name, v.units) for v in (*given, *frames)]:
            names = ", ".join(v.name for v in (*self.inputs, *self.outputs))
            raise ValueError(f"{names} are not the frames of a {window}, as the provenance has it")
        return window

    @property
    def quantities(self) -> list[Variable]:
        """The physical quantities that are predicted: the outputs, whatever their frames."""
        return list(self.outputs) if self.window is None else self.window.states(self.outputs)

    def _check_order(self) -> None:
        """Refuse numbers and a mask behind fields."""
        count = len(self.parameters)
        if self.inputs[:count] != self.parameters:
            names = ", ".join(v.name for v in self.inputs)
            raise ValueError(f"numbers come before fields among the inputs, got {names}")
        if self.mask is not None and [v.name for v in self.inputs[count : count + 1]] != [
            self.mask
        ]:
            raise ValueError(f"the mask {self.mask!r} must be the first field among the inputs")
        if self.mask is not None and self.conserved:
            raise ValueError("integrals are kept on whole boxes; the domain here is a part of one")

    def _check_conserved(self, output: str, source: str) -> None:
        inputs = {v.name: v for v in self.inputs}
        outputs = {v.name: v for v in self.outputs}
        if output not in outputs or source not in inputs:
            raise ValueError(
                f"the integral of {output!r} cannot be that of {source!r}: the outputs are {', '.join(outputs)}, "
                f"the inputs {', '.join(inputs)}"
            )
        units = outputs[output].units, inputs[source].units
        if not same_units(*units):
            raise ValueError(
                f"the integral of {output} in {units[0]} cannot be that of {source} in {units[1]}"
            )


def check_channels(name: str, channels: int, variables: Sequence[Variable]) -> None:
    """Refuse an operator whose channels are not those of the variables.

    Raises:
        ValueError: saying how many there are of each.
    """
    if channels != len(variables):
        names = ", ".join(v.name for v in variables)
        raise ValueError(
            f"the operator has {name}={channels}, the data have {len(variables)} ({names}); set {name} to "
            f"{len(variables)}, if these are the data that it is for"
        )
