"""The text of files that a user may have: an equation and an operator from outside the package."""

SOLVER = '''
from dataclasses import dataclass, replace

from sobolev import GaussianRandomField, Grid
from sobolev.datasets import Recipe, Variable


@dataclass(frozen=True)
class RingRecipe(Recipe):
    """Heat on a ring, decaying mode by mode."""

    inputs = (Variable("before", "temperature at time 0", "K"),)
    outputs = (Variable("after", "temperature at the final time", "K"),)
    symmetries = ("reflections",)

    diffusivity: float = 0.05
    times_of_day: tuple[float, ...] = (0.5, 1.0)
    solver_resolution: int = 32

    def grid(self, resolution):
        return Grid.periodic(resolution)

    def draw(self, streams, resolution=None):
        grid = self.grid(self.solver_resolution)
        u = GaussianRandomField(grid, alpha=2.0, tau=3.0).draw(streams)[:, None]
        return u if resolution is None else grid.resample(u, self.grid(resolution))

    def solve(self, inputs, grid):
        decay = (-self.diffusivity * self.times_of_day[-1] * grid.eigenvalues()).exp()
        return grid.from_modes(decay * grid.to_modes(inputs))

    def refined(self):
        return replace(self, solver_resolution=2 * self.solver_resolution)
'''
NET = '''
from torch import nn

from sobolev.operators import Operator
from sobolev.operators.layers.resampling import resampled


class UNet(Operator):
    """A convolution beside the identity; no U, but for its name."""

    ndim = 1

    def __init__(self, in_channels: int, out_channels: int, width: int = 8) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.width = width
        self.lift = nn.Conv1d(in_channels, width, 3, padding=1, padding_mode="circular")
        self.project = nn.Conv1d(width, out_channels, 1)

    def forward(self, u, size=None):
        self.check(u)
        return self.project(self.lift(resampled(u, size, ["periodic"])).tanh())


class Idle(Operator):
    """Not finished: it says neither its axes nor what it does."""


class Letters:
    """No operator at all."""
'''
