"""How far predictions are from the truth, without knowing the truth.

For Darcy flow the residual bounds the error, whatever the prediction. For trajectories of a flow it
is an indicator, and validation data say how large errors are beside it (``calibrate``).
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from sobolev.certification.residuals import flow_of, recipe_of, residual_norm
from sobolev.datasets.recipes.base import Recipe
from sobolev.grids import AbstractGrid
from sobolev.grids.norms import relative_error
from sobolev.grids.streams import Key, stream
from sobolev.surrogates.surrogate import Surrogate, comfortable_batch, evaluating

if TYPE_CHECKING:
    from sobolev.datasets import OperatorDataModule

VARIABLES = ("error_bound", "treatment", "iterations")
"""What ``Surrogate.predict`` adds to the outputs."""


class Certificate(ABC):
    """An upper bound of the relative error of each prediction."""

    norm: str
    """What is measured, in words."""
    reference: ClassVar[str]
    """What the error is meant against, in words."""
    guaranteed: ClassVar[bool]

    @abstractmethod
    def bound(self, inputs: Tensor, outputs: Tensor, grid: AbstractGrid) -> Tensor:
        """The bound for predicted ``outputs``, ``(batch,)``, float64; fields are ``(batch, channels,
        *space)`` in physical units, on the CPU."""

    @abstractmethod
    def error(self, inputs: Tensor, outputs: Tensor, targets: Tensor, grid: AbstractGrid) -> Tensor:
        """What is bounded, ``(batch,)``, float64."""

    @property
    def attributes(self) -> dict[str, Any]:
        """What a file says of the bound."""
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

    recipe: Recipe

    reference = "the discrete solution on the same grid"
    guaranteed = True

    @property
    def norm(self) -> str:  # type: ignore[override]
        return str(self.recipe.error_norm)

    def bound(self, inputs: Tensor, outputs: Tensor, grid: AbstractGrid) -> Tensor:
        return self.recipe.error_bound(inputs, outputs, grid)

    def error(self, inputs: Tensor, outputs: Tensor, targets: Tensor, grid: AbstractGrid) -> Tensor:
        return self.recipe.true_error(inputs, outputs, grid)


@dataclass(frozen=True)
class Calibration:
    """``factor`` times the relative residual is at least the relative L² error for a share
    ``quantile`` of predictions on grids of ``resolution``, as ``samples`` trajectories say."""

    factor: float
    quantile: float
    samples: int
    resolution: list[int]

    @classmethod
    def of(cls, provenance: Mapping[str, Any]) -> Calibration:
        """The one that a surrogate's ``provenance`` holds.

        Raises:
            ValueError: if there is none, or it is damaged.
        """
        found = provenance.get("calibration")
        if found is None:
            raise ValueError(
                "the error of predicted trajectories can be estimated once the surrogate is calibrated on validation "
                "data: sobolev.training.calibrate(surrogate, data), or `sobolev calibrate RUN --data DATA`"
            )
        try:
            calibration = cls(**found)
            good = 0 < calibration.factor < math.inf and 0 < calibration.quantile < 1
            good = good and isinstance(calibration.resolution, list)
        except TypeError:
            good = False
        if not good:
            raise ValueError(f"the surrogate's calibration is damaged: {found}; calibrate it anew")
        return calibration


@dataclass(frozen=True)
class Estimate(Certificate):
    """The residual of a trajectory, times what validation data say that errors are beside it."""

    surrogate: Surrogate
    calibration: Calibration

    norm = "L2 over all predicted frames"
    reference = "solver trajectories drawn like those of the calibration"
    guaranteed = False

    def bound(self, inputs: Tensor, outputs: Tensor, grid: AbstractGrid) -> Tensor:
        if list(grid.shape) != list(self.calibration.resolution):
            here, there = (
                " × ".join(map(str, n)) for n in (grid.shape, self.calibration.resolution)
            )
            raise ValueError(
                f"the surrogate is calibrated on {there} nodes, which says nothing of errors on {here}; calibrate it "
                "on data of that resolution"
            )
        return self.calibration.factor * _residuals(self.surrogate, inputs)

    def error(self, inputs: Tensor, outputs: Tensor, targets: Tensor, grid: AbstractGrid) -> Tensor:
        return _frame_errors(self.surrogate, outputs, targets, grid)

    @property
    def attributes(self) -> dict[str, Any]:
        about = {
            "coverage": self.calibration.quantile,
            "calibration_samples": self.calibration.samples,
        }
        return {**super().attributes, **about}


def certificate_of(surrogate: Surrogate) -> Certificate:
    """What is known about the errors of a surrogate, from the equation of its training data.

    Raises:
        ValueError: if the equation is not known, or is another surrogate's; if nothing bounds the
            errors of its predictions, or a calibration has to come first.
    """
    recipe = recipe_of(surrogate)
    _check_problem(surrogate, recipe)
    if recipe.error_norm is not None:
        return Guarantee(recipe)
    if not recipe.times:
        raise ValueError(
            f"no error bound is known for predictions of {type(recipe).__name__} ({recipe.equation}): they skip the "
            "times between, or solve no discrete equation, so they leave no residual; DarcyRecipe has a guaranteed "
            "bound, and windows of NavierStokesRecipe have one that is calibrated"
        )
    flow_of(surrogate)  # refuses equations whose residual is not known
    return Estimate(surrogate, Calibration.of(surrogate.provenance))


def calibrate(
    surrogate: Surrogate,
    data: OperatorDataModule,
    *,
    quantile: float = 0.9,
    split: str = "valid",
    seed: int = 0,
) -> Calibration:
    """How large errors are beside residuals, from trajectories that the surrogate was not trained
    on; kept in ``surrogate.provenance["calibration"]``.

    One window is drawn from each trajectory. With the ratios e_i / η_i of relative L² error and
    relative residual of n of them in ascending order, the factor is the ⌈(n + 1) q⌉-th: by split
    conformal prediction (Papadopoulos et al. 2002, doi:10.1007/3-540-36755-1_29; Lei et al. 2018,
    doi:10.1080/01621459.2017.1307116) factor · η is then at least e with probability q or more, for
    a window drawn in the same way from a new trajectory. That is a statement about the draw of all
    n + 1, not about each field, and none about other data.

    Args:
        surrogate: trained on windows of a Navier–Stokes data set.
        data: with the surrogate's window, at the resolution that is to be predicted at.
        quantile: q, the share of predictions whose error the bound shall not fall below.
        split: ``"valid"`` has, as a rule, chosen the best epoch; a split that has not is cleaner.
        seed: of the draw of the windows.

    Raises:
        ValueError: for an equation whose residual is not known, data of another window, trajectories
            that were trained on, too few of them for the quantile, or residuals that say nothing.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must lie between 0 and 1, got {quantile}")
    if recipe_of(surrogate).error_norm is not None:
        raise ValueError(
            "the error bound of these predictions is guaranteed; there is nothing to calibrate"
        )
    flow_of(surrogate)
    if data.window != surrogate.window:
        raise ValueError(
            f"the surrogate takes {surrogate.window}, the data are cut by {data.window}; give "
            "OperatorDataModule(path, window=...) the surrogate's"
        )
    _check_unseen(surrogate, data, split)
    items, batch = data.pairs(split), comfortable_batch(data.grid)
    picked = [
        i * items.starts + int(stream(seed, Key.CALIBRATION, i).integers(items.starts))
        for i in range(len(items.samples))
    ]
    ratios = [
        _ratios(surrogate, *items.__getitems__(picked[i : i + batch]), data.grid)
        for i in range(0, len(picked), batch)
    ]
    factor = conformal_quantile(torch.cat(ratios), quantile)
    if not 0 < factor < math.inf:
        raise ValueError(
            f"errors beside residuals reach {factor}: the residuals of these predictions say nothing about their errors"
        )
    found = Calibration(factor, quantile, len(picked), list(data.grid.shape))
    surrogate.provenance["calibration"] = asdict(found)
    return found


def conformal_quantile(scores: Float[Tensor, " n"], quantile: float) -> float:
    """The ⌈(n + 1) q⌉-th smallest of n exchangeable scores: one more is below it with probability q
    or more.

    >>> conformal_quantile(torch.arange(1.0, 10.0), 0.9)
    9.0

    Raises:
        ValueError: if n is too small for the quantile.
    """
    rank = math.ceil((len(scores) + 1) * quantile - 1e-9)
    if rank > len(scores):
        least = math.ceil(quantile / (1 - quantile) - 1e-9)
        raise ValueError(
            f"a quantile of {quantile:g} takes {least} validation trajectories or more, there are {len(scores)}; "
            "lower it, or draw more"
        )
    return float(scores.sort().values[rank - 1])


@dataclass(frozen=True)
class Effectivity:
    """Bounds beside the errors that they bound, one entry per sample; both relative."""

    bound: Tensor
    error: Tensor
    norm: str
    guaranteed: bool

    @property
    def ratio(self) -> Tensor:
        """Bound over true error: at least 1 where the bound holds, and 1 where it is sharp."""
        return self.bound / self.error


@torch.no_grad()
def effectivity(
    surrogate: Surrogate,
    inputs: Float[Tensor, "batch inputs ..."],
    outputs: Float[Tensor, "batch outputs ..."],
    targets: Float[Tensor, "batch outputs ..."],
    grid: AbstractGrid,
) -> Effectivity:
    """By how much the certificates of predictions exceed their true errors.

    Args:
        inputs, outputs: fields in physical units, and what ``surrogate`` predicted from them.
        targets: the true outputs. A guaranteed bound is against the discrete solution on ``grid``,
            which is solved for here instead.
        grid: where the nodes lie.

    Raises:
        ValueError: as ``certificate_of``.
    """
    certificate, size = certificate_of(surrogate), comfortable_batch(grid)
    batches = zip(*(t.cpu().split(size) for t in (inputs, outputs, targets)), strict=True)
    pairs = [
        (certificate.bound(a, p, grid), certificate.error(a, p, u, grid)) for a, p, u in batches
    ]
    bound, error = (torch.cat(part) for part in zip(*pairs, strict=True))
    return Effectivity(bound, error, certificate.norm, certificate.guaranteed)


def certificate_for(surrogate: Surrogate, tolerance: float | None) -> Certificate:
    """``certificate_of`` a surrogate whose predictions are to be made good to a tolerance, if one is given.

    Raises:
        ValueError: also for a tolerance that is no number between 0 and 1, or where nothing is
            guaranteed that could keep it.
    """
    if tolerance is None:
        return certificate_of(surrogate)
    number = isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool)
    if not (number and 0 < tolerance < 1):
        raise ValueError(f"tolerance must be a number between 0 and 1, got {tolerance!r}")
    only = "a tolerance can be kept where the bound is guaranteed, as it is for Darcy flow"
    if surrogate.window is not None:  # whose certificate would ask for a calibration first
        raise ValueError(
            f"{only}; the error of predicted trajectories is estimated: leave the tolerance out, and ask for "
            "certify=True"
        )
    certificate = certificate_of(surrogate)
    if not certificate.guaranteed:
        raise ValueError(f"{only}: leave the tolerance out, and ask for certify=True")
    return certificate


@dataclass(frozen=True)
class Certified:
    """Outputs and their bounds, on the CPU; with a tolerance also the iterations that each sample
    took, 0 where it was accepted, and the seconds of all of them."""

    outputs: Tensor
    bound: Tensor
    iterations: Tensor | None = None
    seconds: float | None = None

    def variables(self, certificate: Certificate, sample: str) -> dict[str, xr.Variable]:
        """What a file says of each sample."""
        found = {"error_bound": xr.Variable(sample, self.bound.numpy(), certificate.attributes)}
        if self.iterations is not None:
            flags = {
                "long_name": "what was done to the prediction",
                "flag_values": np.array([0, 1], dtype=np.int8),
                "flag_meanings": "accepted improved",
            }
            counts = {"long_name": "iterations of the classical solver", "units": "1"}
            improved = (self.iterations > 0).to(torch.int8).numpy()
            found["treatment"] = xr.Variable(sample, improved, flags)
            found["iterations"] = xr.Variable(sample, self.iterations.numpy(), counts)
        return found

    def costs(self, prediction_seconds: float) -> dict[str, float]:
        """What a file says of all samples together."""
        if self.seconds is None:
            return {}
        return {"prediction_seconds": prediction_seconds, "improvement_seconds": self.seconds}


def certified(
    certificate: Certificate,
    inputs: Tensor,
    outputs: Tensor,
    grid: AbstractGrid,
    tolerance: float | None = None,
) -> Certified:
    """Predicted ``outputs`` with their bounds; those beyond a tolerance are made good by the
    classical solver, and all are float64 then.

    Raises:
        ArithmeticError: if the tolerance is out of the solver's reach.
    """
    size = comfortable_batch(grid)
    pairs = zip(inputs.split(size), outputs.split(size), strict=True)
    bound = torch.cat([certificate.bound(a, p, grid) for a, p in pairs])
    if tolerance is None or not isinstance(certificate, Guarantee):
        return Certified(outputs, bound)
    started = time.perf_counter()
    outputs, iterations = outputs.double(), torch.zeros_like(bound, dtype=torch.int64)
    beyond = (~(bound <= tolerance)).nonzero()[:, 0]
    for part in beyond.split(size) if len(beyond) else ():
        outputs[part], iterations[part] = certificate.recipe.improved(
            inputs[part], outputs[part], grid, tolerance
        )
        bound[part] = certificate.bound(inputs[part], outputs[part], grid)
    return Certified(outputs, bound, iterations, time.perf_counter() - started)


@torch.no_grad()
def _ratios(surrogate: Surrogate, inputs: Tensor, targets: Tensor, grid: AbstractGrid) -> Tensor:
    """Errors over residuals."""
    with evaluating(surrogate):
        outputs = surrogate(inputs.to(surrogate.input_mean.device)).cpu()
    error = _frame_errors(surrogate, outputs, targets, grid)
    return torch.where(error == 0, 0.0, error / _residuals(surrogate, inputs))


def _residuals(surrogate: Surrogate, inputs: Tensor) -> Tensor:
    with evaluating(surrogate):
        return residual_norm(surrogate, inputs.to(surrogate.input_mean.device)).cpu()


def _frame_errors(
    surrogate: Surrogate, outputs: Tensor, targets: Tensor, grid: AbstractGrid
) -> Tensor:
    """Relative L² errors over all frames, as loss and scores measure them, float64."""
    prediction, target = (surrogate.comparable(u.double()) for u in (outputs, targets))
    return relative_error(prediction, target, grid)


def _check_unseen(surrogate: Surrogate, data: OperatorDataModule, split: str) -> None:
    """Refuse trajectories that the surrogate was trained on, beside which errors are too small."""
    drawn, manifest = surrogate.provenance["data"], data.manifest
    same = (drawn.get("recipe"), drawn.get("seed")) == (manifest.recipe, manifest.seed)
    held_out = split == "valid" and "valid" not in manifest.splits
    seen = held_out and len(data.pairs("train").samples) < drawn.get("train_samples", 0)
    if same and (split == "train" or seen):
        remedy = "the valid_fraction and train_samples of its training" if seen else "another split"
        raise ValueError(
            f"the surrogate was trained on trajectories of this split, {split!r}, and does better on them than on new "
            f"ones; calibrate it on others: take {remedy}"
        )


def _check_problem(surrogate: Surrogate, recipe: Recipe) -> None:
    """Refuse a surrogate that does not map what the recipe, which its provenance names, is about."""
    grid = recipe.grid(surrogate.grid.shape[0])
    same_grid = (
        grid.ndim == surrogate.grid.ndim and grid.resized(*surrogate.grid.shape) == surrogate.grid
    )
    inputs, outputs = surrogate.inputs, surrogate.quantities
    wanted = [*recipe.inputs, *recipe.outputs]
    given = [*(inputs[: len(recipe.inputs)] if recipe.times else inputs), *outputs]
    if not (same_grid and given == wanted):
        raise ValueError(
            f"the surrogate's provenance says {type(recipe).__name__}, but it maps {_words(inputs)} to "
            f"{_words(outputs)} on {surrogate.grid}: a certificate of that problem says nothing about it"
        )


def _words(variables: Any) -> str:
    return ", ".join(f"{v.name} [{v.units}]" for v in variables) or "nothing"
