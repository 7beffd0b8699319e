"""Fields that an equation cannot start from on a grid, and samples of a batch that fail on the way."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Inexact
from torch import Tensor

from sobolev.solvers.integrators import SolutionError
from sobolev.solvers.spaces import Space

UNRESOLVED = 1e-2
"""Share of an initial field's norm that the grid's lowest two thirds may lack."""
TAIL = 3e-2
"""Share of what varies in a field, as energy, that may lie in the highest tenth of the kept modes."""
NOTHING = 1e-8
"""Share of a field's energy that is no matter, wherever it lies."""

Fields = Float[Tensor, " batch *rest"]
"""Fields of some samples, at one time or several."""
Modes = Inexact[Tensor, " batch *modes"]
"""Their kept modes."""


class Failures:
    """The samples of a batch that failed, the kind and the time of each failure.

    Args:
        like: fields of the batch.
        space: where they live.
    """

    def __init__(self, like: Fields, space: Space) -> None:
        self.space = space
        self.status = torch.zeros(len(like), dtype=torch.int8, device=like.device)
        self.moment = torch.full((len(like),), math.nan, dtype=torch.float64, device=like.device)
        self.unstable: tuple[Modes, float] | None = None
        """The modes of the first samples that blew up, before they did, and the interval in which."""

    def observed(self, v: Modes, before: Modes, moment: float, interval: float) -> Modes:
        """Return the modes ``v`` at a time, NaN for samples that have failed; ``before`` are those an
        interval earlier."""
        broken, unresolved = self._judged(v.detach())
        fresh = (self.status == 0) & (broken | unresolved)
        if not bool(fresh.any()):
            return v
        self.status[fresh] = torch.where(broken, 1, 2).to(torch.int8)[fresh]
        self.moment[fresh] = moment
        if self.unstable is None and bool((fresh & broken).any()):
            self.unstable = before.detach()[fresh & broken], interval
        return torch.where((self.status > 0).reshape(-1, *[1] * (v.ndim - 1)), math.nan, v)

    def _judged(self, v: Modes) -> tuple[Bool[Tensor, " batch"], Bool[Tensor, " batch"]]:
        """Return which samples are not finite, and which are not resolved."""
        power = torch.view_as_real(v).square().sum(-1) if v.is_complex() else v.square()
        power = power.reshape(len(v), -1, *self.space.eigenvalues.shape).sum(1)  # of all channels
        whole = power.flatten(1).sum(1)
        varying = (power * (self.space.eigenvalues > 0)).flatten(1).sum(1)
        tail = (power * self.space.rim).flatten(1).sum(1)
        return ~whole.isfinite(), (tail > TAIL * varying) & (tail > NOTHING * whole)

    def report(
        self, name: str, solution: Fields, stable_step: Callable[[Modes, float], float | None]
    ) -> None:
        """Raise what failed.

        Args:
            name: of the equation.
            solution: what the others became.
            stable_step: the largest of some steps that keeps all of these samples finite over an interval.

        Raises:
            SolutionError: if samples failed.
        """
        said = []
        if self.unstable is not None:
            step = stable_step(*self.unstable)
            remedy = f": a step of {step:.2g} keeps those that failed first" if step else ""
            said.append(f"blew up ({self._named(1)}){remedy}")
        if bool((self.status == 2).any()):
            said.append(
                f"are not resolved ({self._named(2)}): more than {TAIL:.0%} of what varies in them has gathered in the "
                f"highest modes that are kept; they need more nodes, about {nodes(self.space, 2.0)}"
            )
        counts = [int((self.status == code).sum()) for code in (1, 2)]
        texts = zip([count for count in counts if count], said, strict=True)
        if said:
            failed = "; ".join(
                f"{count} of {len(self.status)} samples {text}" for count, text in texts
            )
            raise SolutionError(
                f"{name}: {failed}; the others are in the error's solution", solution, self.status
            )

    def _named(self, code: int) -> str:
        """Return the numbers of the samples that failed so, and when the first of them did."""
        which = (self.status == code).nonzero().flatten().tolist()
        shown = ", ".join(map(str, which[:8])) + (" …" if len(which) > 8 else "")
        return f"{shown}; sample {which[0]} by time {float(self.moment[which[0]]):g}"


@torch.no_grad()
def check_resolved(u: Fields, v: Modes, space: Space) -> None:
    """Refuse initial fields with more than a little beyond the modes that are kept."""
    lead = tuple(range(1, u.ndim))
    lost = (u - space.to_nodes(v)).square().sum(lead).sqrt()
    share = lost / u.square().sum(lead).sqrt().clamp(min=1e-300)
    if not bool((share <= UNRESOLVED).all()):
        worst = int(share.argmax())
        raise ValueError(
            f"the initial field of sample {worst} has {float(share[worst]):.0%} of its norm beyond the lowest two "
            f"thirds of the modes of {space.grid.shape} nodes, which products leave free of aliasing; start from a "
            f"smoother field, or from one on {nodes(space, 1.5)} nodes"
        )


def nodes(space: Space, times: float) -> str:
    """Return in words so many times the nodes of a space along each axis."""
    return " × ".join(str(math.ceil(times * n) + 1) for n in space.grid.shape)
