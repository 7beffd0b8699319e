"""Two-dimensional incompressible flow on a torus, in vorticity form."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Complex, Float, Inexact
from torch import Tensor

from sobolev.grids.grid import Grid
from sobolev.solvers.integrators import (
    LARGEST_COURANT,
    Number,
    Times,
    as_number,
    check_times,
    refuse_gradients,
)
from sobolev.solvers.navier_stokes.failures import (
    FlowFailures,
    check_mean,
    check_resolved,
    check_vorticity,
)
from sobolev.solvers.navier_stokes.flow import MOST_STEPS, FlowInModes, FlowStepper, StepRule
from sobolev.solvers.navier_stokes.modes import FlowModes

Forcing = (
    Float[Tensor, " ..."]
    | Callable[[Float[Tensor, "y x"], Float[Tensor, "y x"]], Float[Tensor, "*batch y x"]]
    | None
)
"""A vorticity source on the grid, a function of the points' y and x, or none."""


class NavierStokes:
    """ω_t + u·∇ω + β v = ν Δω − μ ω + f on a torus, u = (u, v) = (ψ_y, −ψ_x), −Δψ = ω.

    Pseudo-spectral in float64, 2/3 rule on both sides of the product, ETDRK4 in time (the linear
    part – viscosity, drag and the planetary wave term β – is exact). The nonlinear term takes the
    four-transform form of Basdevant (1983), ∂x∂y(v² − u²) + (∂x² − ∂y²)(uv): with z = u + iv its
    two real inverse transforms are one complex one, z² holds both products, and its transform is
    the second.

    Args:
        viscosity: ν ≥ 0.
        forcing: f, constant in time: a tensor on the grid (``(y, x)`` or ``(batch, y, x)``), a
            function of the points, ``forcing(y, x)``, or None. Its mean must vanish.
        drag: linear friction μ ≥ 0.
        beta: gradient β of the planetary vorticity in y.
        step: time step Δt; shortened evenly to meet the output times. By default Δt = ``courant`` /
            max(|u| kx + |v| ky) with the largest kept wavenumbers kx and ky, measured anew every
            eight steps. A fixed step makes a sample independent of its batch.
        courant: the constant in that rule; ``benchmarks/navier_stokes.py`` shows the error over it.
            ETDRK4 is stable up to about 2.8.

    >>> grid = Grid.periodic(32, 32, length=2 * math.pi)
    >>> y, x = torch.meshgrid(*grid.points(), indexing="ij")
    >>> vortices = 2 * (x.cos() * y.cos())[None]                     # Taylor–Green: decays as e^{−2νt}
    >>> decayed = NavierStokes(viscosity=0.05).solve(vortices, grid, 1.0)
    >>> torch.allclose(decayed, math.exp(-0.1) * vortices, atol=1e-12)
    True
    """

    def __init__(
        self,
        viscosity: Number,
        forcing: Forcing = None,
        *,
        drag: Number = 0.0,
        beta: Number = 0.0,
        step: float | None = None,
        courant: float = 0.5,
    ) -> None:
        refuse_gradients(step=step, courant=courant)
        for name, value in (("viscosity", viscosity), ("drag", drag)):
            if not 0 <= as_number(value) < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if step is not None and not (step > 0 and math.isfinite(step)):
            raise ValueError(f"the time step must be positive, got {step}")
        if not 0 < courant <= LARGEST_COURANT:
            raise ValueError(f"courant must lie between 0 and {LARGEST_COURANT}, got {courant}")
        if not math.isfinite(as_number(beta)):
            raise ValueError(f"beta must be finite, got {beta}")
        self.viscosity = viscosity
        self.forcing = forcing
        self.drag = drag
        self.beta = beta
        self.step = step
        self.courant = courant

    def solve(
        self, vorticity: Float[Tensor, " ..."], grid: Grid, times: Times
    ) -> Float[Tensor, "batch *time y x"]:
        """Return the vorticity at one or several times; differentiable in it, in the forcing and in ν, μ and
        β, which may be tensors. The backward pass keeps the state of every eighth step.

        Args:
            vorticity: ω at time 0, ``(batch, y, x)``, of zero mean and within the 2/3 rule's modes
                (``band_limited`` cuts it to them).
            grid: two periodic axes.
            times: a time, or a rising sequence of times; 0 gives the initial field itself.

        Returns:
            ``(batch, y, x)`` for a single time, ``(batch, time, y, x)`` for a sequence; computed in
            float64, returned in the dtype of ``vorticity``.

        Raises:
            ValueError: for a field, forcing or grid that does not fit, an initial field the grid
                cannot resolve (naming the grid that can), or a ``step`` that is unstable for every
                sample (naming the largest stable one).
            SolutionError: if samples are too fast for the step, blow up or develop scales that the
                grid does not resolve; it names them and when, and carries the others' solutions.
        """
        check_vorticity(vorticity, grid)
        moments, single = check_times(times)
        modes = FlowModes(grid, vorticity.device)
        v = modes.transform(vorticity.double())
        check_resolved(vorticity.detach(), modes, v.detach())
        forcing = self._forcing(grid, modes, vorticity)
        failures = FlowFailures(len(v), v.device)
        v = failures.drop(v, self._too_fast(modes, v.detach(), moments[-1]), 0.0)
        rule = StepRule(self.step, self.courant)
        equation = FlowInModes(modes, self._symbol(modes), forcing)
        stepper = FlowStepper(rule, equation, modes, failures, moments[-1])
        frames = []
        now = 0.0
        for moment in moments:
            if moment == 0:
                frames.append(vorticity.double())
                continue
            v = stepper.advance(v, now, moment)
            now = moment
            frames.append(failures.observe(moment, modes, v))
        solution = torch.stack(frames, dim=1)
        result = (solution[:, 0] if single else solution).to(vorticity.dtype)
        failures.report(result, as_number(self.viscosity), grid)
        return result

    def residual(
        self,
        vorticity: Float[Tensor, "batch y x"],
        time_derivative: Float[Tensor, "batch y x"],
        grid: Grid,
    ) -> Float[Tensor, "batch y x"]:
        """Return ω_t + u·∇ω + βv − νΔω + μω − f for fields and their time derivatives; differentiable.

        Zero for an exact solution, up to what the grid resolves (the 2/3 rule applies).
        """
        check_vorticity(vorticity, grid)
        grid.check(time_derivative)
        modes = FlowModes(grid, vorticity.device)
        v = modes.transform(vorticity.double())
        forcing = self._forcing(grid, modes, vorticity)
        right = self._symbol(modes) * v + modes.advection(v)
        right = right if forcing is None else right + forcing
        return time_derivative - modes.inverse(right).to(vorticity.dtype)

    def in_modes(self, grid: Grid, like: Float[Tensor, "batch y x"]) -> FlowInModes:
        """Return the equation for the modes that the 2/3 rule keeps on ``grid``, on the device of
        ``like``, fields of vorticity."""
        check_vorticity(like, grid)
        modes = FlowModes(grid, like.device)
        return FlowInModes(modes, self._symbol(modes), self._forcing(grid, modes, like))

    def _symbol(self, modes: FlowModes) -> Inexact[Tensor, "ky kx"]:
        """Return σ = −ν|k|² − μ + iβ kx/|k|²."""
        damping = -self.viscosity * modes.k2 - self.drag
        if not isinstance(self.beta, Tensor) and not self.beta:
            return damping
        # −β v̂ with v̂ = −i kx ω̂ / |k|²
        return torch.complex(damping, self.beta * modes.kx.expand_as(damping) * modes.inverse_k2)

    def _forcing(
        self, grid: Grid, modes: FlowModes, like: Float[Tensor, "batch y x"]
    ) -> Complex[Tensor, "*batch ky kx"] | None:
        """Return the modes of the forcing of fields ``like`` these."""
        if self.forcing is None:
            return None
        if callable(self.forcing):
            f = self.forcing(*torch.meshgrid(*grid.points(like.device), indexing="ij"))
        else:
            f = self.forcing.to(like.device)
        if f.shape not in (grid.shape, like.shape) or not bool(f.isfinite().all()):
            raise ValueError(
                f"the forcing must be finite and of shape {tuple(grid.shape)} or {tuple(like.shape)}, got "
                f"{tuple(f.shape)}"
            )
        f = f.double()
        check_mean(f, "forcing")
        kept = modes.transform(f)
        check_resolved(
            f.detach().reshape(-1, *grid.shape),
            modes,
            kept.detach().reshape(-1, *kept.shape[-2:]),
            "forcing",
        )
        return kept

    def _too_fast(
        self, modes: FlowModes, v: Complex[Tensor, "batch ky kx"], end: float
    ) -> Bool[Tensor, " batch"]:
        """Return true for samples that the step cannot follow, or not within ten million steps."""
        rates = modes.advection_rates(v)
        if self.step is None:
            return rates * end > MOST_STEPS * self.courant
        fast = rates * self.step > LARGEST_COURANT
        if bool(fast.all()):
            largest = LARGEST_COURANT / float(rates.max())
            raise ValueError(
                f"a time step of {self.step:g} is unstable here: the flow crosses the grid's smallest scales at a rate "
                f"of {float(rates.min()):.3g} or more; use step <= {largest:.2g}, or leave it out"
            )
        return fast
