"""Windows cut from trajectories: frames in, frames out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sobolev.grids.checks import is_whole, make_plain
from sobolev.grids.variables import Variable

ALL_TO_ALL = "all-to-all"
"""The word for pairs of all frames."""


@dataclass(frozen=True)
class Window:
    """``history`` frames in, ``horizon`` frames out, every ``stride``-th frame of a trajectory."""

    history: int = 1
    horizon: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        make_plain(self)
        if not all(is_whole(n) and n >= 1 for n in (self.history, self.horizon, self.stride)):
            raise ValueError(
                f"history, horizon and stride of a window are whole numbers that must be at least 1, got {self}"
            )

    @property
    def span(self) -> int:
        """The number of frames from the first to the last."""
        return (self.history + self.horizon - 1) * self.stride + 1

    def cuts(self, frames: int) -> list[slice]:
        """Return the places of a trajectory of so many frames that it is cut at.

        Raises:
            ValueError: if it is too short.
        """
        if frames < self.span:
            raise ValueError(
                f"a window of {self.span} frames ({self}) does not fit into trajectories of {frames}"
            )
        starts = range(frames - self.span + 1)
        return [slice(start, start + self.span, self.stride) for start in starts]

    def inputs(self, states: Sequence[Variable]) -> list[Variable]:
        """Return the input frames as variables of their own, oldest first."""
        return self._frames(states, self.history, "lag", "before")

    def outputs(self, states: Sequence[Variable]) -> list[Variable]:
        """Return the output frames as variables of their own, nearest first."""
        return self._frames(states, self.horizon, "lead", "after")

    def of_one_application(self, channels: int, variables: int) -> Window:
        """Return the window of an operator that gives so many channels and is applied as often as it
        takes to reach the horizon.

        Raises:
            ValueError: if the channels are not whole frames, or no number of applications gives
                ``horizon`` frames.
        """
        frames, rest = divmod(channels, variables)
        if rest or not frames or self.horizon % frames:
            possible = [
                str(n * variables) for n in range(1, self.horizon + 1) if not self.horizon % n
            ]
            raise ValueError(
                f"the operator has out_channels={channels}; whole applications reach the window's horizon of "
                f"{self.horizon} frames ({variables} per frame) with out_channels={' or '.join(possible)}"
            )
        return replace(self, horizon=frames)

    def states(self, outputs: Sequence[Variable]) -> list[Variable]:
        """Return the variables whose output frames these are."""
        first = outputs[: len(outputs) // self.horizon]
        found = [
            Variable(
                v.name.removesuffix("_lead1"),
                v.long_name.removesuffix(_moment(1, "after")),
                v.units,
            )
            for v in first
        ]
        return list(outputs) if self.horizon == 1 else found

    @staticmethod
    def _frames(states: Sequence[Variable], count: int, suffix: str, side: str) -> list[Variable]:
        if count == 1:
            return list(states)
        numbers = range(count - 1, -1, -1) if suffix == "lag" else range(1, count + 1)
        return [
            Variable(f"{v.name}_{suffix}{n}", v.long_name + _moment(n, side), v.units)
            for n in numbers
            for v in states
        ]


@dataclass(frozen=True)
class AllToAll(Window):
    """Every earlier frame with every later one; how far they are apart is an input, ``lead_time``.

    From F frames come F (F − 1) / 2 pairs (Herde et al., Poseidon, NeurIPS 2024, arXiv:2405.19101).
    """

    def cuts(self, frames: int) -> list[slice]:
        """Return the pairs, by the first frame and then by the second."""
        if frames < 3:
            raise ValueError(
                f"trajectories of {frames} frames have pairs of one distance at most; give the window [1, 1]"
            )
        return [slice(i, j + 1, j - i) for i in range(frames) for j in range(i + 1, frames)]


def window_of(given: Sequence[int] | str) -> Window:
    """Return ``[history, horizon]``, ``[history, horizon, stride]`` or ``"all-to-all"`` as a window.

    >>> window_of([10, 1]), window_of("all-to-all")
    (Window(history=10, horizon=1, stride=1), AllToAll(history=1, horizon=1, stride=1))

    Raises:
        ValueError: for anything else.
    """
    if given == ALL_TO_ALL:
        return AllToAll()
    if isinstance(given, str) or not 2 <= len(given) <= 3:
        raise ValueError(
            f"window is [history, horizon], [history, horizon, stride] or {ALL_TO_ALL}, got {given!r}"
        )
    return Window(*given)


def _moment(frames: int, side: str) -> str:
    """Return the words for a frame that follow its variable's name.

    >>> _moment(2, "before"), _moment(1, "after"), _moment(0, "before")
    (', 2 frames before the present', ', 1 frame after the present', ', the present frame')
    """
    if not frames:
        return ", the present frame"
    return f", {frames} frame{'s' * (frames > 1)} {side} the present"
