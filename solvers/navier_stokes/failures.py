"""Fields that no flow can begin with, and samples of a batch that fail on the way."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from sobolev.grids.grid import Grid
from sobolev.solvers.integrators import SolutionError
from sobolev.solvers.navier_stokes.modes import FlowModes


class FlowFailures:
    """The samples of a batch that failed, the time and the kind of each failure."""

    TAIL = 0.9
    UNRESOLVED = 1e-2

    def __init__(self, batch: int, device: torch.device) -> None:
        self.status = torch.zeros(batch, dtype=torch.int8, device=device)
        self.moment = torch.full((batch,), math.nan, dtype=torch.float64, device=device)
        self.palinstrophy = torch.zeros(batch, dtype=torch.float64, device=device)

    def drop(
        self, v: Complex[Tensor, "batch ky kx"], lost: Bool[Tensor, " batch"], moment: float
    ) -> Complex[Tensor, "batch ky kx"]:
        """Return ``v`` without the samples that are lost from ``moment`` on."""
        fresh = lost & (self.status == 0)
        self.moment = torch.where(fresh, moment, self.moment)
        self.status = torch.where(fresh, 1, self.status).to(torch.int8)
        return torch.where(lost[:, None, None], torch.full_like(v, math.nan), v)

    def observe(
        self, moment: float, modes: FlowModes, v: Complex[Tensor, "batch ky kx"]
    ) -> Float[Tensor, "batch y x"]:
        """Return the fields at ``moment``, NaN where they have failed by then."""
        power = torch.view_as_real(v.detach()).square().sum(-1)
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

    def report(
        self, solution: Float[Tensor, "batch *time y x"], viscosity: float, grid: Grid
    ) -> None:
        """Raise a ``SolutionError`` that says what failed, if anything did."""
        if not bool(self.status.any()):
            return
        failed = self.status.nonzero()[:, 0].tolist()
        first = min(failed, key=lambda i: float(self.moment[i]))
        many = f"{len(failed)} of {len(self.status)} samples failed, the first is number {first}: "
        when = f"by time {float(self.moment[first]):g}"
        if self.status[first] == 1:
            text = f"it blew up {when}; use a smaller step or a finer grid"
        else:
            sizes = self._needed_sizes(float(self.palinstrophy[first]), viscosity, grid)
            text = (
                f"{when} more than {self.UNRESOLVED:g} of its enstrophy had gathered at the grid's cutoff; it needs "
                f"about {sizes[0]} × {sizes[1]} nodes"
            )
        raise SolutionError(many + text, solution, self.status)

    @staticmethod
    def _needed_sizes(palinstrophy: float, viscosity: float, grid: Grid) -> list[int]:
        # the enstrophy cascade ends near (η/ν³)^{1/6}, with η = 2νP the rate of dissipation
        end = (2 * palinstrophy / max(viscosity, 1e-9) ** 2) ** (1 / 6)
        sizes = [math.ceil(3 * end * axis.length / (2 * math.pi)) for axis in grid.axes]
        return [
            min(max(n, 3 * axis.size // 2), 16 * axis.size)
            for n, axis in zip(sizes, grid.axes, strict=True)
        ]


def check_vorticity(vorticity: Float[Tensor, " ..."], grid: Grid) -> None:
    """Refuse what is no batch of vorticities on a torus."""
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
    check_mean(vorticity, "vorticity")


def check_mean(field: Float[Tensor, "*batch y x"], what: str) -> None:
    """Refuse fields with a mean beyond rounding."""
    scale = float(field.detach().abs().max())
    mean = float(field.mean(dim=(-2, -1)).detach().abs().max())
    room = 1e-4 if field.dtype == torch.float32 else 1e-8
    if mean > room * scale:
        raise ValueError(
            f"the {what} of a flow on the torus has zero mean, got a mean of {mean:.2g} beside values up to "
            f"{scale:.2g}; subtract it"
        )


def check_resolved(
    vorticity: Float[Tensor, "batch y x"],
    modes: FlowModes,
    v: Complex[Tensor, "batch ky kx"],
    what: str = "vorticity",
) -> None:
    """Refuse an initial field or a forcing that does not lie within the kept modes ``v``."""
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
