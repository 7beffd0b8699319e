"""Recipes of data sets: a random input, a PDE, and the grids they live on."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int8
from torch import Tensor

from sobolev.grids import AbstractGrid, Grid, sobolev_norm
from sobolev.grids.axis import subsampled_sizes
from sobolev.grids.checks import make_plain, plain
from sobolev.grids.restriction import restricted
from sobolev.grids.variables import Parameter, Variable
from sobolev.solvers import SolutionError

FNO_PAPER = "Li et al., Fourier Neural Operator for Parametric PDEs, ICLR 2021, arXiv:2010.08895"
PDEBENCH = "Takamoto et al., PDEBench, NeurIPS 2022, arXiv:2210.07182"
LPSDA = (
    "Brandstetter, Welling & Worrall, Lie Point Symmetry Data Augmentation for Neural PDE Solvers, ICML 2022, "
    "arXiv:2202.07643"
)
EXPONENTIAL = (
    "Montanelli & Bootland, Solving periodic semilinear stiff PDEs in 1D, 2D and 3D with exponential integrators, "
    "Math. Comput. Simul. 178, 2020, arXiv:1604.08900"
)

Inputs = Float[Tensor, "sample input *space"]
"""Fields that a solve starts from."""
Outputs = Float[Tensor, "sample output *time_and_space"]
"""Solved fields, or trajectories of them."""
Fields = dict[str, Float[Tensor, "sample ..."]]
"""Stored variables by name, ``(sample, [time,] *space)`` each."""


@dataclass(frozen=True)
class Check:
    """A property that every sample must have: a ``defect`` within ``limit``."""

    name: str
    defect: Float[Tensor, " sample"]
    limit: float


@dataclass(frozen=True)
class Solved:
    """Samples as the solver left them, with ``status`` as in ``SolutionError``."""

    inputs: Inputs
    outputs: Outputs
    status: Int8[Tensor, " sample"]
    parameters: Mapping[str, Float[Tensor, " sample"]] = field(default_factory=dict)
    """What was drawn for each sample beside its fields."""

    def fields(self, recipe: Recipe) -> Fields:
        """Return the stored variables."""
        pairs = [*zip(recipe.outputs, self.outputs.unbind(1), strict=True)]
        if recipe.inputs:
            pairs = [*zip(recipe.inputs, self.inputs.unbind(1), strict=True), *pairs]
        return {**{variable.name: field for variable, field in pairs}, **self.parameters}


@dataclass(frozen=True)
class Recipe(ABC):
    """A data set to be: it draws inputs and solves for outputs on ``solver_resolution`` nodes per axis.

    A recipe is a frozen dataclass whose fields are all there is to know; the store writes them into
    every file. Further capabilities are mixins of ``capabilities``; trajectories are ``Evolving``.

    Those of its fields that ``parameters`` names are drawn for each sample, before its input and from the
    same stream, and stored beside it: one data set, and one surrogate, for a range of viscosities.

    Fields stored at a lower resolution are restricted from the grid of the solve (never re-solved
    on a coarser one): picked from its nodes, or where none coincide, by cutting modes.
    """

    inputs: ClassVar[tuple[Variable, ...]]
    outputs: ClassVar[tuple[Variable, ...]]
    title: ClassVar[str] = "fields of a recipe without a title"
    equation: ClassVar[str] = "not stated"
    """The equation in one line, for people."""
    measure: ClassVar[str] = "not stated"
    """The distribution of the inputs in one line, for people."""
    references: ClassVar[str] = "none stated"
    symmetries: ClassVar[tuple[str, ...]] = ()
    """Maps of the grid onto itself under which solutions turn into solutions:
    ``"reflections"`` of each axis, ``"transposition"``, ``"odd reflection"`` (u(x) → −u(−x)),
    ``"quarter turns"``, ``"shifts"`` along periodic axes, ``"diagonal glides"`` (see
    ``sobolev.grids.symmetries``)."""
    conserved: ClassVar[Mapping[str, str]] = {}
    """Outputs whose integral over the domain is that of an input: the output's name, the input's. Of
    trajectories, quantities whose integral does not change, each by its name twice."""
    mask: ClassVar[str | None] = None
    """The first of the inputs where it is 1 in the domain of the fields and 0 outside."""
    ranges: ClassVar[Mapping[str, str]] = {}
    """Over what its numbers are usually varied, ``LOW:HIGH`` or ``LOW:HIGH:log`` by name."""
    time_units: ClassVar[str] = "1"
    chaotic: ClassVar[bool] = False
    """True if rounding grows with time, so that other machines find other late frames."""
    parameters: tuple[Parameter, ...] = field(default=(), kw_only=True)
    """The numbers among its fields that differ from sample to sample."""
    if TYPE_CHECKING:  # a field of each recipe, in a place of its own among the others

        @property
        def solver_resolution(self) -> int: ...

    def __post_init__(self) -> None:
        make_plain(self)

    def check_parameters(self) -> None:
        """Refuse parameters that cannot differ from sample to sample.

        Raises:
            ValueError: for one that is no number of this recipe, a range that it does not take, and one
                that changes the grid or the times, of which a data set has one.
        """
        numbers = [f.name for f in fields(self) if isinstance(getattr(self, f.name), float)]
        for parameter in self.parameters:
            if parameter.name not in numbers:
                raise ValueError(
                    f"{type(self).__name__} cannot vary {parameter.name!r}; its numbers are {', '.join(numbers)}"
                )
            for end in (parameter.low, parameter.high):
                other = self.at({parameter.name: end})
                nodes = [one.grid(one.solver_resolution) for one in (self, other)]
                if nodes[0] != nodes[1] or self.times != other.times:
                    raise ValueError(
                        f"{parameter.name} cannot vary: it changes the nodes or the times, of which a data set has one"
                    )

    def at(self, values: Mapping[str, float]) -> Recipe:
        """Return the recipe of samples that have these parameters."""
        changes: dict[str, Any] = dict(values)
        return replace(self, parameters=(), **changes)

    def drawn_parameters(self, dice: np.random.Generator) -> dict[str, float]:
        """Draw the parameters of one sample, which comes before drawing its input."""
        return {parameter.name: parameter.draw(dice) for parameter in self.parameters}

    def of_sample(self, dice: np.random.Generator) -> Recipe:
        """Return the recipe of the sample whose stream this is, and which its input is drawn from next."""
        return self.at(self.drawn_parameters(dice)) if self.parameters else self

    def checks_of(self, fields: Fields, grid: AbstractGrid) -> list[Check]:
        """Return ``checks`` of each sample under its own parameters."""
        if not self.parameters:
            return self.checks(fields, grid)
        singly = []
        for i in range(len(next(iter(fields.values())))):
            values = {p.name: float(fields[p.name][i]) for p in self.parameters}
            one = {name: field[i : i + 1] for name, field in fields.items()}
            singly.append(self.at(values).checks(one, grid))
        return [
            Check(same[0].name, torch.cat([check.defect for check in same]), same[0].limit)
            for same in zip(*singly, strict=True)
        ]

    @property
    def times(self) -> tuple[float, ...]:
        """The times of the stored frames; none for a single output field."""
        return ()

    @property
    def default_resolution(self) -> int:
        """Nodes per axis at which fields are stored unless told otherwise."""
        return self.solver_resolution

    @abstractmethod
    def grid(self, resolution: int) -> AbstractGrid:
        """Return the grid with ``resolution`` nodes per axis."""

    @abstractmethod
    def draw(self, streams: Sequence[np.random.Generator], resolution: int | None = None) -> Inputs:
        """Draw one input from each stream, float64.

        The random coefficients are those of the solver's grid; ``resolution`` only says on how many
        nodes they are evaluated, the solver's by default.
        """

    @abstractmethod
    def solve(self, inputs: Inputs, grid: Any) -> Outputs:
        """Return the outputs that belong to ``inputs`` on a grid that ``self.grid`` made."""

    @abstractmethod
    def refined(self) -> Recipe:
        """Return the same problem on a grid with twice the cells, in steps of half the size."""

    def solved(self, streams: Sequence[np.random.Generator]) -> Solved:
        """Draw and solve; samples that fail are marked, and NaN from the failure on."""
        if self.parameters:
            return self._solved_varied(streams)
        inputs = self.draw(streams)
        grid = self.grid(self.solver_resolution)
        try:
            outputs = self.solve(inputs, grid)
        except SolutionError as error:
            return Solved(inputs, error.solution, error.status)
        except ArithmeticError:
            return self._solved_singly(inputs, grid)
        return Solved(
            inputs, outputs, torch.zeros(len(inputs), dtype=torch.int8, device=inputs.device)
        )

    def _solved_varied(self, streams: Sequence[np.random.Generator]) -> Solved:
        """Draw and solve each sample with parameters of its own; those that fail are lost.

        Raises:
            ArithmeticError: if none can be solved.
        """
        drawn = [self.drawn_parameters(dice) for dice in streams]
        parts: list[Solved | None] = []
        failure: ArithmeticError | None = None
        for own, dice in zip(drawn, streams, strict=True):
            try:
                parts.append(self.at(own).solved([dice]))
            except ArithmeticError as error:
                parts.append(None)
                failure = error
        kept = next((part for part in parts if part is not None), None)
        if kept is None:
            raise failure or ArithmeticError("no sample was asked for")
        lost = Solved(
            torch.full_like(kept.inputs, torch.nan),
            torch.full_like(kept.outputs, torch.nan),
            torch.ones_like(kept.status),
        )
        whole = [lost if part is None else part for part in parts]
        values = {
            name: torch.tensor([one[name] for one in drawn], dtype=torch.float64, device="cpu")
            for name in drawn[0]
        }
        return Solved(
            torch.cat([part.inputs for part in whole]),
            torch.cat([part.outputs for part in whole]),
            torch.cat([part.status for part in whole]),
            values,
        )

    def _solved_singly(self, inputs: Inputs, grid: AbstractGrid) -> Solved:
        """Solve one sample at a time, to keep those that can be solved.

        Raises:
            ArithmeticError: if none can.
        """
        found = {}
        failure = None
        for i in range(len(inputs)):
            try:
                found[i] = self.solve(inputs[i : i + 1], grid)[0]
            except ArithmeticError as error:
                failure = error
        if not found and failure is not None:
            raise failure
        lost = torch.full_like(next(iter(found.values())), torch.nan)
        outputs = torch.stack([found.get(i, lost) for i in range(len(inputs))])
        status = torch.tensor([int(i not in found) for i in range(len(inputs))], dtype=torch.int8)
        return Solved(inputs, outputs, status.to(inputs.device))

    def error_estimate(
        self, streams: Sequence[np.random.Generator], outputs: Outputs
    ) -> Float[Tensor, " sample"]:
        """Return the relative L² difference of ``outputs`` from a solve in half the steps on a grid of
        twice the cells, over all times, the largest over the variables.

        Both solves start from the same random coefficients. NaN where either failed.
        """
        if self.parameters:
            pairs = zip(streams, outputs.split(1), strict=True)
            return torch.cat(
                [
                    self.at(self.drawn_parameters(dice)).error_estimate([dice], one)
                    for dice, one in pairs
                ]
            )
        finer = self.refined()
        coarse = self.grid(self.solver_resolution)
        fine = finer.grid(finer.solver_resolution)
        try:
            reference = finer.solve(self.draw(streams, finer.solver_resolution), fine)
        except SolutionError as error:
            reference = error.solution
        reference = restricted(reference, fine, coarse)
        space = tuple(range(2, outputs.ndim))
        difference = (outputs - reference).square().sum(dim=space).sqrt()
        return (difference / reference.square().sum(dim=space).sqrt()).amax(dim=1)

    def checks(self, fields: Fields, grid: Any) -> list[Check]:
        """Return the properties that the equation promises of stored fields at any resolution: conserved
        quantities, maximum principles, boundary values."""
        return []

    def inputs_on(
        self, grid: AbstractGrid, inputs: Inputs, source: AbstractGrid
    ) -> Float[Tensor, "sample input *other_space"]:
        """Return the fields on ``grid`` that a solve starts from, given those on ``source``.

        Fields on periodic axes and on the sphere are expanded in modes; others are picked at nodes, as a
        coefficient with jumps has to be.
        """
        if expands_in_modes(source):
            return source.resample(inputs, grid)
        return restricted(inputs, source, grid)

    def resolutions(self) -> list[int]:
        """Return every resolution at which fields can be stored, finest first."""
        grid = self.grid(self.solver_resolution)
        if isinstance(grid, Grid):
            return subsampled_sizes(grid.axes[0])
        return sizes_by_modes(self.solver_resolution)

    def configuration(self) -> dict[str, Any]:
        """Return the recipe as JSON: its class and its parameters, tuples as lists."""
        parameters = plain(asdict(self))
        if not self.parameters:  # as in files of before there were any
            del parameters["parameters"]
        return {"class": identity(type(self)), **json.loads(json.dumps(parameters))}


def identity(recipe: type[Recipe]) -> str:
    """Return the name of a class of recipes in files: ``module:Class``, or ``Class`` for sobolev's own."""
    own = recipe.__module__.partition(".")[0] == "sobolev"
    return recipe.__name__ if own else f"{recipe.__module__}:{recipe.__qualname__}"


def sizes_by_modes(resolution: int) -> list[int]:
    """Return a grid's own resolution and some lower ones, to which smooth fields are restricted by cutting
    modes where nodes do not coincide.

    >>> sizes_by_modes(18)
    [18, 16, 12, 8]
    """
    return [resolution, *(n for n in range(resolution - 1, 7, -1) if n % 4 == 0)]


def expands_in_modes(grid: AbstractGrid) -> bool:
    """Return whether fields on a grid are brought to others by their modes, rather than picked at nodes."""
    return not isinstance(grid, Grid) or grid.axes[0].boundary == "periodic"


def relative_residual(
    residual: Float[Tensor, " sample *space"],
    scale: Float[Tensor, " sample *space"],
    grid: AbstractGrid,
) -> Float[Tensor, " sample"]:
    """Return ‖residual‖_{H⁻¹} / ‖scale‖_{H⁻¹}."""
    return sobolev_norm(residual, grid, -1.0) / sobolev_norm(scale, grid, -1.0)


def central_difference(
    frames: Float[Tensor, "sample 5 *space"], step: float
) -> Float[Tensor, " sample *space"]:
    """Return the time derivative in the middle of five equidistant frames, to fourth order."""
    a, b, _, d, e = frames.unbind(1)
    return (a - 8 * b + 8 * d - e) / (12 * step)


def with_channel(
    solve: Callable[[], Float[Tensor, " sample *time_and_space"]],
) -> Float[Tensor, "sample 1 *time_and_space"]:
    """Return the only output of a solve as a channel, also of one that failed in part."""
    try:
        return solve()[:, None]
    except SolutionError as error:
        raise SolutionError(str(error), error.solution[:, None], error.status) from error


def evaluated(
    inputs: Inputs, grid: AbstractGrid, recipe: Recipe, resolution: int | None
) -> Float[Tensor, "sample input *other_space"]:
    """Return inputs drawn on ``grid``, the solver's, at another resolution if one is asked for."""
    return grid.resample(inputs, recipe.grid(resolution)) if resolution else inputs
