"""Solutions of semilinear equations in time, on every grid, that can be differentiated."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from sobolev.grids import AbstractGrid
from sobolev.solvers.adjoints import ByAutograd, advanced
from sobolev.solvers.integrators import (
    ETDRK4,
    CoupledETDRK4,
    SolutionError,
    Times,
    applied,
    check_times,
    exponential,
    refuse_gradients,
)
from sobolev.solvers.semilinear import Semilinear, is_linear, symbol_on
from sobolev.solvers.spaces import InModes, Space, space_on

TOLERANCE = 1e-8
"""Relative error of one step, up to which a step that is not given may grow."""
UNRESOLVED = 1e-2
"""Share of an initial field's norm that the grid's lowest two thirds may lack."""
_TRIALS = 8
"""Halvings of an unstable step that are tried, to name a stable one."""
_FINEST = 20
"""The finest steps are an interval over 2 to this power."""
_RECHECK = 10
"""Steps between two estimates of their error."""

Fields = Float[Tensor, " batch *rest"]
"""Fields of some samples, at one time or several."""
Modes = Inexact[Tensor, " batch *modes"]
"""Their kept modes."""


def integrate(
    equation: Semilinear,
    initial: Float[Tensor, " batch *channels_and_space"],
    grid: AbstractGrid,
    times: Times,
    *,
    step: float | None = None,
) -> Float[Tensor, " batch *time_and_channels_and_space"]:
    """Solve u_t = L u + N(u) by ETDRK4 in the grid's eigenbasis, in float64.

    Differentiable in ``initial`` and in whatever tensors the equation holds, those of a network in its
    nonlinear term among them, and twice so. Steps are then made again in the backward pass from some √n of
    n of them, so that memory grows as √n. How long steps are is no part of the gradient.

    Args:
        equation: its two hooks; a linear one is solved exactly.
        initial: u at time 0, ``(batch, *space)``, with channels ``(batch, channels, *space)``.
        grid: where it lives: axes with periodic ends, with zeros (Dirichlet) or without flux (Neumann),
            or a sphere.
        times: a time, or a rising sequence of times; 0 gives the initial field itself.
        step: time step Δt, shortened evenly to meet the times. By default steps are halved and doubled
            so that each has a relative error of at most 1e-8, as two half steps show for the worst
            sample of the batch. A fixed step makes a sample independent of its batch.

    Returns:
        ``(batch, *space)`` or ``(batch, channels, *space)`` for a single time; for a sequence with a
        ``time`` axis behind the batch. In the dtype of ``initial``.

    Raises:
        ValueError: for fields that do not fit the grid or that it does not resolve, a symbol or
            nonlinear term of another shape, an ill-posed equation, derivatives that the grid's basis
            does not have, and a step with which no sample stays finite, naming one that keeps them so.
        SolutionError: if some samples blow up; it names them and carries the others' solutions.

    >>> from sobolev.grids import Grid
    >>> from sobolev.solvers import Heat
    >>> grid = Grid.periodic(16, length=2 * math.pi)
    >>> u = torch.sin(grid.points()[0])[None]
    >>> torch.allclose(integrate(Heat(0.5), u, grid, 2.0), math.exp(-1.0) * u)
    True
    """
    _check(equation, initial, grid, step)
    moments, single = check_times(times)
    solver = _Solver(equation, grid, initial, step)
    frames = solver.frames(initial.double(), moments)
    solution = torch.stack(frames, dim=1)
    result = (solution[:, 0] if single else solution).to(initial.dtype)
    _report(equation, result, solution, moments)
    return result


class _Solver:
    """An equation on one grid, with the steps that it has been solved in."""

    def __init__(
        self,
        equation: Semilinear,
        grid: AbstractGrid,
        like: Fields,
        step: float | None,
    ) -> None:
        self.equation = equation
        self.linear = is_linear(equation)
        self.space = space_on(grid, like.device, dealiased=not self.linear)
        self.symbol = symbol_on(equation, self.space)
        self.coupled = self.symbol.ndim == self.space.eigenvalues.ndim + 2
        self.step = step
        self._steppers: dict[float, ETDRK4 | CoupledETDRK4] = {}
        self._propagators: dict[float, Modes] = {}
        self.term = ByAutograd(self._right_side)
        self._level = 4  # of an interval's halvings

    def frames(self, u: Fields, moments: list[float]) -> list[Fields]:
        """Return the fields at some times."""
        v = self.space.to_modes(u)
        if not self.linear:
            _check_resolved(u, v, self.space)
            self.term = ByAutograd.reading(self._right_side, self.equation, v)
        found, now = [], 0.0
        for moment in moments:
            if moment > now:
                v = self._advanced(v, moment - now)
                now = moment
            found.append(self.space.to_nodes(v) if moment else u)
        return found

    def _advanced(self, v: Modes, interval: float) -> Modes:
        if self.linear:
            return applied(self._propagator(interval), v, coupled=self.coupled)
        if self.step is None:
            return self._adapted(v, interval)
        count = max(1, math.ceil(interval / self.step - 1e-9))
        end = self._steps(v, interval / count, count)
        if not bool(end.detach().isfinite().flatten(1).all(1).any()):
            self._refuse(v.detach(), interval)
        return end

    def _propagator(self, interval: float) -> Modes:
        """Return e^{L t}, which frames at equal distances share: these differ by rounding."""
        interval = float(f"{interval:.13g}")
        if interval not in self._propagators:
            self._propagators = {
                interval: exponential(interval * self.symbol, coupled=self.coupled)
            }
        return self._propagators[interval]

    def _steps(self, v: Modes, step: float, count: int) -> Modes:
        """Return the modes after some steps; where gradients are wanted, few of those between are kept."""
        stepper = self._stepper(step)
        size = math.ceil(math.sqrt(count))
        for first in range(0, count, size):
            v = advanced(stepper, v, min(size, count - first))
        return v

    def _adapted(self, v: Modes, interval: float) -> Modes:
        """Return the modes after an interval, in steps that are fractions 2^−n of it.

        Samples that not even the finest of them can follow have blown up, and are NaN from then on.
        """
        left = 2**_FINEST  # in the finest steps
        while left:
            size = 2 ** (_FINEST - self._level)
            errors = self._errors(v.detach(), interval / 2**self._level)
            lost = ~(errors <= TOLERANCE)
            if bool(lost.any()):
                if self._level < _FINEST:
                    self._level += 1
                    continue
                v = torch.where(lost.reshape(-1, *[1] * (v.ndim - 1)), math.nan, v)
            count = min(_RECHECK, left // size)
            v = self._steps(v, interval / 2**self._level, count)
            left -= count * size
            if bool((errors < TOLERANCE / 64).all()) and self._level and left // size % 2 == 0:
                self._level -= 1
        return v

    @torch.no_grad()
    def _errors(self, v: Modes, step: float) -> Float[Tensor, " batch"]:
        """Return each sample's relative error of a step, by its distance from two half ones; 0 for those that
        are lost already."""
        half = self._stepper(step / 2)
        whole = self._stepper(step).step(v)
        before, after, distance = (
            u.flatten(1).abs().square().sum(1).sqrt()
            for u in (v, whole, whole - half.step(half.step(v)))
        )
        errors = (16 / 15) * distance / torch.maximum(before, after).clamp(min=1e-300)
        return torch.where(before.isfinite(), errors, 0.0)

    def _stepper(self, step: float) -> ETDRK4 | CoupledETDRK4:
        if step not in self._steppers:
            if len(self._steppers) > 8:
                self._steppers.clear()
            # an estimate of errors, without gradients, may be the first to ask
            with torch.set_grad_enabled(self.symbol.requires_grad):
                self._steppers[step] = self._made(step)
        return self._steppers[step]

    def _made(self, step: float) -> ETDRK4 | CoupledETDRK4:
        if self.coupled:
            return CoupledETDRK4(self.symbol, self.term, step)
        return ETDRK4(self.symbol, self.term, step, real_modes=not self.space.has_complex_modes)

    def _right_side(self, v: Modes) -> Modes:
        state = self.space.to_nodes(v)
        found = self.equation.nonlinear(state, self.space)
        modes = found.modes if isinstance(found, InModes) else found
        wanted = v.shape if isinstance(found, InModes) else state.shape
        if not isinstance(modes, Tensor) or modes.shape != wanted:
            got = tuple(modes.shape) if isinstance(modes, Tensor) else type(modes).__name__
            raise ValueError(
                f"{type(self.equation).__name__}.nonlinear got a state of shape {tuple(state.shape)} and returned "
                f"{got}; it must return {tuple(wanted)}"
            )
        return modes if isinstance(found, InModes) else self.space.to_modes(modes)

    @torch.no_grad()
    def _refuse(self, v: Modes, interval: float) -> None:
        """Refuse a step with which no sample stays finite.

        Raises:
            ValueError: naming a step that keeps some finite, if one of those tried does.
        """
        step = self.step or interval
        said = f"a time step of {step:g} is unstable here: no sample stays finite"
        for _ in range(_TRIALS):
            step /= 2
            count = max(1, math.ceil(interval / step - 1e-9))
            if bool(self._steps(v, interval / count, count).isfinite().flatten(1).all(1).any()):
                raise ValueError(f"{said}; use step <= {step:.2g}, or leave it out")
        raise ValueError(
            f"{said}, nor with {step:.2g}; the equation itself may blow up, or the grid be too coarse"
        )


def _check(equation: Semilinear, initial: Fields, grid: AbstractGrid, step: float | None) -> None:
    refuse_gradients(step=step)
    if step is not None and not (step > 0 and math.isfinite(step)):
        raise ValueError(f"the time step must be positive, got {step}")
    grid.check(initial)
    count = len(equation.channels)
    expected = ("batch", *([str(count)] if count else []), *map(str, grid.shape))
    fits = initial.ndim == len(expected) and (not count or initial.shape[1] == count)
    if not fits or not len(initial):
        raise ValueError(
            f"{type(equation).__name__} starts from fields of shape ({', '.join(expected)}), got {tuple(initial.shape)}"
        )
    if not bool(initial.detach().isfinite().all()):
        raise ValueError("the initial fields hold values that are not finite")


@torch.no_grad()
def _check_resolved(u: Fields, v: Modes, space: Space) -> None:
    """Refuse initial fields with more than a little beyond the modes that are kept."""
    lead = tuple(range(1, u.ndim))
    lost = (u - space.to_nodes(v)).square().sum(lead).sqrt()
    share = lost / u.square().sum(lead).sqrt().clamp(min=1e-300)
    if not bool((share <= UNRESOLVED).all()):
        worst = int(share.argmax())
        raise ValueError(
            f"the initial field of sample {worst} has {float(share[worst]):.0%} of its norm beyond the lowest two "
            f"thirds of the modes of {space.grid.shape} nodes, which products leave free of aliasing; start from a "
            f"smoother field, or from one on {_more_nodes(space)} nodes"
        )


def _more_nodes(space: Space) -> str:
    """Return in words how many nodes keep all modes of fields on these: half as many more."""
    return " × ".join(str(math.ceil(1.5 * n) + 1) for n in space.grid.shape)


def _report(
    equation: Semilinear,
    result: Fields,
    solution: Float[Tensor, " batch time *space"],
    moments: list[float],
) -> None:
    """Raise what failed.

    Raises:
        SolutionError: if samples are not finite.
    """
    finite = solution.detach().isfinite().flatten(2).all(2)
    failed = ~finite.all(1)
    if not bool(failed.any()):
        return
    status = failed.to(torch.int8) * SolutionError.STATUS.index("blown_up")
    which = failed.nonzero().flatten().tolist()
    first = moments[int((~finite[which[0]]).nonzero()[0, 0])]
    shown = ", ".join(map(str, which[:8])) + (" …" if len(which) > 8 else "")
    raise SolutionError(
        f"{type(equation).__name__}: {len(which)} of {len(failed)} samples blew up ({shown}; sample {which[0]} by time "
        f"{first:g}); the others are in the error's solution",
        result,
        status,
    )
