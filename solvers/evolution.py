"""Solutions of semilinear equations in time, on every grid, that can be differentiated."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Inexact
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sobolev.grids import AbstractGrid
from sobolev.solvers.adjoints import ByAutograd, advanced, stepped, wants_gradients
from sobolev.solvers.failures import Failures, Fields, Modes, check_resolved
from sobolev.solvers.integrators import (
    ETDRK2,
    ETDRK4,
    CoupledETDRK4,
    Stepper,
    Times,
    applied,
    check_times,
    exponential,
    refuse_gradients,
)
from sobolev.solvers.semilinear import Semilinear, is_linear, symbol_on
from sobolev.solvers.spaces import InModes, space_on

TOLERANCE = 1e-8
"""Relative error of one step, up to which a step that is not given may grow."""
_TRIALS = 8
"""Halvings of an unstable step that are tried, to name a stable one, …"""
_TRIED = 1000
"""… while they are no more steps than this."""
_FINEST = 20
"""The finest steps are an interval over 2 to this power."""
_AT_ONCE = 2**16
"""Nodes that one core of a CPU steps at once: half a megabyte for each of a step's fields."""
_RECHECK = 10
"""Steps between two estimates of their error."""


def integrate(
    equation: Semilinear,
    initial: Float[Tensor, " batch *channels_and_space"],
    grid: AbstractGrid,
    times: Times,
    *,
    step: float | None = None,
    order: int = 4,
) -> Float[Tensor, " batch *time_and_channels_and_space"]:
    """Solve u_t = L u + N(u) by exponential time differencing in the grid's eigenbasis, in float64.

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
        order: 4 for ETDRK4, 2 for ETDRK2, whose steps take half the time: for errors of 1e-3 and more, and
            where a step must be short for other reasons.

    Returns:
        ``(batch, *space)`` or ``(batch, channels, *space)`` for a single time; for a sequence with a
        ``time`` axis behind the batch. In the dtype of ``initial``.

    Raises:
        ValueError: for fields that do not fit the grid or that it does not resolve, a symbol or
            nonlinear term of another shape, an ill-posed equation, derivatives that the grid's basis
            does not have, and a step with which no sample stays finite, naming one that keeps them so.
        SolutionError: if some samples blow up, or develop scales that the grid does not resolve: 3 %
            of what varies in them lies in the highest tenth of the kept modes. It names them, and a step
            or a grid that keeps them, and carries the others' solutions.

    >>> from sobolev.grids import Grid
    >>> from sobolev.solvers import Heat
    >>> grid = Grid.periodic(16, length=2 * math.pi)
    >>> u = torch.sin(grid.points()[0])[None]
    >>> torch.allclose(integrate(Heat(0.5), u, grid, 2.0), math.exp(-1.0) * u)
    True
    """
    _check(equation, initial, grid, step, order)
    moments, single = check_times(times)
    solver = _Solver(equation, grid, initial, step, order)
    solution = torch.stack(solver.frames(initial.double(), moments), dim=1)
    result = (solution[:, 0] if single else solution).to(initial.dtype)
    solver.failures.report(type(equation).__name__, result, solver.stable_step)
    return result


def terms(equation: Semilinear, state: Fields, grid: AbstractGrid) -> tuple[Fields, Fields]:
    """Return L u and N(u) of a state at the nodes, in float64: what u_t is the sum of."""
    state = state.double()
    solver = _Solver(equation, grid, state, step=None, order=4)
    v = solver.space.to_modes(state)
    linear = solver.space.to_nodes(applied(solver.symbol, v, coupled=solver.coupled))
    if solver.linear:
        return linear, torch.zeros_like(linear)
    return linear, solver.space.to_nodes(solver.right_side(v))


class _Solver:
    """An equation on one grid, with the steps that it has been solved in."""

    def __init__(
        self,
        equation: Semilinear,
        grid: AbstractGrid,
        like: Fields,
        step: float | None,
        order: int,
    ) -> None:
        self.equation = equation
        self.linear = is_linear(equation)
        self.space = space_on(grid, like.device, dealiased=not self.linear)
        self.symbol = symbol_on(equation, self.space)
        self.coupled = self.symbol.ndim == self.space.eigenvalues.ndim + 2
        self.step = step
        self.order = order
        self.failures = Failures(like, self.space)
        self._steppers: dict[float, Stepper] = {}
        self._propagators: dict[float, Modes] = {}
        self.term = ByAutograd(self.right_side)
        self._level = 4  # of an interval's halvings

    def frames(self, u: Fields, moments: list[float]) -> list[Fields]:
        """Return the fields at some times."""
        v = self.space.to_modes(u)
        if not self.linear:
            check_resolved(u, v, self.space)
            self.term = ByAutograd.reading(self.right_side, self.equation, v)
        found, now = [], 0.0
        for moment in moments:
            if moment > now:
                before, v = v, self._advanced(v, moment - now)
                if not self.linear:
                    v = self.failures.observed(v, before, moment, moment - now)
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
        if not bool(_finite(end).any()) and bool(_finite(v).any()):
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
        if not wants_gradients(stepper, v):
            return torch.cat([stepped(stepper, part, count) for part in self._parts(v)])
        size = math.ceil(math.sqrt(count))
        for first in range(0, count, size):
            number = min(size, count - first)
            if isinstance(stepper, ETDRK2):
                v = checkpoint(stepped, stepper, v, number, use_reentrant=False)
            else:
                v = advanced(stepper, v, number)
        return v

    def _parts(self, v: Modes) -> tuple[Inexact[Tensor, " ..."], ...]:
        """Return a batch in parts that stay in the caches of a CPU, if the equation holds nothing that has
        more axes than a field, which may be one for each sample."""
        held = vars(self.equation).values()
        if v.device.type != "cpu" or any(
            isinstance(h, Tensor) and h.ndim > self.space.ndim for h in held
        ):
            return (v,)
        each = math.prod(self.space.grid.shape) * max(1, len(self.equation.channels))
        return v.split(max(1, _AT_ONCE * torch.get_num_threads() // each))

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
            # doubling makes an error 2^(order + 1) times as large
            small = TOLERANCE / (4 * 2**self.order)
            if bool((errors < small).all()) and self._level and left // size % 2 == 0:
                self._level -= 1
        return v

    @torch.no_grad()
    def _errors(self, v: Modes, step: float) -> Float[Tensor, " batch"]:
        """Return each sample's relative error of a step, by its distance from two half ones; 0 for those that
        are lost already.

        Every tenth step three more are taken for it. The embedded third-order solution, f₃ (N(c) − N(v')) from
        this one, costs nothing, but asks for steps shorter by more: 1.2 times the work at this tolerance.
        """
        whole, halves = self._steps(v, step, 1), self._steps(v, step / 2, 2)
        before, after, distance = (
            u.flatten(1).abs().square().sum(1).sqrt() for u in (v, whole, whole - halves)
        )
        richardson = 2**self.order / (2**self.order - 1)
        errors = richardson * distance / torch.maximum(before, after).clamp(min=1e-300)
        return torch.where(before.isfinite(), errors, 0.0)

    def _stepper(self, step: float) -> Stepper:
        if step not in self._steppers:
            if len(self._steppers) > 8:
                self._steppers.clear()
            # an estimate of errors, without gradients, may be the first to ask
            with torch.set_grad_enabled(self.symbol.requires_grad):
                self._steppers[step] = self._made(step)
        return self._steppers[step]

    def _made(self, step: float) -> Stepper:
        made: ETDRK4 | CoupledETDRK4
        if self.coupled:
            made = CoupledETDRK4(self.symbol, self.term, step)
        else:
            real_modes = not self.space.has_complex_modes
            made = ETDRK4(self.symbol, self.term, step, real_modes=real_modes)
        return made if self.order == 4 else ETDRK2(made)

    def right_side(self, v: Modes) -> Modes:
        """Return N(v)."""
        state = self.space.to_nodes(v)
        found = self.equation.nonlinear(state, self.space)
        values = found.modes if isinstance(found, InModes) else found
        wanted = v.shape if isinstance(found, InModes) else state.shape
        if not isinstance(values, Tensor) or values.shape != wanted:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"{type(self.equation).__name__}.nonlinear got a state of shape {tuple(state.shape)} and returned "
                f"{got}; it must return {tuple(wanted)}"
            )
        return values if isinstance(found, InModes) else self.space.to_modes(values)

    @torch.no_grad()
    def stable_step(self, v: Modes, interval: float, *, some: bool = False) -> float | None:
        """Return the largest step of those tried, halves of the given one, with which all samples (or some)
        stay finite; None if none does."""
        if self.step is None:
            return None
        for halvings in range(1, _TRIALS + 1):
            step = self.step / 2**halvings
            count = max(1, math.ceil(interval / step - 1e-9))
            if count > _TRIED and halvings > 2:
                break
            finite = _finite(self._steps(v, interval / count, count))
            if bool(finite.any() if some else finite.all()):
                return step
        return None

    def _refuse(self, v: Modes, interval: float) -> None:
        """Refuse a step with which no sample stays finite.

        Raises:
            ValueError: naming a step that keeps some finite, if one of those tried does.
        """
        said = f"a time step of {self.step:g} is unstable here: no sample stays finite"
        stable = self.stable_step(v, interval, some=True)
        if stable is None:
            raise ValueError(
                f"{said}, nor with the shorter ones that were tried; the equation itself may blow up, or the grid be "
                "too coarse"
            )
        raise ValueError(f"{said}; use step <= {stable:.2g}, or leave it out")


def _finite(v: Modes) -> Bool[Tensor, " batch"]:
    """Return which samples are finite."""
    return v.detach().isfinite().flatten(1).all(1)


def _check(
    equation: Semilinear, initial: Fields, grid: AbstractGrid, step: float | None, order: int
) -> None:
    refuse_gradients(step=step)
    if order not in (2, 4):
        raise ValueError(f"steps are of order 2 or 4, got order={order!r}")
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
