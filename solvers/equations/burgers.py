"""The viscous Burgers equation on a circle."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sobolev.grids.checks import is_whole
from sobolev.grids.grid import Grid
from sobolev.solvers.adjoints import STEPS, ByAutograd, advanced
from sobolev.solvers.integrators import (
    ETDRK4,
    Nonlinear,
    Number,
    Times,
    as_number,
    check_times,
    refuse_gradients,
)
from sobolev.solvers.semilinear import Semilinear
from sobolev.solvers.spaces import Field, InModes, Space, Torus


class Burgers(Semilinear):
    """u_t + ½ (u²)_x = ν u_xx with periodic ends.

    Pseudo-spectral in space, float64, 2/3 rule on both sides of the product; ETDRK4 in time.

    Args:
        viscosity: ν > 0, a number or a tensor that may want gradients.
        steps: time steps per solve (shared out over the output times in proportion). By default the
            step obeys Δt ≤ ``courant`` / (U k), U the largest |u₀| and k = min(k_max, U/ν + 8 k_1):
            beyond k = U/ν diffusion, which is integrated exactly, outruns advection, and the lowest
            modes k_1 … 8 k_1 carry the data however viscous the fluid. A fixed number makes a
            sample independent of the batch it is solved in.
        courant: the constant in that rule. At 0.1 the relative error against the Cole–Hopf solution
            is below 1e-8 for random fields of unit variance (``benchmarks/burgers_solver.py``);
            ETDRK4 is stable up to about 2.8.

    >>> grid = Grid.periodic(64, length=2 * math.pi)
    >>> Burgers(viscosity=0.1).solve(torch.sin(grid.points()[0])[None], grid, 1.0).shape
    torch.Size([1, 64])
    """

    def __init__(
        self, viscosity: Number = 0.1, *, steps: int | None = None, courant: float = 0.1
    ) -> None:
        refuse_gradients(courant=courant)
        if not 0 < as_number(viscosity) < math.inf:
            raise ValueError(f"the viscosity must be positive, got {viscosity}")
        if steps is not None and (not is_whole(steps) or steps < 1):
            raise ValueError(f"steps must be a whole number of at least 1, got {steps}")
        if not courant > 0:
            raise ValueError(f"courant must be positive, got {courant}")
        self.viscosity = viscosity
        self.steps = steps
        self.courant = courant

    def symbol(self, eigenvalues: Float[Tensor, "*modes"]) -> Float[Tensor, "*modes"]:
        """Return −ν λ."""
        return -self.viscosity * eigenvalues

    def nonlinear(self, u: Field, space: Space) -> InModes:
        """Return −½ (u²)_x."""
        return space.divergence(-0.5 * u * u)

    def solve(
        self, initial: Float[Tensor, " ..."], grid: Grid, times: Times
    ) -> Float[Tensor, "batch *time x"]:
        """Return the field at one or several times; differentiable in u₀ and ν. The
        backward pass keeps the state of every eighth step.

        Args:
            initial: u₀, ``(batch, x)``.
            grid: one periodic axis.
            times: a time, or a rising sequence of times; 0 gives u₀ itself.

        Returns:
            ``(batch, x)`` for a single time, ``(batch, time, x)`` for a sequence; computed in
            float64, returned in the dtype of ``initial``.

        Raises:
            ValueError: for a field or grid that does not fit, or values that are not finite.
            ArithmeticError: if the solution breaks the maximum principle (too few ``steps``).
        """
        self._check(initial, grid)
        moments, single = check_times(times)
        space = Torus(grid, initial.device)
        (k,) = space.wavenumbers()
        v = space.to_modes(initial.double())
        rate = self._step_rate(initial, float(k[1]), float(k[-1]), moments[-1] or 1.0)
        frames = []
        now = 0.0
        for moment in moments:
            if moment == 0:
                frames.append(initial.double())
                continue
            v, space = self._advanced(v, space, moment - now, rate)
            now = moment
            frames.append(torch.fft.irfft(v, n=grid.shape[0], norm="forward"))
        solution = torch.stack(frames, dim=1)
        self._check_bounded(solution, initial)
        result = solution[:, 0] if single else solution
        return result.to(initial.dtype)

    def _advanced(
        self, v: Complex[Tensor, "batch k"], space: Torus, interval: float, rate: float
    ) -> tuple[Complex[Tensor, "batch fewer_k"], Torus]:
        """Return the modes after ``interval``, and on which grid: those that have decayed are dropped."""
        count = max(1, math.ceil(interval * rate - 1e-9))
        symbol = self.symbol(space.eigenvalues)
        term = ByAutograd.reading(self._right_side(space), self, v)
        stepper = ETDRK4(symbol, term, interval / count)
        for first in range(0, count, STEPS):
            if half := _half_is_empty(v, space.grid.shape[0]):
                space = Torus(space.grid.resized(half), v.device)
                kept = len(space.eigenvalues)
                v = v[..., :kept]
                term = ByAutograd(self._right_side(space), term.parameters)
                stepper = stepper.restricted(kept, term)
            v = advanced(stepper, v, min(STEPS, count - first))
        return v, space

    def residual(
        self,
        u: Float[Tensor, "*batch x"],
        time_derivative: Float[Tensor, "*batch x"],
        grid: Grid,
    ) -> Float[Tensor, "*batch x"]:
        """Return u_t + ½ (u²)_x − ν u_xx for fields ``u`` and their time derivatives.

        Zero for an exact solution, up to what the grid resolves (the 2/3 rule applies).
        """
        grid.check(u)
        grid.check(time_derivative)
        space = Torus(grid, u.device)
        linear = self.symbol(space.eigenvalues) * space.to_modes(u)
        right = space.to_nodes(linear + self.nonlinear(u, space).modes)
        return time_derivative - right.to(u.dtype)

    @staticmethod
    def _check_bounded(
        solution: Float[Tensor, "batch time x"], initial: Float[Tensor, "batch x"]
    ) -> None:
        """Refuse what breaks the maximum principle |u| ≤ max |u₀|; some room is left for the overshoot at a front."""
        largest = solution.detach().abs().flatten(1).amax(dim=1)
        bound = 1.5 * initial.detach().abs().amax(dim=1)
        if not bool((largest <= bound).all()):
            raise ArithmeticError(
                f"the Burgers solution grew to {float(largest.max()):.2g} from at most "
                f"{float(initial.abs().max()):.2g}, which the equation forbids; use more steps or a finer grid"
            )

    def _right_side(self, space: Torus) -> Nonlinear:
        return lambda v: self.nonlinear(space.to_nodes(v), space).modes

    def _step_rate(
        self, initial: Float[Tensor, "batch x"], lowest: float, cutoff: float, end: float
    ) -> float:
        """Return the steps per unit of time."""
        if self.steps is not None:
            return self.steps / end
        speed = float(initial.detach().abs().max())
        wavenumber = min(cutoff, speed / as_number(self.viscosity) + 8 * lowest)
        return max(speed * wavenumber / self.courant, 8 / end)

    def _check(self, initial: Float[Tensor, " ..."], grid: Grid) -> None:
        if grid.ndim != 1 or grid.axes[0].boundary != "periodic" or grid.shape[0] < 4:
            raise ValueError(
                f"Burgers is solved on one periodic axis of at least 4 nodes, got {grid}"
            )
        grid.check(initial)
        if initial.ndim != 2 or not len(initial):
            raise ValueError(
                f"expected initial fields of shape (batch, x), got {tuple(initial.shape)}"
            )
        if not bool(initial.isfinite().all()):
            raise ValueError("the initial fields hold values that are not finite")


def _half_is_empty(v: Complex[Tensor, "batch k"], size: int) -> int:
    """Return half of ``size`` where the modes which only the finer grid carries have decayed to nothing,
    else 0.

    Viscosity empties the upper spectrum within a few steps; carrying on with the rest loses nothing
    that float64 can hold and is several times faster.
    """
    if size % 2 or size < 64:
        return 0
    modulus = v.detach().abs()
    tail = modulus[..., (size // 2 - 1) // 3 + 1 :].amax(dim=-1)
    return size // 2 if bool((tail <= 1e-17 * modulus.amax(dim=-1)).all()) else 0
