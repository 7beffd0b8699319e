"""Error bounds of trajectories, learnt from data that the surrogate was not trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from sobolev.certification.certificates import frame_errors, residuals_of
from sobolev.certification.paths import flow_of
from sobolev.datasets.recipes.base import Recipe
from sobolev.datasets.recipes.capabilities import Bounded
from sobolev.grids import AbstractGrid
from sobolev.grids.norms import known
from sobolev.grids.streams import Key, stream
from sobolev.surrogates import Surrogate
from sobolev.surrogates.applying import apply, comfortable_batch
from sobolev.surrogates.origin import recipe_of
from sobolev.surrogates.provenance import Calibration

if TYPE_CHECKING:
    from sobolev.datasets.loading.datamodule import OperatorDataModule


def calibrate(
    surrogate: Surrogate,
    data: OperatorDataModule,
    *,
    quantile: float = 0.9,
    split: str = "valid",
    seed: int = 0,
    recipes: Sequence[type[Recipe]] = (),
) -> Calibration:
    """Learn how large errors are beside residuals, from trajectories that the surrogate was not trained
    on, and keep it in ``surrogate.provenance.calibration``.

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
        recipes: classes from outside the package that may have drawn the data.

    Raises:
        ValueError: for an equation whose residual is not known, data of another window, trajectories
            that were trained on, too few of them for the quantile, or residuals that say nothing.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must lie between 0 and 1, got {quantile}")
    if isinstance(recipe_of(surrogate.provenance.data, recipes), Bounded):
        raise ValueError(
            "the error bound of these predictions is guaranteed; there is nothing to calibrate"
        )
    flow_of(surrogate, recipes)
    if data.window != surrogate.in_time:
        raise ValueError(
            f"the surrogate takes {surrogate.window}, the data are cut by {data.window}; give "
            "OperatorDataModule(path, window=...) the surrogate's"
        )
    _check_unseen(surrogate, data, split)
    items = data.pairs(split)
    picked = [
        i * items.per_sample + int(stream(seed, Key.CALIBRATION, i).integers(items.per_sample))
        for i in range(len(items.samples))
    ]
    inputs, targets = items.__getitems__(picked)
    ratios = apply(
        surrogate,
        lambda u, y: _ratios(surrogate, u, y, data.grid, recipes),
        inputs,
        targets,
        batch_size=comfortable_batch(data.grid),
    )
    scores = known(torch.cat(ratios))
    factor = conformal_quantile(scores, quantile)
    if not 0 < factor < math.inf:
        raise ValueError(
            f"errors beside residuals reach {factor}: the residuals of these predictions say nothing about their errors"
        )
    found = Calibration(factor, quantile, len(scores), list(data.grid.shape))
    surrogate.record(calibration=found)
    return found


def conformal_quantile(scores: Float[Tensor, " n"], quantile: float) -> float:
    """Return the ⌈(n + 1) q⌉-th smallest of n exchangeable scores: one more is below it with probability q
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


def _ratios(
    surrogate: Surrogate,
    inputs: Float[Tensor, "batch channels y x"],
    targets: Float[Tensor, "batch outputs y x"],
    grid: AbstractGrid,
    recipes: Sequence[type[Recipe]],
) -> Float[Tensor, " batch"]:
    """Return errors over residuals, on the CPU; NaN for trajectories of zero, which have no error."""
    error = frame_errors(surrogate, surrogate(inputs).cpu(), targets.cpu(), grid)
    found = torch.where(error == 0, 0.0, error / residuals_of(surrogate, inputs, recipes))
    return torch.where(error.isinf(), torch.inf, found)


def _check_unseen(surrogate: Surrogate, data: OperatorDataModule, split: str) -> None:
    """Refuse trajectories that the surrogate was trained on, beside which errors are too small."""
    drawn = surrogate.provenance.data
    manifest = data.manifest
    same = (drawn.recipe, drawn.seed) == (manifest.recipe, manifest.seed)
    held_out = split == "valid" and "valid" not in manifest.splits
    seen = held_out and len(data.pairs("train").samples) < (drawn.train_samples or 0)
    if same and (split == "train" or seen):
        remedy = "the valid_fraction and train_samples of its training" if seen else "another split"
        raise ValueError(
            f"the surrogate was trained on trajectories of this split, {split!r}, and does better on them than on new "
            f"ones; calibrate it on others: take {remedy}"
        )
