"""Predictions with a bound of the error of each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from sobolev.certification.certificates import Certificate, Guarantee, certificate_for
from sobolev.datasets.recipes.base import Recipe
from sobolev.grids import AbstractGrid
from sobolev.surrogates import Surrogate
from sobolev.surrogates.applying import comfortable_batch
from sobolev.surrogates.datasets import dataset_of
from sobolev.surrogates.predicting import predicted
from sobolev.surrogates.tensors import given_inputs

VARIABLES = ("error_bound", "treatment", "iterations")
"""The variables that are added to the outputs."""


def certified(
    surrogate: Surrogate,
    dataset: xr.Dataset,
    tolerance: float | None = None,
    *,
    batch_size: int | None = None,
    recipes: Sequence[type[Recipe]] = (),
) -> xr.Dataset:
    """Predict, and say of each prediction by how much it errs at most.

    Args:
        surrogate: that predicts.
        dataset: as for ``Surrogate.predict``, on the grid of the prediction.
        tolerance: have every guaranteed ``error_bound`` at most this. Predictions within it are
            accepted as they are; the classical solver makes the others good, starting from them.
        batch_size: fields at a time.
        recipes: classes from outside the package that may have drawn the training data.

    Returns:
        What ``predict`` returns, and ``error_bound``, ``(sample)``: an upper bound of the relative error
        of each prediction, whose attributes say in which norm, against what, and whether it is
        guaranteed (1, as for Darcy flow: in the energy norm, against the discrete solution on that
        grid) or calibrated (0: with which coverage; ``calibrate`` comes first).

        With a tolerance, ``treatment`` flags what was done, ``iterations`` counts the solver's, all
        fields are float64, and the attributes ``prediction_seconds`` and ``improvement_seconds`` say
        what it cost.

    Raises:
        ValueError: as ``predict``; for a certificate that is not to be had, with the reason.
        ArithmeticError: for a tolerance that is out of the classical solver's reach.

    >>> certified(Surrogate.load("runs/darcy-fno"), given, tolerance=1e-3).error_bound  # doctest: +SKIP
    """
    certificate = certificate_for(surrogate, tolerance, recipes)
    given = given_inputs(dataset, surrogate.meaning)
    given.refuse_names(VARIABLES, "an output")
    started = time.perf_counter()
    values = predicted(surrogate, given.fields, given.grid, batch_size)
    seconds = time.perf_counter() - started
    found = bounded(certificate, given.fields, values, given.grid, tolerance)
    return dataset_of(
        dict(zip(surrogate.outputs, found.outputs.unbind(1), strict=True)), given,
        source=f"surrogate: {type(surrogate.operator).__name__}", provenance=surrogate.provenance,
        extra=found.variables(certificate, given.sample_dim), attributes=found.costs(seconds),
    )  # fmt: skip


@dataclass(frozen=True)
class Certified:
    """Outputs and their bounds, on the CPU; with a tolerance also the iterations that each sample
    took, 0 where it was accepted, and the seconds of all of them."""

    outputs: Float[Tensor, "sample outputs *space"]
    bound: Float[Tensor, " sample"]
    iterations: Int[Tensor, " sample"] | None = None
    seconds: float | None = None

    def variables(self, certificate: Certificate, sample: str) -> dict[str, xr.Variable]:
        """Return the variables of a file that have one value for each sample."""
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
        """Return the attributes of a file: the seconds that all samples took together."""
        if self.seconds is None:
            return {}
        return {"prediction_seconds": prediction_seconds, "improvement_seconds": self.seconds}


def bounded(
    certificate: Certificate,
    inputs: Float[Tensor, "sample inputs *space"],
    outputs: Float[Tensor, "sample outputs *space"],
    grid: AbstractGrid,
    tolerance: float | None = None,
) -> Certified:
    """Return predicted ``outputs`` with their bounds; those beyond a tolerance are made good by the
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
    outputs = outputs.double()
    iterations = torch.zeros_like(bound, dtype=torch.int64)
    beyond = (~(bound <= tolerance)).nonzero()[:, 0]
    for part in beyond.split(size) if len(beyond) else ():
        outputs[part], iterations[part] = certificate.recipe.improved(
            inputs[part], outputs[part], grid, tolerance
        )
        bound[part] = certificate.bound(inputs[part], outputs[part], grid)
    return Certified(outputs, bound, iterations, time.perf_counter() - started)
