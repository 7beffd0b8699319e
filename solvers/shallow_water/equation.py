"""The shallow-water equations on a rotating sphere."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.grids.sphere import SphereGrid
from sobolev.grids.spherical_vectors import velocity
from sobolev.solvers.adjoints import STEPS, advanced
from sobolev.solvers.integrators import (
    LARGEST_COURANT,
    Number,
    SolutionError,
    Times,
    as_number,
    check_times,
    refuse_gradients,
)
from sobolev.solvers.shallow_water.flow import SphericalFlow, States, truncation


class ShallowWater:
    """Vorticity, divergence and geopotential of a shallow layer on a rotating sphere.

        ζ_t = −∇·((ζ + f) u) − D ζ
        δ_t = k·∇×((ζ + f) u) − ∇²(Φ + ½|u|²) − D δ
        Φ_t = −∇·(Φ u)

    A state is ``(..., 3, lat, lon)``: relative vorticity ζ (1/s), divergence δ (1/s) and the full
    geopotential Φ = g h (m²/s²) of the depth h, not its deviation from a mean.

    Spectral in space, float64, triangular truncation to T degrees, where T is the largest that the
    grid carries free of quadratic aliasing (T = 86, "T85", on 128 × 256 Gauss nodes or 256 × 512
    equiangular ones; see ``truncation``); products are formed on Gauss nodes whatever the grid of
    the state. In time ETDRK4: gravity waves about the sample's own mean depth, which the
    conservation of mass fixes, and hyperdiffusion are integrated exactly, so that the step follows
    the wind and not the waves, which are neither slowed nor damped.

    Args:
        radius: of the sphere, in m.
        rotation: Ω, in 1/s, a number or a tensor that may want gradients.
        gravity: g, in m/s².
        hyperdiffusion: rate in 1/s at which the last degree decays under D ∝ ∇⁸ on vorticity and
            divergence (degree 1, solid rotation, is exempt: it carries the angular momentum). 0 for
            none. A number or a tensor that may want gradients.
        tilt: angle in rad between the rotation axis and the grid's (α of Williamson et al. 1992).
        step: time step in s, shortened to divide the time between outputs. By default each sample
            takes steps of at most ``courant`` / (k U + 2Ω), rounded down to a power of √2 seconds so
            that samples of one step share a batch, and measured anew at every output time. k is the
            largest wavenumber and U = max|u| + max|Φ − Φ̄|/√Φ̄, the wind and what gravity waves can
            add to it. Samples never depend on their batch.
        courant: the constant in that rule; the scheme is stable up to about 2.8.

    >>> grid = SphereGrid(16, 32)
    >>> rest = torch.zeros(1, 3, 16, 32, dtype=torch.float64)
    >>> rest[:, 2] = 9.8e4
    >>> equation = ShallowWater()
    >>> equation.solve(rest, grid, [0, 3600.0]).shape
    torch.Size([1, 2, 3, 16, 32])
    >>> round(equation.mass(rest, grid).item() / 5.1e18, 2)  # 10 km of depth over 5.1e14 m²
    1.0
    """

    def __init__(
        self,
        radius: float = 6.37122e6,
        rotation: Number = 7.292e-5,
        gravity: float = 9.80616,
        *,
        hyperdiffusion: Number = 1 / 7200,
        tilt: float = 0.0,
        step: float | None = None,
        courant: float = 0.7,
    ) -> None:
        refuse_gradients(radius=radius, gravity=gravity, tilt=tilt, step=step, courant=courant)
        if not (radius > 0 and gravity > 0 and math.isfinite(radius) and math.isfinite(gravity)):
            raise ValueError(f"need a positive radius and gravity, got {radius=}, {gravity=}")
        if not (math.isfinite(as_number(rotation)) and math.isfinite(tilt)):
            raise ValueError(f"need a finite rotation and tilt, got {rotation=}, {tilt=}")
        if not 0 <= as_number(hyperdiffusion) < math.inf:
            raise ValueError(f"hyperdiffusion must be at least 0, got {hyperdiffusion}")
        if step is not None and not (step > 0 and math.isfinite(step)):
            raise ValueError(f"step must be positive, got {step}")
        if not 0 < courant <= LARGEST_COURANT:
            raise ValueError(f"courant must lie in (0, 2.8], got {courant}")
        self.radius = radius
        self.rotation = rotation
        self.gravity = gravity
        self.hyperdiffusion = hyperdiffusion
        self.tilt = tilt
        self.step = step
        self.courant = courant

    def solve(
        self, state: Float[Tensor, " ..."], grid: SphereGrid, times: Times
    ) -> Float[Tensor, "batch *time 3 lat lon"]:
        """Return the state at one or several times; differentiable in it, in the rotation and in the
        hyperdiffusion. The backward pass keeps the state of every eighth step.

        Args:
            state: ``(batch, 3, lat, lon)``; a mean of vorticity or divergence is ignored.
            grid: of radius 1 or of the equation's.
            times: a time in s, or a rising sequence of times; 0 gives the state itself.

        Returns:
            ``(batch, 3, lat, lon)`` for a single time, ``(batch, time, 3, lat, lon)`` for a
            sequence; computed in float64, returned in the dtype of ``state``.

        Raises:
            ValueError: for a state or grid that does not fit, a depth that is not positive, or an
                unstable ``step`` (naming the largest stable one).
            SolutionError: if samples blow up or run dry; it names them and carries the others.
        """
        self._check(state, grid)
        moments, single = check_times(times)
        flow = self.flow(grid, state.device)
        v = flow.coefficients(state, grid)
        self._check_step(flow, v)
        alive = torch.arange(len(state), device=state.device)
        frames = []
        now = 0.0
        for moment in moments:
            frame = state.double() if moment == 0 else torch.full_like(state, math.nan).double()
            if moment > 0 and len(alive):
                v = self._advanced(flow, v, moment - now)
                now = moment
                fields = flow.fields(v, grid)
                sound = fields.isfinite().flatten(1).all(1) & (fields[:, 2] > 0).flatten(1).all(1)
                alive = alive[sound]
                v = v[:, :, :, sound]
                frame[alive] = fields[sound]
            frames.append(frame)
        solution = torch.stack(frames, dim=1).to(state.dtype)
        return self._checked(solution[:, 0] if single else solution, solution, moments)

    def velocity(
        self, state: Float[Tensor, "*batch 3 lat lon"], grid: SphereGrid
    ) -> Float[Tensor, "*batch 2 lat lon"]:
        """Return the wind in m/s, eastward and northward."""
        vorticity, divergence, _ = self._parts(state, grid)
        return velocity(vorticity, divergence, self.sphere(grid))

    def height(
        self, state: Float[Tensor, "*batch 3 lat lon"], grid: SphereGrid
    ) -> Float[Tensor, "*batch lat lon"]:
        """Return the depth h = Φ/g in m."""
        return self._parts(state, grid)[2] / self.gravity

    def mass(
        self, state: Float[Tensor, "*batch 3 lat lon"], grid: SphereGrid
    ) -> Float[Tensor, "*batch"]:
        """Return ∫ h dA in m³; conserved."""
        return self._integral(self.height(state, grid), grid)

    def energy(
        self, state: Float[Tensor, "*batch 3 lat lon"], grid: SphereGrid
    ) -> Float[Tensor, "*batch"]:
        """Return ∫ ½ h |u|² + ½ g h² dA in m⁵/s²; conserved but for hyperdiffusion."""
        h = self.height(state, grid)
        speed2 = self.velocity(state, grid).square().sum(dim=-3)
        return self._integral((h * speed2 + self.gravity * h**2) / 2, grid)

    def potential_enstrophy(
        self, state: Float[Tensor, "*batch 3 lat lon"], grid: SphereGrid
    ) -> Float[Tensor, "*batch"]:
        """Return ∫ ½ (ζ + f)²/h dA in m/s²; conserved but for hyperdiffusion."""
        coriolis = self.coriolis(*grid.points(state.device)).to(state.dtype)
        absolute = self._parts(state, grid)[0] + coriolis
        return self._integral(absolute**2 / (2 * self.height(state, grid)), grid)

    def coriolis(
        self, latitude: Float[Tensor, " lat"], longitude: Float[Tensor, " lon"]
    ) -> Float[Tensor, "lat lon"]:
        """Return f = 2Ω sin of the latitude about the rotation axis."""
        return 2 * self.rotation * self.axial_sine(latitude, longitude)

    def axial_sine(
        self, latitude: Float[Tensor, " lat"], longitude: Float[Tensor, " lon"]
    ) -> Float[Tensor, "lat lon"]:
        """Return the sine of the latitude about the rotation axis, from the grid's own."""
        upright = math.cos(self.tilt) * latitude.sin()[:, None]
        return upright - math.sin(self.tilt) * latitude.cos()[:, None] * longitude.cos()

    def sphere(self, grid: SphereGrid) -> SphereGrid:
        """Return ``grid`` with the radius of the equation.

        Raises:
            ValueError: if its radius is neither that nor 1, or it is too coarse.
        """
        if not isinstance(grid, SphereGrid):
            raise ValueError(f"shallow water is solved on a SphereGrid, got {type(grid).__name__}")
        if grid.radius != 1 and not math.isclose(grid.radius, self.radius, rel_tol=1e-9):
            raise ValueError(
                f"the grid has radius {grid.radius:g}, the equation {self.radius:g}; give both the same, or the grid "
                "radius 1 to use its angles alone"
            )
        if truncation(grid) < 4:
            raise ValueError(f"shallow water needs at least 5 × 10 Gauss nodes, got {grid}")
        return replace(grid, radius=self.radius)

    def flow(self, grid: SphereGrid, device: torch.device) -> SphericalFlow:
        """Return the spatial discretisation for states on ``grid``."""
        return SphericalFlow(
            truncation(grid),
            device,
            radius=self.radius,
            hyperdiffusion=self.hyperdiffusion,
            coriolis=self.coriolis,
        )

    def _advanced(self, flow: SphericalFlow, v: States, interval: float) -> States:
        """Return ``v`` after ``interval``, the samples of each step size together."""
        counts = self._counts(flow, v, interval)
        result = torch.empty_like(v)
        for count in sorted(set(counts)):
            members = torch.tensor([i for i, c in enumerate(counts) if c == count], device=v.device)
            part = v.index_select(3, members)
            stepper = flow.stepper(part, interval / count)
            z = stepper.to_waves(part)
            for first in range(0, count, STEPS):
                z = advanced(stepper, z, min(STEPS, count - first))
                if not bool(z[0, 0, 1, :, 0, 0].isfinite().any()):
                    break  # a lost sample loses every mode, the mean geopotential too
            result.index_copy_(3, members, stepper.from_waves(z))
        return result

    def _counts(self, flow: SphericalFlow, v: States, interval: float) -> list[int]:
        """Return the number of steps for each sample."""
        if self.step is not None:
            return [max(1, math.ceil(interval / self.step - 1e-9))] * v.shape[3]
        steps = [self.courant / rate for rate in flow.rates(v).tolist()]
        rungs = [2 ** (math.floor(2 * math.log2(step)) / 2) for step in steps]
        return [max(1, math.ceil(interval / rung - 1e-9)) for rung in rungs]

    def _check_step(self, flow: SphericalFlow, v: States) -> None:
        """Refuse a step that is unstable for any sample."""
        rates = flow.rates(v)
        largest = LARGEST_COURANT / float(rates.max())
        if self.step is not None and self.step > largest:
            raise ValueError(
                f"step={self.step:g} s is unstable for sample {int(rates.argmax())}; the largest stable step is "
                f"{largest:.4g} s (step=None chooses one)"
            )

    def _checked(
        self,
        result: Float[Tensor, "batch *time 3 lat lon"],
        solution: Float[Tensor, "batch frame 3 lat lon"],
        moments: list[float],
    ) -> Float[Tensor, "batch *time 3 lat lon"]:
        """Return ``result`` unless a frame of ``solution`` was lost."""
        lost = solution.isnan().flatten(2).any(2)
        if not bool(lost.any()):
            return result
        status = lost.any(1).to(torch.int8) * SolutionError.STATUS.index("blown_up")
        first = moments[int(lost.any(0).to(torch.int8).argmax())]
        names = ", ".join(map(str, status.nonzero().flatten().tolist()))
        raise SolutionError(
            f"the shallow-water solution of sample {names} blew up or ran dry, first by t = {first:g} s; use a smaller "
            f"step or courant, more hyperdiffusion, or a gentler state",
            result,
            status,
        )

    def _parts(
        self, state: Float[Tensor, " ..."], grid: SphereGrid
    ) -> tuple[Float[Tensor, "*batch lat lon"], ...]:
        """Return vorticity, divergence and geopotential, checked."""
        self.sphere(grid)
        grid.check(state)
        if state.ndim < 3 or state.shape[-3] != 3:
            raise ValueError(
                f"expected states of shape (..., 3, {grid.nlat}, {grid.nlon}) – vorticity, divergence, geopotential – "
                f"got {tuple(state.shape)}"
            )
        return state.unbind(-3)

    def _integral(
        self, u: Float[Tensor, "*batch lat lon"], grid: SphereGrid
    ) -> Float[Tensor, "*batch"]:
        return (u * self.sphere(grid).quadrature(u.device).to(u.dtype)).sum((-2, -1))

    def _check(self, state: Float[Tensor, " ..."], grid: SphereGrid) -> None:
        geopotential = self._parts(state, grid)[2]
        if state.ndim != 4 or not len(state):
            raise ValueError(
                f"expected states of shape (batch, 3, lat, lon), got {tuple(state.shape)}"
            )
        if not bool(state.isfinite().all()):
            raise ValueError("the initial states hold values that are not finite")
        least = geopotential.flatten(1).amin(1)
        if not bool((least > 0).all()):
            i = int(least.argmin())
            raise ValueError(
                f"the depth of sample {i} is not positive: its geopotential falls to {float(least[i]):.4g} m²/s²; the "
                "third channel is the full g h, not its deviation from a mean"
            )
