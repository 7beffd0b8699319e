"""The equation of a flow in its modes, and steps in time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Inexact
from torch import Tensor

from sobolev.solvers.adjoints import Gradients, advanced
from sobolev.solvers.integrators import ETDRK4
from sobolev.solvers.navier_stokes.failures import FlowFailures
from sobolev.solvers.navier_stokes.modes import FlowModes

MOST_STEPS = 1e7
"""A solve that needs more is given up: the flow runs away."""


class FlowInModes:
    """v_t = σ v − (u·∇ω)^ + f̂ for the modes v of the vorticity that the 2/3 rule keeps, ``(..., 2K + 1,
    K + 1)``: ky = −K … K in rows, kx = 0 … K in columns.

    Those with kx = 0 > ky follow from the others. They are not read, so that the others are free
    variables, and count nothing in ``multiplicity``.
    """

    def __init__(
        self,
        modes: FlowModes,
        symbol: Inexact[Tensor, "ky kx"],
        forcing: Complex[Tensor, "*batch ky kx"] | None,
    ) -> None:
        self._modes = modes
        self.symbol = symbol
        self.forcing = forcing
        self.eigenvalues = modes.k2
        """|k|², those of −Δ."""
        self.transform = modes.transform
        self.inverse = modes.inverse
        area = math.prod(axis.length for axis in modes.grid.axes)
        self.multiplicity = torch.full_like(modes.k2, 2 * area)
        """The share of |v|² in ∫ω²: Σ multiplicity |v|² = ‖ω‖²."""
        self.multiplicity[: modes.Ky + 1, 0] = 0.0

    def completed(self, v: Complex[Tensor, "*batch ky kx"]) -> Complex[Tensor, "*batch ky kx"]:
        """Return ``v`` with the modes that follow from the others, ω̂(−k) = ω̂(k)*, and without the mean."""
        K = self._modes.Ky
        zero = torch.zeros_like(v[..., :1, :1])
        column = torch.cat([v[..., K + 1 :, :1].flip(-2).conj(), zero, v[..., K + 1 :, :1]], dim=-2)
        return torch.cat([column, v[..., 1:]], dim=-1)

    def velocity(self, v: Complex[Tensor, "*batch ky kx"]) -> Complex[Tensor, "*batch y x"]:
        """Return z = u + iv on the nodes, turned by the phase of ``FlowModes``; linear in ``v``."""
        return torch.fft.ifft2(self._modes.padded(self.completed(v)), norm="forward")

    def residual(
        self,
        v: Complex[Tensor, "*batch ky kx"],
        rate: Complex[Tensor, "*batch ky kx"],
        z: Complex[Tensor, "*batch y x"],
    ) -> Complex[Tensor, "*batch ky kx"]:
        """Return v_t − σ v + (u·∇ω)^ − f̂ of modes ``v`` with the time derivative ``rate`` and velocity
        ``z``."""
        residual = rate - self.symbol * v - self._modes.advection_of(z * z)
        return residual if self.forcing is None else residual - self.forcing

    def tangent(
        self,
        v: Complex[Tensor, "*batch ky kx"],
        rate: Complex[Tensor, "*batch ky kx"],
        z: Complex[Tensor, "*batch y x"],
    ) -> Complex[Tensor, "*batch ky kx"]:
        """Return the derivative of ``residual`` about a flow of velocity ``z`` in the direction ``v``,
        which has the time derivative ``rate``."""
        return rate - self.symbol * v - self._modes.advection_of(2 * z * self.velocity(v))

    def advection(self, v: Complex[Tensor, "*batch ky kx"]) -> Complex[Tensor, "*batch ky kx"]:
        """Return (u·∇ω)^: the part of ``residual`` beyond its tangent."""
        return -self._modes.advection_of(self.velocity(v).square())


@dataclass(frozen=True)
class StepRule:
    """Time steps of a fixed length, or by a Courant number."""

    step: float | None
    courant: float

    def largest(self, rate: float, forcing_rate: float) -> float:
        """Return the step for a flow of this advection rate, under a force that makes so much more of it
        per unit of time."""
        if self.step is not None:
            return self.step
        return self.courant / max(rate, math.sqrt(self.courant * forcing_rate), 1e-300)


class FlowStepper:
    """Steps from one output time to the next; the step is measured anew every few steps."""

    RECHECK = 8

    def __init__(
        self,
        rule: StepRule,
        equation: FlowInModes,
        modes: FlowModes,
        failures: FlowFailures,
        end: float,
    ) -> None:
        self.rule = rule
        self.modes = modes
        self.symbol = equation.symbol
        self.failures = failures
        self.end = end
        self.right_side = RightSide(modes, equation.forcing, len(failures.status))
        self.forcing_rate = 0.0
        if equation.forcing is not None:
            self.forcing_rate = float(modes.advection_rates(equation.forcing.detach()).max())
            if rule.step is None and end / rule.largest(0.0, self.forcing_rate) > MOST_STEPS:
                raise ValueError(
                    f"the forcing drives the flow so hard that it would take over {MOST_STEPS:.0e} steps; use shorter "
                    "times or a weaker forcing"
                )
        self.step = math.nan
        self.stepper: ETDRK4 | None = None

    def advance(
        self, v: Complex[Tensor, "batch ky kx"], now: float, moment: float
    ) -> Complex[Tensor, "batch ky kx"]:
        """Return the modes at ``moment`` of a flow that has the modes ``v`` now."""
        left = moment - now
        while left > 0:
            rates = self.modes.advection_rates(v.detach())
            if self.rule.step is None:
                runaway = rates * self.end > MOST_STEPS * self.rule.courant
                v = self.failures.drop(v, runaway, moment - left)
                rates = rates * ~runaway
            count, stepper = self._stepper(left, float(rates.max()))
            some = min(count, self.RECHECK)
            v = advanced(stepper, v, some)
            left = left * (count - some) / count
        return v

    def _stepper(self, left: float, rate: float) -> tuple[int, ETDRK4]:
        """Return steps that divide what is left of the interval; the last ones again while they fit."""
        largest = self.rule.largest(rate, self.forcing_rate)
        if self.stepper is not None and largest / 2 <= self.step <= largest * (1 + 1e-9):
            count = round(left / self.step)
            if math.isclose(count * self.step, left, rel_tol=1e-9):
                return count, self.stepper
        count = max(1, math.ceil(left / largest - 1e-9))
        if self.stepper is None or not math.isclose(self.step, left / count, rel_tol=1e-9):
            self.step = left / count
            self.stepper = ETDRK4(self.symbol, self.right_side, self.step)
        return count, self.stepper


class RightSide:
    """The nonlinear term and the forcing, with the padded arrays kept from call to call."""

    def __init__(
        self, modes: FlowModes, forcing: Complex[Tensor, "*batch ky kx"] | None, batch: int
    ) -> None:
        self.modes = modes
        self.forcing = forcing
        self.parameters = () if forcing is None else (forcing,)
        shape = (batch, *modes.shape)
        self.buffer = torch.zeros(shape, dtype=torch.complex128, device=modes.k2.device)
        self._other_buffer: Complex[Tensor, "batch y x"] | None = None

    def __call__(self, v: Complex[Tensor, "batch ky kx"]) -> Complex[Tensor, "batch ky kx"]:
        kept = torch.is_grad_enabled() and v.requires_grad  # for the backward pass, beside the next
        advection = self.modes.advection_from(self.modes.padded(v, None if kept else self.buffer))
        return advection if self.forcing is None else advection.add_(self.forcing)

    def pullback(
        self, v: Complex[Tensor, "batch ky kx"], cotangent: Complex[Tensor, "batch ky kx"]
    ) -> tuple[Complex[Tensor, "batch ky kx"], *Gradients]:
        """Return the gradients of ⟨cotangent, self(v)⟩ in ``v`` and in the forcing."""
        if self._other_buffer is None:
            self._other_buffer = torch.zeros_like(self.buffer)
        found = self.modes.advection_pullback(v, cotangent, self.buffer, self._other_buffer)
        if self.forcing is None:
            return (found,)
        return found, cotangent if self.forcing.requires_grad else None
