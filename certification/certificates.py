"""Certificates: bounds of the errors of predictions, without knowing the truth.

For Darcy flow the residual bounds the error, whatever the prediction. For trajectories of a flow it
is an indicator, and validation data say how large errors are beside it (``calibrate``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.certification.paths import flow_of
from sobolev.certification.residuals import residual_norm
from sobolev.datasets.recipes.base import Recipe
from sobolev.datasets.recipes.capabilities import Bounded
from sobolev.grids import AbstractGrid
from sobolev.grids.checks import is_real
from sobolev.grids.description import by
from sobolev.grids.norms import relative_error
from sobolev.surrogates import Surrogate
from sobolev.surrogates.applying import comfortable_batch, evaluating
from sobolev.surrogates.origin import recipe_of
from sobolev.surrogates.provenance import Calibration

Inputs = Float[Tensor, "batch inputs *space"]
"""Given fields in physical units."""
Outputs = Float[Tensor, "batch outputs *space"]
"""Predicted or true fields in physical units, on the grid of the inputs."""


class Certificate(ABC):
    """An upper bound of the relative error of each prediction."""

    norm: str
    """The norm of the error, in words."""
    reference: ClassVar[str]
    """The solution that the error is measured against, in words."""
    guaranteed: ClassVar[bool]

    @abstractmethod
    def bound(
        self, inputs: Inputs, outputs: Outputs, grid: AbstractGrid
    ) -> Float[Tensor, " batch"]:
        """Return the bound for predicted ``outputs``, float64. Fields are on the CPU."""

    @abstractmethod
    def error(
        self, inputs: Inputs, outputs: Outputs, targets: Outputs, grid: AbstractGrid
    ) -> Float[Tensor, " batch"]:
        """Return the error that ``bound`` bounds, float64."""

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the bound in a file."""
        kind = "guaranteed" if self.guaranteed else "calibrated"
        return {
            "long_name": f"{kind} upper bound of the relative error",
            "units": "1",
            "norm": self.norm,
            "reference": self.reference,
            "guaranteed": int(self.guaranteed),  # NetCDF has no attributes that are true or false
        }


@dataclass(frozen=True)
class Guarantee(Certificate):
    """The bound that a recipe knows."""

    recipe: Bounded

    reference = "the discrete solution on the same grid"
    guaranteed = True

    @property
    def norm(self) -> str:  # type: ignore[override]
        return self.recipe.error_norm

    def bound(
        self, inputs: Inputs, outputs: Outputs, grid: AbstractGrid
    ) -> Float[Tensor, " batch"]:
        return self.recipe.error_bound(inputs, outputs, grid)

    def error(
        self, inputs: Inputs, outputs: Outputs, targets: Outputs, grid: AbstractGrid
    ) -> Float[Tensor, " batch"]:
        return self.recipe.true_error(inputs, outputs, grid)


@dataclass(frozen=True)
class Estimate(Certificate):
    """The residual of a trajectory, times a factor learnt from validation data (``calibrate``)."""

    surrogate: Surrogate
    calibration: Calibration
    recipes: tuple[type[Recipe], ...] = ()

    norm = "L2 over all predicted frames"
    reference = "solver trajectories drawn like those of the calibration"
    guaranteed = False

    def bound(
        self, inputs: Inputs, outputs: Outputs, grid: AbstractGrid
    ) -> Float[Tensor, " batch"]:
        if list(grid.shape) != self.calibration.resolution:
            raise ValueError(
                f"the surrogate is calibrated on {by(self.calibration.resolution)} nodes, which says nothing of errors "
                f"on {by(grid.shape)}; calibrate it on data of that resolution"
            )
        return self.calibration.factor * residuals_of(self.surrogate, inputs, self.recipes)

    def error(
        self, inputs: Inputs, outputs: Outputs, targets: Outputs, grid: AbstractGrid
    ) -> Float[Tensor, " batch"]:
        return frame_errors(self.surrogate, outputs, targets, grid)

    @property
    def attributes(self) -> dict[str, Any]:
        about = {
            "coverage": self.calibration.quantile,
            "calibration_samples": self.calibration.samples,
        }
        return {**super().attributes, **about}


def certificate_of(surrogate: Surrogate, *, recipes: Sequence[type[Recipe]] = ()) -> Certificate:
    """Return what is known about the errors of a surrogate, from the equation of its training data.

    Args:
        surrogate: that makes the predictions.
        recipes: classes from outside the package that may have drawn the data.

    Raises:
        ValueError: if the equation is not known, or is another surrogate's; if nothing bounds the
            errors of its predictions, or a calibration has to come first.
    """
    recipe = recipe_of(surrogate.provenance.data, recipes)
    _check_problem(surrogate, recipe)
    if isinstance(recipe, Bounded):
        return Guarantee(recipe)
    if not recipe.times:
        raise ValueError(
            f"no error bound is known for predictions of {type(recipe).__name__} ({recipe.equation}): they skip the "
            "times between, or solve no discrete equation, so they leave no residual; DarcyRecipe has a guaranteed "
            "bound, and windows of NavierStokesRecipe have one that is calibrated"
        )
    flow_of(surrogate, recipes)  # refuses equations whose residual is not known
    calibration = surrogate.provenance.calibration
    if calibration is None:
        raise ValueError(
            "the error of predicted trajectories can be estimated once the surrogate is calibrated on validation "
            "data: sobolev.certification.calibrate(surrogate, data), or `sobolev calibrate RUN --data DATA`"
        )
    return Estimate(surrogate, calibration, tuple(recipes))


def certificate_for(
    surrogate: Surrogate, tolerance: float | None, recipes: Sequence[type[Recipe]] = ()
) -> Certificate:
    """Return the certificate of a surrogate whose predictions are to be made good to a tolerance, if one is
    given.

    Raises:
        ValueError: also for a tolerance that is no number between 0 and 1, or where nothing is
            guaranteed that could keep it.
    """
    if tolerance is None:
        return certificate_of(surrogate, recipes=recipes)
    if not (is_real(tolerance) and 0 < tolerance < 1):
        raise ValueError(f"tolerance must be a number between 0 and 1, got {tolerance!r}")
    only = "a tolerance can be kept where the bound is guaranteed, as it is for Darcy flow"
    if surrogate.window is not None:  # whose certificate would ask for a calibration first
        raise ValueError(
            f"{only}; the error of predicted trajectories is estimated: leave the tolerance out"
        )
    certificate = certificate_of(surrogate, recipes=recipes)
    if not certificate.guaranteed:
        raise ValueError(f"{only}: leave the tolerance out")
    return certificate


@dataclass(frozen=True)
class Effectivity:
    """Bounds beside the errors that they bound, one entry per sample whose truth is not zero; both
    relative."""

    bound: Float[Tensor, " sample"]
    error: Float[Tensor, " sample"]
    norm: str
    guaranteed: bool

    @property
    def ratio(self) -> Float[Tensor, " sample"]:
        """Bound over true error: at least 1 where the bound holds, and 1 where it is sharp."""
        return self.bound / self.error


@torch.no_grad()
def effectivity(
    surrogate: Surrogate,
    inputs: Inputs,
    outputs: Outputs,
    targets: Outputs,
    grid: AbstractGrid,
    *,
    recipes: Sequence[type[Recipe]] = (),
) -> Effectivity:
    """Return by how much the certificates of predictions exceed their true errors.

    Args:
        inputs, outputs: fields in physical units, and what ``surrogate`` predicted from them.
        targets: the true outputs. A guaranteed bound is against the discrete solution on ``grid``,
            which is solved for here instead.
        grid: where the nodes lie.
        recipes: classes from outside the package that may have drawn the training data.

    Raises:
        ValueError: as ``certificate_of``, and where all true fields are zero.
    """
    certificate = certificate_of(surrogate, recipes=recipes)
    size = comfortable_batch(grid)
    batches = zip(*(t.cpu().split(size) for t in (inputs, outputs, targets)), strict=True)
    pairs = [
        (certificate.bound(a, p, grid), certificate.error(a, p, u, grid)) for a, p, u in batches
    ]
    bound, error = (torch.cat(part) for part in zip(*pairs, strict=True))
    some = ~error.isnan()
    if not bool(some.any()):
        raise ValueError("the true fields are all zero: no error is relative to them")
    return Effectivity(bound[some], error[some], certificate.norm, certificate.guaranteed)


def residuals_of(
    surrogate: Surrogate,
    inputs: Float[Tensor, "batch channels y x"],
    recipes: Sequence[type[Recipe]] = (),
) -> Float[Tensor, " batch"]:
    """Return the relative residuals of predictions, on the CPU."""
    with evaluating(surrogate):
        return residual_norm(
            surrogate, inputs.to(surrogate.input_mean.device), recipes=recipes
        ).cpu()


def frame_errors(
    surrogate: Surrogate, outputs: Outputs, targets: Outputs, grid: AbstractGrid
) -> Float[Tensor, " batch"]:
    """Return relative L² errors over all frames, as loss and scores measure them, float64."""
    prediction, target = (surrogate.comparable(u.double()) for u in (outputs, targets))
    return relative_error(prediction, target, grid)


def _check_problem(surrogate: Surrogate, recipe: Recipe) -> None:
    """Refuse a surrogate that does not map what the recipe, which its provenance names, is about."""
    grid = recipe.grid(surrogate.grid.shape[0])
    same_grid = (
        grid.ndim == surrogate.grid.ndim and grid.resized(*surrogate.grid.shape) == surrogate.grid
    )
    inputs = surrogate.inputs
    outputs = surrogate.quantities
    wanted = [*recipe.inputs, *recipe.outputs]
    given = [*(inputs[: len(recipe.inputs)] if recipe.times else inputs), *outputs]
    if not (same_grid and given == wanted):
        raise ValueError(
            f"the surrogate's provenance says {type(recipe).__name__}, but it maps {_variables_in_words(inputs)} to "
            f"{_variables_in_words(outputs)} on {surrogate.grid}: a certificate of that problem says nothing about it"
        )


def _variables_in_words(variables: Any) -> str:
    return ", ".join(f"{v.name} [{v.units}]" for v in variables) or "nothing"
