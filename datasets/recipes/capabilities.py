"""Capabilities of a recipe beyond drawing and solving: mixins, each a promise that other rooms may ask for.

They ask ``isinstance(recipe, Evolving)``, never for a problem's own class, so that a recipe from outside
the package is served like those in it::

    @dataclass(frozen=True)
    class HeatRecipe(Evolving, Loosenable, Recipe):
        ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from sobolev.datasets.recipes.base import Inputs
from sobolev.grids.variables import Variable
from sobolev.solvers import NavierStokes

R = TypeVar("R")
Prediction = Float[Tensor, "sample output *space"]
"""Predicted outputs, on the grid of the inputs."""


class Evolving(ABC):
    """Outputs are trajectories, ``(sample, output, time, *space)``, that can be gone on with.

    A recipe without ``inputs`` stores what it draws as their first frame.
    """

    @property
    @abstractmethod
    def times(self) -> tuple[float, ...]:
        """The times of the stored frames, ascending from 0."""

    @abstractmethod
    def continued(self, frames: int, stride: int) -> Any:
        """Return the recipe of ``frames`` frames after the one it starts from, each ``stride`` of the
        stored intervals after the last; it may make some more."""


class WithResidual(ABC):
    """Solutions can be put back into their equation."""

    @abstractmethod
    def residual(self, streams: Sequence[np.random.Generator]) -> Float[Tensor, " sample"]:
        """Return the H⁻¹ norm of the residual of solved samples over that of its largest term."""


class Bounded(ABC):
    """The error of any prediction has a guaranteed bound, and a solver makes predictions good."""

    error_norm: ClassVar[str]
    """The relative norm that bounds and errors are in, in words."""

    @abstractmethod
    def error_bound(
        self, inputs: Inputs, outputs: Prediction, grid: Any
    ) -> Float[Tensor, " sample"]:
        """Return an upper bound of the relative error of predicted ``outputs`` against the discrete
        solution on ``grid``."""

    @abstractmethod
    def true_error(
        self, inputs: Inputs, outputs: Prediction, grid: Any
    ) -> Float[Tensor, " sample"]:
        """Return the relative error that ``error_bound`` bounds, by solving on ``grid``."""

    @abstractmethod
    def improved(
        self, inputs: Inputs, outputs: Prediction, grid: Any, tolerance: float
    ) -> tuple[Prediction, Int[Tensor, " sample"]]:
        """Return ``outputs`` made good by the classical solver, started from them, until their
        ``error_bound`` is at most ``tolerance``; and the iterations that each sample took."""


class Loosenable(ABC):
    """The same problem can be solved more cheaply, to a lower accuracy."""

    @property
    @abstractmethod
    def setting(self) -> str:
        """The accuracy of the solve beside its grid, in words."""

    @abstractmethod
    def looser(self) -> Iterator[Any]:
        """Yield the recipe at lower and lower accuracy, on the same grid."""


class WithDiagnostics(ABC):
    """Further fields follow from the stored ones."""

    @abstractmethod
    def diagnostics(
        self, state: Float[Tensor, "*lead channel y x"], grid: Any
    ) -> Mapping[Variable, Float[Tensor, "*lead y x"]]:
        """Return the fields that follow from the outputs on ``grid``."""

    @abstractmethod
    def rest(self) -> Float[Tensor, " channel"]:
        """Return a state that can be computed with where a sample is lost, the same at every node."""


class VorticityEquation(ABC):
    """Trajectories of a vorticity on the torus, whose residual tells how far they are from a flow."""

    @property
    @abstractmethod
    def flow(self) -> NavierStokes:
        """The equation that the trajectories solve."""


class PressureEquation(ABC):
    """−∇·(a∇u) = f on a box with u = 0 on its border: one input a, one output u, f constant."""

    @property
    @abstractmethod
    def load(self) -> float:
        """The constant f."""


def scaled(recipe: R, name: str, factor: float, last: float) -> Iterator[R]:
    """Yield ``recipe`` with one parameter multiplied by ``factor`` again and again, as far as ``last``."""
    value = getattr(recipe, name)
    while True:
        value = type(value)(value * factor)
        if value < last if factor < 1 else value > last:
            return
        yield replace(recipe, **{name: value})  # type: ignore[type-var]
