"""The origin of a surrogate: frozen records of its data, training and calibration.

In ``surrogate.json`` they are plain JSON, which may come from anybody; it is checked here, once, when a
record is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar, get_args, get_type_hints

from sobolev.datasets.loading.windows import window_of
from sobolev.grids.checks import is_of_kind, plain

R = TypeVar("R", bound="_Record")


@dataclass(frozen=True)
class _Record:
    """A part of a provenance. Known entries have their types, others are kept as they are."""

    @classmethod
    def from_json(cls: type[R], content: Any, what: str) -> R:
        """Return the record that ``content`` is.

        Raises:
            ValueError: if it is no object, or a part of it is of another type.
        """
        if not isinstance(content, Mapping):
            raise ValueError(f"the provenance needs an object for {what}, got {content!r}")
        kinds = get_type_hints(cls)
        known = [f.name for f in fields(cls) if f.name != "other"]
        for name in known:
            if name in content and not is_of_kind(content[name], kinds[name]):
                raise ValueError(
                    f"the provenance needs {_type_in_words(kinds[name])} for {name} of {what}, got {content[name]!r}"
                )
        found = {name: content[name] for name in known if name in content}
        return cls(**found, other={k: v for k, v in content.items() if k not in known})  # type: ignore[call-arg]

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON."""
        content = asdict(self)
        return {**content.pop("other"), **content}


@dataclass(frozen=True)
class DataRecord(_Record):
    """The data that a surrogate was trained on."""

    recipe: dict[str, Any] | None = None
    """Class and parameters of the recipe that drew them."""
    preset: str | None = None
    path: str | None = None
    seed: int | None = None
    resolution: list[int] | None = None
    """Nodes per axis in training."""
    train_samples: int | None = None
    valid_samples: int | None = None
    window: list[int] | str | None = None
    """History, horizon and stride of one application, or ``"all-to-all"``."""
    interval: float | None = None
    """Time between two frames, where they are evenly spaced."""
    time_units: str | None = None
    symmetries: list[str] | None = None
    """The symmetries that the recipe declares; None in records of older versions."""
    versions: dict[str, Any] | None = None
    other: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.window is not None:
            window_of(self.window)
        if self.interval is not None and not self.interval > 0:
            raise ValueError(
                f"the interval between frames is a positive number, got {self.interval!r}"
            )


@dataclass(frozen=True)
class TrainingRecord(_Record):
    """The training that a surrogate's weights are of."""

    valid_relative_l2: float | None = None
    best_epoch: int | None = None
    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None
    seed: int | bool | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    ema: float | None = None
    versions: dict[str, Any] | None = None
    other: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Calibration:
    """A calibrated bound of the error by the residual.

    ``factor`` times the relative residual is at least the relative L² error for a share ``quantile``
    of predictions on grids of ``resolution``, as ``samples`` trajectories say.

    Raises:
        ValueError: for numbers that cannot be.
    """

    factor: float
    quantile: float
    samples: int
    resolution: list[int]

    @classmethod
    def from_json(cls, content: Any) -> Calibration:
        """Return the calibration that ``content`` is.

        Raises:
            ValueError: if it is damaged.
        """
        kinds = get_type_hints(cls)
        complete = isinstance(content, Mapping) and content.keys() == kinds.keys()
        good = complete and all(is_of_kind(content[name], kind) for name, kind in kinds.items())
        good = good and 0 < content["factor"] < math.inf and 0 < content["quantile"] < 1
        if not good:
            raise ValueError(
                f"the surrogate's calibration is damaged: {content}; calibrate it anew"
            )
        return cls(**content)


@dataclass(frozen=True)
class Provenance(Mapping[str, Any]):
    """The record of a surrogate. It can be read like the JSON object that it is saved as.

    >>> record = Provenance.from_json({"protocol": "one map, no time", "training": {"seconds": 7.0}})
    >>> record.training.seconds, record["protocol"], "data" in record
    (7.0, 'one map, no time', False)
    """

    data: DataRecord = field(default_factory=DataRecord)
    training: TrainingRecord = field(default_factory=TrainingRecord)
    protocol: str | None = None
    """The task that was trained and scored, in words."""
    boosting: dict[str, Any] | None = None
    calibration: Calibration | None = None
    start: Provenance | None = None
    """The provenance of the surrogate that training went on from."""
    other: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Any) -> Provenance:
        """Return the provenance that ``content`` is.

        Raises:
            ValueError: if it, or a part of it, is no object, or of another type.
        """
        if isinstance(content, Provenance):
            return content
        if not isinstance(content, Mapping):
            raise ValueError(f"the provenance needs an object of data, got {content!r}")
        parts: dict[str, Any] = plain(dict(content))
        for name, record in (("data", DataRecord), ("training", TrainingRecord)):
            if name in parts:
                parts[name] = record.from_json(parts[name], name)
        if parts.get("calibration") is not None:
            parts["calibration"] = Calibration.from_json(parts["calibration"])
        if parts.get("start") is not None:
            parts["start"] = cls.from_json(parts["start"])
        for name, kind in (("protocol", str), ("boosting", dict)):
            if not isinstance(parts.get(name), kind | None):
                raise ValueError(
                    f"the provenance needs {_type_in_words(kind)} for {name}, got {parts[name]!r}"
                )
        known = {f.name for f in fields(cls)} - {"other"}
        other = {k: v for k, v in parts.items() if k not in known}
        return cls(**{k: v for k, v in parts.items() if k in known}, other=other)

    def to_json(self) -> dict[str, Any]:
        """Return the parts that there are as JSON."""
        found: dict[str, Any] = dict(self.other)
        if self.data != DataRecord():
            found["data"] = self.data.to_json()
        if self.training != TrainingRecord():
            found["training"] = self.training.to_json()
        stated = {"protocol": self.protocol, "boosting": self.boosting}
        found |= {name: value for name, value in stated.items() if value is not None}
        if self.calibration is not None:
            found["calibration"] = asdict(self.calibration)
        if self.start is not None:
            found["start"] = self.start.to_json()
        return found

    def with_parts(self, **parts: Any) -> Provenance:
        """Return the provenance with other parts, given as records or as JSON; None takes one away.

        Raises:
            ValueError: for a part that is not what it should be.
        """
        content = self.to_json()
        for name, part in parts.items():
            content.pop(name, None)
            if part is not None:
                content[name] = _as_json(part)
        return Provenance.from_json(content)

    @property
    def lineage(self) -> list[Provenance]:
        """This one and, if training went on from another surrogate, all before it."""
        return [self, *(self.start.lineage if self.start else [])]

    def __getitem__(self, part: str) -> Any:
        return self.to_json()[part]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_json())

    def __len__(self) -> int:
        return len(self.to_json())


def _as_json(part: Any) -> Any:
    """Return a part of a provenance as JSON."""
    if isinstance(part, Calibration):
        return asdict(part)
    return part.to_json() if isinstance(part, (_Record, Provenance)) else part


def _type_in_words(kind: Any) -> str:
    """Return a type as an annotation writes it, without the None of entries that may be missing."""
    name = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    return name.replace(" | None", "")
