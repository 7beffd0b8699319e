"""The surrogate that a training begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from sobolev.datasets.loading.datamodule import OperatorDataModule
from sobolev.datasets.loading.windows import AllToAll
from sobolev.grids.variables import Variable
from sobolev.operators import Operator
from sobolev.operators.building import classes_in
from sobolev.surrogates import Surrogate
from sobolev.surrogates.files import weights_of


def untrained(
    operator: Operator, data: OperatorDataModule, conserve: bool | Mapping[str, str]
) -> Surrogate:
    """Return the operator with the fields of one application, which may be part of the data's window."""
    outputs = data.outputs
    provenance = data.provenance
    conserved = _declared(data) if conserve is True else dict(conserve or {})
    if data.manifest.times:
        window = data.window.of_one_application(operator.out_channels, len(data.states))
        outputs = window.outputs(data.states)
        if not isinstance(window, AllToAll):
            provenance["window"] = list(astuple(window))
        conserved = _by_frames(conserved, data, outputs)
    return Surrogate(
        operator, data.grid, data.inputs, outputs, data.statistics, {"data": provenance},
        conserved=conserved, mask=data.mask,
    )  # fmt: skip


def _declared(data: OperatorDataModule) -> dict[str, str]:
    """Return the outputs that the data declare to be conserved, with their inputs."""
    if not data.conserved:
        raise ValueError(
            f"{data.path} declares no conserved quantity; leave conserve out, or name what its equation conserves, "
            "outputs by inputs, such as {height: height}"
        )
    return data.conserved


def _by_frames(
    conserved: Mapping[str, str], data: OperatorDataModule, outputs: Sequence[Variable]
) -> dict[str, str]:
    """Return the predicted frames of conserved quantities, each with the last given frame."""
    names = [state.name for state in data.states]
    for output, source in conserved.items():
        if output not in names or source != output:
            raise ValueError(
                f"trajectories conserve their quantities, {', '.join(names)}, each by its name twice; got "
                f"{output}: {source}"
            )
    last = dict(zip(names, data.inputs[-len(names) :], strict=True))
    frames = zip(outputs, names * (len(outputs) // len(names)), strict=True)
    return {frame.name: last[name].name for frame, name in frames if name in conserved}


def go_on_from(surrogate: Surrogate, path: str | Path) -> None:
    """Give ``surrogate`` the weights and the normalisation of the one in ``path``, and its record.

    Raises:
        ValueError: if that is another function: of another operator, other variables, kept integrals or
            averaged symmetries, or another grid but for its resolution.
        FileNotFoundError: if there is no surrogate.
    """
    trained = Surrogate.load(path, operators=classes_in(surrogate.operator))

    def described(s: Surrogate) -> dict[str, Any]:
        grid = (
            s.grid.resized(*surrogate.grid.shape) if s.grid.ndim == surrogate.grid.ndim else s.grid
        )
        return {
            "grid": grid,
            "variables": ", ".join(f"{v.name} ({v.units})" for v in [*s.inputs, *s.outputs]),
            "operator": s.operator.description,
            "conserve": s.conserved,
            "symmetries averaged over": s.symmetries,
        }

    if differing := changes(described(trained), described(surrogate)):
        raise ValueError(
            f"training goes on from the very function that is in {path}, and this is another one: "
            f"{'; '.join(differing)}. Give the settings that it was trained with (and save averages over symmetries "
            "after the last training), or leave start out"
        )
    surrogate.load_state_dict(trained.state_dict())
    surrogate.record(start={**trained.provenance.to_json(), "sha256": weights_of(trained)[1]})


def changes(before: Any, now: Any, name: str = "") -> list[str]:
    """Return what differs between two settings, in words."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [f"{name} ({before}, now {now})"]
    names = list({**before, **now})
    for kind in ("class_path", "class"):
        if before.get(kind) != now.get(kind):
            names = [kind]
    return [
        change
        for part in names
        for change in changes(before.get(part), now.get(part), f"{name}.{part}".lstrip("."))
    ]
