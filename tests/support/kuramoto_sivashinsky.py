"""A recipe that sobolev does not know: it implements the abstract methods, and the mixins that it claims."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sobolev.datasets import Recipe, Variable
from sobolev.datasets.recipes.capabilities import Evolving, Loosenable, WithResidual, scaled
from sobolev.grids import GaussianRandomField, Grid, sobolev_norm
from sobolev.solvers import ETDRK4


@dataclass(frozen=True)
class KuramotoSivashinskyRecipe(Evolving, WithResidual, Loosenable, Recipe):
    """u_t = −u u_x − u_xx − u_xxxx on a circle of length 32."""

    inputs: ClassVar = ()
    outputs: ClassVar = (Variable("height", "slope of the flame front", "1"),)
    symmetries: ClassVar = ("odd reflection", "shifts")
    conserved: ClassVar = {"height": "height"}
    title: ClassVar = "Kuramoto–Sivashinsky on a circle"
    equation: ClassVar = "u_t + u u_x + u_xx + u_xxxx = 0"
    chaotic: ClassVar = True

    interval: float = 1.0
    frames: int = 6
    step: float = 0.05
    solver_resolution: int = 64
    scales: tuple[float, ...] = (1.0, 2.0)

    @property
    def times(self) -> tuple[float, ...]:
        return tuple(i * self.interval for i in range(self.frames + 1))

    def continued(self, frames: int, stride: int) -> KuramotoSivashinskyRecipe:
        return replace(self, frames=frames, interval=self.interval * stride)

    @property
    def setting(self) -> str:
        return f"step {self.step:g}"

    def looser(self) -> Iterator[KuramotoSivashinskyRecipe]:
        return scaled(self, "step", 2, last=self.interval)

    def grid(self, resolution: int) -> Grid:
        return Grid.periodic(resolution, length=32.0)

    def draw(
        self, streams: Sequence[np.random.Generator], resolution: int | None = None
    ) -> Float[Tensor, "sample 1 x"]:
        grid = self.grid(self.solver_resolution)
        field = GaussianRandomField(grid, 2.0, self.scales[0], self.scales[1]).draw(streams)
        return grid.resample(field, self.grid(resolution or self.solver_resolution))[:, None]

    def solve(
        self, inputs: Float[Tensor, "sample 1 x"], grid: Grid
    ) -> Float[Tensor, "sample 1 time x"]:
        k = _wavenumbers(grid)
        kept = (k.abs() < 2 / 3 * k.abs().max()).to(k)

        def advection(v: Complex[Tensor, "sample k"]) -> Complex[Tensor, "sample k"]:
            u = torch.fft.irfft(v * kept, n=grid.shape[0])
            return -0.5j * k * torch.fft.rfft(u**2) * kept

        count = max(1, math.ceil(self.interval / self.step))
        stepper = ETDRK4(k**2 - k**4, advection, self.interval / count)
        v = torch.fft.rfft(inputs[:, 0]) * kept
        frames = [v]
        for _ in range(self.frames):
            for _ in range(count):
                v = stepper.step(v)
            frames.append(v)
        return torch.fft.irfft(torch.stack(frames, dim=1), n=grid.shape[0])[:, None]

    def refined(self) -> KuramotoSivashinskyRecipe:
        return replace(self, step=self.step / 2, solver_resolution=2 * self.solver_resolution)

    def residual(self, streams: Sequence[np.random.Generator]) -> Float[Tensor, " sample"]:
        grid = self.grid(self.solver_resolution)
        h = 1e-3
        short = replace(self, interval=h, frames=4, step=h / 4)
        frames = short.solve(self.draw(streams), grid)[:, 0]
        rate = (frames[:, 0] - 8 * frames[:, 1] + 8 * frames[:, 3] - frames[:, 4]) / (12 * h)
        k = _wavenumbers(grid)
        kept = (k.abs() < 2 / 3 * k.abs().max()).to(k)
        v = torch.fft.rfft(frames[:, 2])
        right = (k**2 - k**4) * v - 0.5j * k * torch.fft.rfft(frames[:, 2] ** 2) * kept
        missed = rate - torch.fft.irfft(right * kept, n=grid.shape[0])
        return sobolev_norm(missed, grid, -1.0) / sobolev_norm(rate, grid, -1.0)


def _wavenumbers(grid: Grid) -> Float[Tensor, " k"]:
    n = grid.shape[0]
    return 2 * math.pi / grid.axes[0].length * torch.arange(n // 2 + 1, dtype=torch.float64)
