"""Two-dimensional incompressible flow on a torus, in vorticity form."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sobolev.grids.grid import Grid
from sobolev.grids.norms import energy_spectrum
from sobolev.solvers.integrators import ETDRK4, SolutionError, Times, check_times

Forcing = Tensor | Callable[[Tensor, Tensor], Tensor] | None
"""A vorticity source on the grid, a function of the points' y and x, or none."""

_STABLE = 2.8
"""|λ| Δt up to which the classical fourth-order Runge–Kutta method damps advection, λ = i U k."""


_MOST_STEPS = 1e7
"""A solve that needs more is given up: the flow runs away."""


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
        viscosity: float,
        forcing: Forcing = None,
        *,
        drag: float = 0.0,
        beta: float = 0.0,
        step: float | None = None,
        courant: float = 0.5,
    ) -> None:
        for name, value in (("viscosity", viscosity), ("drag", drag)):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if step is not None and not (step > 0 and math.isfinite(step)):
            raise ValueError(f"the time step must be positive, got {step}")
        if not 0 < courant <= _STABLE:
            raise ValueError(f"courant must lie between 0 and {_STABLE}, got {courant}")
        if not math.isfinite(beta):
            raise ValueError(f"beta must be finite, got {beta}")
        self.viscosity, self.forcing, self.drag, self.beta = viscosity, forcing, drag, beta
        self.step, self.courant = step, courant

    @torch.no_grad()
    def solve(self, vorticity: Tensor, grid: Grid, times: Times) -> Tensor:
        """The vorticity at one or several times.

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
        _check(vorticity, grid)
        moments, single = check_times(times)
        modes = _Modes(grid, vorticity.device)
        v = modes.transform(vorticity.double())
        _check_resolved(vorticity, modes, v)
        forcing = self._forcing(grid, modes, vorticity)
        failures = _Failures(len(v), v.device)
        v = failures.drop(v, self._too_fast(modes, v, moments[-1]), 0.0)
        advance = _Advance(self, modes, self._symbol(modes), forcing, failures, moments[-1])
        frames, now = [], 0.0
        for moment in moments:
            if moment == 0:
                frames.append(vorticity.double())
                continue
            v, now = advance(v, now, moment), moment
            frames.append(failures.observe(moment, modes, v))
        solution = torch.stack(frames, dim=1)
        result = (solution[:, 0] if single else solution).to(vorticity.dtype)
        failures.report(result, self.viscosity, grid)
        return result

    def residual(self, vorticity: Tensor, time_derivative: Tensor, grid: Grid) -> Tensor:
        """ω_t + u·∇ω + βv − νΔω + μω − f for fields and their time derivatives, both ``(batch, y,
        x)``; differentiable.

        Zero for an exact solution, up to what the grid resolves (the 2/3 rule applies).
        """
        _check(vorticity, grid)
        grid.check(time_derivative)
        modes = _Modes(grid, vorticity.device)
        v = modes.transform(vorticity.double())
        forcing = self._forcing(grid, modes, vorticity)
        right = self._symbol(modes) * v + modes.advection(v)
        right = right if forcing is None else right + forcing
        return time_derivative - modes.inverse(right).to(vorticity.dtype)

    def in_modes(self, grid: Grid, like: Tensor) -> FlowInModes:
        """The equation for the modes that the 2/3 rule keeps on ``grid``, on the device of ``like``,
        fields of vorticity ``(batch, y, x)``."""
        _check(like, grid)
        modes = _Modes(grid, like.device)
        return FlowInModes(modes, self._symbol(modes), self._forcing(grid, modes, like))

    def _symbol(self, modes: _Modes) -> Tensor:
        damping = -self.viscosity * modes.k2 - self.drag
        if not self.beta:
            return damping
        # β v with v̂ = −i kx ω̂ / |k|²
        return torch.complex(damping, self.beta * modes.kx.expand_as(damping) * modes.inverse_k2)

    def _forcing(self, grid: Grid, modes: _Modes, like: Tensor) -> Tensor | None:
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
        _check_mean(f, "forcing")
        kept = modes.transform(f)
        _check_resolved(
            f.reshape(-1, *grid.shape), modes, kept.reshape(-1, *kept.shape[-2:]), "forcing"
        )
        return kept

    def _too_fast(self, modes: _Modes, v: Tensor, end: float) -> Tensor:
        """Which samples the step cannot follow, or cannot within ten million steps."""
        rates = modes.advection_rates(v)
        if self.step is None:
            return rates * end > _MOST_STEPS * self.courant
        fast = rates * self.step > _STABLE
        if bool(fast.all()):
            raise ValueError(
                f"a time step of {self.step:g} is unstable here: the flow crosses the grid's smallest scales at a rate "
                f"of {float(rates.min()):.3g} or more; use step <= {_STABLE / float(rates.max()):.2g}, or leave it out"
            )
        return fast

    def largest_step(self, rate: float, forcing_rate: float) -> float:
        """The step for a flow of this advection rate, under a force that makes so much more of it
        per unit of time."""
        if self.step is not None:
            return self.step
        return self.courant / max(rate, math.sqrt(self.courant * forcing_rate), 1e-300)


def velocity(vorticity: Tensor, grid: Grid) -> Tensor:
    """(u, v) = (ψ_y, −ψ_x) of a vorticity on the torus, ``(..., y, x) -> (..., 2, y, x)``."""
    modes = _modes_of(vorticity, grid)
    z = modes.velocity(modes.transform(vorticity.double()))
    return torch.stack([z.real, z.imag], dim=-3).to(vorticity.dtype)


def stream_function(vorticity: Tensor, grid: Grid) -> Tensor:
    """ψ with −Δψ = ω and mean zero, ``(..., y, x)``."""
    modes = _modes_of(vorticity, grid)
    return modes.inverse(modes.transform(vorticity.double()) * modes.inverse_k2).to(vorticity.dtype)


def energy(vorticity: Tensor, grid: Grid) -> Tensor:
    """Kinetic energy ½∫|u|², shape ``(...)``."""
    return velocity(vorticity, grid).square().sum(dim=(-3, -2, -1)) * _cell(grid) / 2


def enstrophy(vorticity: Tensor, grid: Grid) -> Tensor:
    """Enstrophy ½∫ω², shape ``(...)``."""
    grid.check(vorticity)
    return vorticity.square().sum(dim=(-2, -1)) * _cell(grid) / 2


def kinetic_energy_spectrum(vorticity: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Kinetic energy per shell of wavenumber: ``(shells,)`` and ``(..., shells)``, summing to
    ``energy``."""
    wavenumbers, both = energy_spectrum(velocity(vorticity, grid), grid)
    return wavenumbers, both.sum(dim=-2) / 2


def band_limited(vorticity: Tensor, grid: Grid) -> Tensor:
    """``vorticity`` cut to the modes that the 2/3 rule keeps on ``grid``, without its mean."""
    modes = _modes_of(vorticity, grid, dealiased=True)
    return modes.inverse(modes.transform(vorticity.double())).to(vorticity.dtype)


class _Modes:
    """The Fourier modes that the 2/3 rule keeps, or all but the Nyquist modes for linear maps: ky =
    −K … K in rows, kx = 0 … K in columns.

    Storing them from −K upwards, rather than in the order of the FFT, turns the field on the nodes
    by a phase e^{−iKx} per axis and its square by e^{−2iKx}; the square's modes −K … K are then the
    entries K … 3K of its transform, in one piece, since 3K < n. Padding and cutting are slices.
    """

    def __init__(self, grid: Grid, device: torch.device, *, dealiased: bool = True) -> None:
        self.grid = grid
        self.shape = grid.shape
        self.Ky, self.Kx = ((n - 1) // (3 if dealiased else 2) for n in grid.shape)
        base_y, base_x = (2 * math.pi / axis.length for axis in grid.axes)
        integers = torch.arange(-max(self.Ky, self.Kx), max(self.Ky, self.Kx) + 1, device=device)
        whole = integers.double()
        self.ky = base_y * whole[integers.abs() <= self.Ky][:, None]
        self.kx = base_x * whole[(integers >= 0) & (integers <= self.Kx)]
        self.k2 = self.ky**2 + self.kx**2
        self.inverse_k2 = torch.where(self.k2 > 0, 1 / self.k2.clamp(min=1e-300), 0.0)
        self.to_velocity = torch.complex(self.kx.expand_as(self.k2), self.ky.expand_as(self.k2))
        self.to_velocity = self.to_velocity * self.inverse_k2
        self.to_opposite_velocity = -self.to_velocity[:, 1:].flip(-2, -1)
        # −(i/4)(kx − i ky)², and the size of the unscaled transform
        to_advection = torch.complex(self.kx.expand_as(self.k2), -self.ky.expand_as(self.k2)) ** 2
        self.to_advection = to_advection * (-0.25j / (grid.shape[0] * grid.shape[1]))
        self.mean = (self.Ky, 0)

    def transform(self, u: Tensor) -> Tensor:
        """Kept modes of a real field, ``(..., y, x) -> (..., 2K + 1, K + 1)``; the mean is cleared."""
        full = torch.fft.rfft2(u, norm="forward")[..., : self.Kx + 1]
        kept = torch.cat([full[..., -self.Ky :, :], full[..., : self.Ky + 1, :]], dim=-2)
        return kept * (self.k2 > 0)

    def inverse(self, v: Tensor) -> Tensor:
        """The real field of kept modes."""
        ny, nx = self.shape
        full = v.new_zeros((*v.shape[:-2], ny, nx // 2 + 1))
        full[..., : self.Ky + 1, : self.Kx + 1] = v[..., self.Ky :, :]
        full[..., ny - self.Ky :, : self.Kx + 1] = v[..., : self.Ky, :]
        return torch.fft.irfft2(full, s=self.shape, norm="forward")

    def velocity(self, v: Tensor) -> Tensor:
        """u + iv on the nodes."""
        u_modes = v * (1j * self.ky * self.inverse_k2)
        v_modes = v * (-1j * self.kx * self.inverse_k2)
        return torch.complex(self.inverse(u_modes), self.inverse(v_modes))

    def advection_rates(self, v: Tensor) -> Tensor:
        """The largest |u| kx + |v| ky over the nodes of each sample, 0 for those that are lost."""
        z = torch.view_as_real(self.velocity(v)).abs()
        fastest = (z[..., 0] * self.kx.amax() + z[..., 1] * self.ky.amax()).flatten(-2).amax(dim=-1)
        return torch.nan_to_num(fastest, 0.0, 0.0, 0.0)

    def advection(self, v: Tensor) -> Tensor:
        """−(u·∇ω)^ from the kept modes ``v`` of ω."""
        return self.advection_from(self.padded(v))

    def padded(self, v: Tensor, buffer: Tensor | None = None) -> Tensor:
        """The modes of u + iv from −K to K in the corner of an array of zeros."""
        if buffer is None:
            buffer = v.new_zeros((*v.shape[:-2], *self.shape))
        rows, middle, columns = 2 * self.Ky + 1, self.Kx, 2 * self.Kx + 1
        buffer[..., :rows, middle:columns] = v * self.to_velocity
        opposite = v[..., 1:].flip(-2, -1).conj()  # ω̂(−k) = ω̂(k)*
        buffer[..., :rows, :middle] = opposite * self.to_opposite_velocity
        return buffer

    def advection_from(self, padded: Tensor) -> Tensor:
        """Transform, square, transform back, and take the modes of the two real products apart."""
        z = torch.fft.ifft2(padded, norm="forward")
        return self.advection_of(z * z)

    def advection_of(self, square: Tensor) -> Tensor:
        """−(u·∇ω)^ from z² on the nodes; linear in it."""
        squared = torch.fft.fft2(square)[..., self.Ky : 3 * self.Ky + 1, :]
        here = squared[..., 2 * self.Kx : 3 * self.Kx + 1]
        opposite = squared[..., self.Kx : 2 * self.Kx + 1].flip(-2, -1)
        return (self.to_advection * opposite).conj().addcmul(self.to_advection, here)


class FlowInModes:
    """v_t = σ v − (u·∇ω)^ + f̂ for the modes v of the vorticity that the 2/3 rule keeps, ``(..., 2K + 1,
    K + 1)``: ky = −K … K in rows, kx = 0 … K in columns.

    Those with kx = 0 > ky follow from the others. They are not read, so that the others are free
    variables, and count nothing in ``multiplicity``.
    """

    def __init__(self, modes: _Modes, symbol: Tensor, forcing: Tensor | None) -> None:
        self._modes, self.symbol, self.forcing = modes, symbol, forcing
        self.eigenvalues = modes.k2
        """|k|², those of −Δ."""
        self.transform, self.inverse = modes.transform, modes.inverse
        area = math.prod(axis.length for axis in modes.grid.axes)
        self.multiplicity = torch.full_like(modes.k2, 2 * area)
        """How much |v|² contributes to ∫ω²: Σ multiplicity |v|² = ‖ω‖²."""
        self.multiplicity[: modes.Ky + 1, 0] = 0.0

    def completed(self, v: Tensor) -> Tensor:
        """``v`` with the modes that follow from the others, ω̂(−k) = ω̂(k)*, and without the mean."""
        K = self._modes.Ky
        zero = torch.zeros_like(v[..., :1, :1])
        column = torch.cat([v[..., K + 1 :, :1].flip(-2).conj(), zero, v[..., K + 1 :, :1]], dim=-2)
        return torch.cat([column, v[..., 1:]], dim=-1)

    def velocity(self, v: Tensor) -> Tensor:
        """z = u + iv on the nodes, linear in ``v``."""
        return torch.fft.ifft2(self._modes.padded(self.completed(v)), norm="forward")

    def residual(self, v: Tensor, rate: Tensor, z: Tensor) -> Tensor:
        """v_t − σ v + (u·∇ω)^ − f̂ of modes ``v`` with the time derivative ``rate`` and velocity ``z``."""
        residual = rate - self.symbol * v - self._modes.advection_of(z * z)
        return residual if self.forcing is None else residual - self.forcing

    def tangent(self, v: Tensor, rate: Tensor, z: Tensor) -> Tensor:
        """The derivative of ``residual`` about a flow of velocity ``z`` in the direction ``v``, which has
        the time derivative ``rate``."""
        return rate - self.symbol * v - self._modes.advection_of(2 * z * self.velocity(v))

    def advection(self, v: Tensor) -> Tensor:
        """(u·∇ω)^: what ``residual`` has beyond its tangent."""
        return -self._modes.advection_of(self.velocity(v).square())


class _Advance:
    """Steps from one output time to the next; the step is measured anew every few steps."""

    RECHECK = 8

    def __init__(
        self,
        flow: NavierStokes,
        modes: _Modes,
        symbol: Tensor,
        forcing: Tensor | None,
        failures: _Failures,
        end: float,
    ) -> None:
        self.flow, self.modes, self.symbol, self.failures, self.end = (
            flow,
            modes,
            symbol,
            failures,
            end,
        )
        self.right_side = _RightSide(modes, forcing, len(failures.status))
        self.forcing_rate = 0.0
        if forcing is not None:
            self.forcing_rate = float(modes.advection_rates(forcing).max())
            if flow.step is None and end / flow.largest_step(0.0, self.forcing_rate) > _MOST_STEPS:
                raise ValueError(
                    f"the forcing drives the flow so hard that it would take over {_MOST_STEPS:.0e} steps; use shorter "
                    "times or a weaker forcing"
                )
        self.step = math.nan
        self.stepper: ETDRK4 | None = None

    def __call__(self, v: Tensor, now: float, moment: float) -> Tensor:
        left = moment - now
        while left > 0:
            rates = self.modes.advection_rates(v)
            if self.flow.step is None:
                runaway = rates * self.end > _MOST_STEPS * self.flow.courant
                v = self.failures.drop(v, runaway, moment - left)
                rates = rates * ~runaway
            count, stepper = self._stepper(left, float(rates.max()))
            some = min(count, self.RECHECK)
            for _ in range(some):
                v = stepper.step(v)
            left = left * (count - some) / count
        return v

    def _stepper(self, left: float, rate: float) -> tuple[int, ETDRK4]:
        """Steps that divide what is left of the interval; the last ones again while they fit."""
        largest = self.flow.largest_step(rate, self.forcing_rate)
        if self.stepper is not None and largest / 2 <= self.step <= largest * (1 + 1e-9):
            count = round(left / self.step)
            if math.isclose(count * self.step, left, rel_tol=1e-9):
                return count, self.stepper
        count = max(1, math.ceil(left / largest - 1e-9))
        if self.stepper is None or not math.isclose(self.step, left / count, rel_tol=1e-9):
            self.step = left / count
            self.stepper = ETDRK4(self.symbol, self.right_side, self.step)
        return count, self.stepper


class _RightSide:
    """The nonlinear term and the forcing, with the padded array kept from call to call."""

    def __init__(self, modes: _Modes, forcing: Tensor | None, batch: int) -> None:
        self.modes, self.forcing = modes, forcing
        self.buffer = torch.zeros(
            (batch, *modes.shape), dtype=torch.complex128, device=modes.k2.device
        )

    def __call__(self, v: Tensor) -> Tensor:
        advection = self.modes.advection_from(self.modes.padded(v, self.buffer))
        return advection if self.forcing is None else advection.add_(self.forcing)


class _Failures:
    """Which samples of a batch failed, when and how."""

    TAIL, UNRESOLVED = 0.9, 1e-2

    def __init__(self, batch: int, device: torch.device) -> None:
        self.status = torch.zeros(batch, dtype=torch.int8, device=device)
        self.moment = torch.full((batch,), math.nan, dtype=torch.float64, device=device)
        self.palinstrophy = torch.zeros(batch, dtype=torch.float64, device=device)

    def drop(self, v: Tensor, lost: Tensor, moment: float) -> Tensor:
        """``v`` without the samples that are lost from ``moment`` on."""
        fresh = lost & (self.status == 0)
        self.moment = torch.where(fresh, moment, self.moment)
        self.status = torch.where(fresh, 1, self.status).to(torch.int8)
        return torch.where(lost[:, None, None], torch.full_like(v, math.nan), v)

    def observe(self, moment: float, modes: _Modes, v: Tensor) -> Tensor:
        """The fields at ``moment``, NaN where they have failed by then."""
        power = torch.view_as_real(v).square().sum(-1)
        power = torch.cat([power[..., :1] / 2, power[..., 1:]], dim=-1)  # kx = 0 is stored twice
        rim = (modes.ky.abs() >= self.TAIL * modes.ky.amax()) | (
            modes.kx >= self.TAIL * modes.kx.amax()
        )
        tail = (power * rim).sum(dim=(-2, -1))
        total = power.sum(dim=(-2, -1))
        broken = ~total.isfinite()
        unresolved = tail > self.UNRESOLVED * total
        fresh = self.status == 0
        self.palinstrophy = torch.where(
            fresh, 2 * (power * modes.k2).sum(dim=(-2, -1)), self.palinstrophy
        )
        self.moment = torch.where(fresh & (broken | unresolved), moment, self.moment)
        self.status = torch.where(fresh & unresolved, 2, self.status)
        self.status = torch.where(fresh & broken, 1, self.status).to(torch.int8)
        fields = modes.inverse(v)
        return torch.where((self.status == 0)[:, None, None], fields, math.nan)

    def report(self, solution: Tensor, viscosity: float, grid: Grid) -> None:
        if not bool(self.status.any()):
            return
        failed = self.status.nonzero()[:, 0].tolist()
        first = min(failed, key=lambda i: float(self.moment[i]))
        many = f"{len(failed)} of {len(self.status)} samples failed, the first is number {first}: "
        when = f"by time {float(self.moment[first]):g}"
        if self.status[first] == 1:
            text = f"it blew up {when}; use a smaller step or a finer grid"
        else:
            # the enstrophy cascade ends near (η/ν³)^{1/6}, with η = 2νP the rate of dissipation
            end = (2 * float(self.palinstrophy[first]) / max(viscosity, 1e-9) ** 2) ** (1 / 6)
            sizes = [math.ceil(3 * end * axis.length / (2 * math.pi)) for axis in grid.axes]
            sizes = [
                min(max(n, 3 * axis.size // 2), 16 * axis.size)
                for n, axis in zip(sizes, grid.axes, strict=True)
            ]
            text = (
                f"{when} more than {self.UNRESOLVED:g} of its enstrophy had gathered at the grid's cutoff; it needs "
                f"about {sizes[0]} × {sizes[1]} nodes"
            )
        raise SolutionError(many + text, solution, self.status)


def _check(vorticity: Tensor, grid: Grid) -> None:
    if (
        grid.ndim != 2
        or min(grid.shape) < 4
        or any(axis.boundary != "periodic" for axis in grid.axes)
    ):
        raise ValueError(
            f"Navier–Stokes is solved on two periodic axes of at least 4 nodes (Grid.periodic(ny, nx)), got {grid}"
        )
    grid.check(vorticity)
    if vorticity.ndim != 3 or not len(vorticity):
        raise ValueError(
            f"expected vorticities of shape (batch, y, x), got {tuple(vorticity.shape)}"
        )
    if not bool(vorticity.isfinite().all()):
        raise ValueError("the vorticity holds values that are not finite")
    _check_mean(vorticity, "vorticity")


def _check_mean(field: Tensor, what: str) -> None:
    scale, mean = (float(value.detach().abs().max()) for value in (field, field.mean(dim=(-2, -1))))
    room = 1e-4 if field.dtype == torch.float32 else 1e-8
    if mean > room * scale:
        raise ValueError(
            f"the {what} of a flow on the torus has zero mean, got a mean of {mean:.2g} beside values up to "
            f"{scale:.2g}; subtract it"
        )


def _check_resolved(vorticity: Tensor, modes: _Modes, v: Tensor, what: str = "vorticity") -> None:
    """The initial field and the forcing must lie within the kept modes."""
    lost = (vorticity - modes.inverse(v)).flatten(1).norm(dim=1)
    share = lost / vorticity.flatten(1).norm(dim=1).clamp(min=1e-300)
    if bool((share > 1e-3).any()):
        worst = int(share.argmax())
        needed = tuple(3 * n // 2 + 1 for n in modes.shape)
        raise ValueError(
            f"the {what} of sample {worst} has {100 * float(share[worst]):.2g} % of its norm in modes that the 2/3 "
            f"rule cuts off; resample it to {needed[0]} × {needed[1]} nodes (grid.resample), or cut it with "
            "band_limited"
        )


def _modes_of(vorticity: Tensor, grid: Grid, *, dealiased: bool = False) -> _Modes:
    _check(vorticity.reshape(-1, *vorticity.shape[-2:]), grid)
    return _Modes(grid, vorticity.device, dealiased=dealiased)


def _cell(grid: Grid) -> float:
    return grid.axes[0].spacing * grid.axes[1].spacing
