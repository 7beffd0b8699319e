"""A surrogate judged over whole trajectories, which it continues from their first frames."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sobolev.datasets.loading.datamodule import OperatorDataModule
from sobolev.datasets.store.manifest import Manifest
from sobolev.grids import AbstractGrid, energy_spectrum
from sobolev.grids.norms import known, relative_error
from sobolev.surrogates import Surrogate
from sobolev.surrogates.applying import apply, comfortable_batch
from sobolev.training.metrics import correlation_time, integral_error

TRAJECTORIES = 32
"""The number of trajectories that are rolled out unless told otherwise."""
CORRELATED = 0.8
"""The correlation below which a trajectory counts as lost (Kochkov et al. 2021)."""

Trajectories = Float[Tensor, "sample frame quantity *space"]


@dataclass(frozen=True)
class Rollouts:
    """Test trajectories after the frames that were given, with their predictions. Given frames are not
    among them."""

    surrogate: Surrogate
    grid: AbstractGrid
    times: tuple[float, ...]
    """The times of the predicted frames, since the last given one."""
    time_units: str
    inputs: Float[Tensor, "sample channels *space"]
    """The fields that the surrogate was given."""
    targets: Trajectories
    predictions: Trajectories
    seconds_per_trajectory: float

    def first(self, count: int) -> Rollouts:
        """Return the first ``count`` trajectories, or all if there are fewer."""
        return replace(
            self,
            inputs=self.inputs[:count],
            targets=self.targets[:count],
            predictions=self.predictions[:count],
        )

    @property
    def start(self) -> Float[Tensor, "sample quantity *space"]:
        """The last given frame."""
        return self.surrogate.state_of(self.inputs).frames[:, -1]

    @property
    def finite(self) -> Bool[Tensor, " sample"]:
        """True for trajectories that stay finite to the end."""
        return self.predictions.flatten(1).isfinite().all(1)

    def errors(self) -> Float[Tensor, "sample frame"]:
        """Return the relative L² error of each frame, in ``surrogate.comparable`` units."""
        return self._per_frame(self.predictions)

    def persistence(self) -> Float[Tensor, "sample frame"]:
        """Return the error of predicting that the last given frame stays."""
        return self._per_frame(self.start[:, None].expand_as(self.targets))

    def whole_error(self, predictions: Trajectories | None = None) -> Float[Tensor, " sample"]:
        """Return the relative L² error over all frames and quantities together."""
        predictions = self.predictions if predictions is None else predictions
        p, y = (self._comparable(u).flatten(1, 2) for u in (predictions, self.targets))
        return relative_error(p, y, self.grid)

    def correlation_times(self) -> Float[Tensor, " sample"]:
        """Return ``metrics.correlation_time``, in the data's units of time."""
        p, y = (u.double().flatten(1, 2) for u in (self.predictions, self.targets))
        held = correlation_time(
            p, y, self.grid, threshold=CORRELATED, variables=self.targets.shape[2]
        )  # in frames, which need not be evenly spaced
        moments = torch.tensor((0.0, *self.times), dtype=torch.float64, device=held.device)
        return moments[held.long()]

    def drift(self, trajectories: Trajectories) -> Float[Tensor, "sample frame quantity"]:
        """Return |∫u(t) − ∫u(0)| over the domain's measure, 0 being the last given frame."""
        frames = trajectories.double().flatten(0, 1)
        start = self.start.double()[:, None].expand_as(trajectories).flatten(0, 1)
        change = integral_error(frames, start, self.grid) / float(self.grid.quadrature().sum())
        return change.unflatten(0, trajectories.shape[:2])

    def last_spectra(
        self,
    ) -> tuple[Float[Tensor, " shell"], dict[str, Float[Tensor, "quantity shell"]]]:
        """Return wavenumbers, and the energy per shell of truth, prediction and error in the last frame;
        the mean over the trajectories that stay finite."""
        p, y = (
            self._comparable(u[self.finite, -1:])[:, 0] for u in (self.predictions, self.targets)
        )
        fields = {"truth": y, "prediction": p, "error": p - y}
        wavenumbers = self.grid.shells()[0]
        return wavenumbers, {n: energy_spectrum(u, self.grid)[1].mean(0) for n, u in fields.items()}

    def _per_frame(self, predictions: Trajectories) -> Float[Tensor, "sample frame"]:
        p, y = (self._comparable(u).flatten(0, 1) for u in (predictions, self.targets))
        return relative_error(p, y, self.grid).unflatten(0, self.targets.shape[:2])

    def _comparable(self, u: Trajectories) -> Trajectories:
        return self.surrogate.comparable(u.double())

    def summary(self) -> dict[str, Any]:
        """Return all numbers, JSON-able once floats that are not finite are taken out."""
        errors = self.errors()
        held = self.correlation_times()
        spread = _quantiles(errors)
        names = [v.name for v in self.surrogate.quantities]
        k, spectra = self.last_spectra()
        drifts = {"prediction": self.drift(self.predictions), "truth": self.drift(self.targets)}
        return {
            "trajectories": len(errors),
            "given_frames": self.surrogate.in_time.history,
            "predicted_frames": len(self.times),
            "times": list(self.times),
            "time_units": self.time_units,
            "finite": int(self.finite.sum()),
            "relative_l2": {"mean": errors.nanmean(0).tolist(), **spread},
            "persistence_relative_l2": self.persistence().nanmean(0).tolist(),
            "whole_trajectory_relative_l2": float(self.whole_error().nanmean()),
            "correlation_time": {
                "threshold": CORRELATED,
                "mean": float(held.mean()),
                "median": float(held.median()),
                "never_lost": int((held == self.times[-1]).sum()),
            },
            "integral_drift": {
                who: dict(zip(names, d.mean(0).T.tolist(), strict=True))
                for who, d in drifts.items()
            },
            "last_frame_spectrum": {
                "wavenumber": k.tolist(),
                **{who: dict(zip(names, e.tolist(), strict=True)) for who, e in spectra.items()},
            },
            "seconds_per_trajectory": self.seconds_per_trajectory,
        }


def _quantiles(errors: Float[Tensor, "sample frame"]) -> dict[str, list[float]]:
    """Return median, 10th and 90th percentile over the samples that have an error; that of a rollout
    that blew up is infinite."""
    frames = [known(frame).sort().values.tolist() or [torch.nan] for frame in errors.T]
    return {
        name: [frame[round(share * (len(frame) - 1))] for frame in frames]
        for name, share in (("p10", 0.1), ("median", 0.5), ("p90", 0.9))
    }


def whole_window(surrogate: Surrogate, manifest: Manifest) -> tuple[int, int, int]:
    """Return the window that gives the surrogate its first frames, and all later ones to predict.

    Raises:
        ValueError: for a surrogate that is not in time, or trajectories too short to continue.
    """
    window = surrogate.in_time
    stored = len(manifest.times)
    frames = (stored - 1) // window.stride + 1 - window.history
    if frames < 1:
        raise ValueError(
            f"trajectories of {stored} frames are too short for {window.history} given ones, every "
            f"{window.stride}th, and one to predict"
        )
    return window.history, frames, window.stride


def roll_out(
    surrogate: Surrogate,
    module: OperatorDataModule,
    *,
    split: str = "test",
    trajectories: int = TRAJECTORIES,
) -> Rollouts:
    """Continue the first ``trajectories`` trajectories of a split from their first frames to their end.

    The window of ``module`` is the ``whole_window``.
    """
    items = module.pairs(split)
    window = module.window
    times = module.manifest.times
    inputs, targets = items.__getitems__(range(0, len(items), items.per_sample)[:trajectories])
    grid = surrogate.grid.resized(*module.grid.shape)

    def continued(
        u: Float[Tensor, "sample channels *space"],
    ) -> Trajectories:
        return surrogate.unrolled(u, window.horizon).cpu()

    size = comfortable_batch(grid)
    apply(surrogate, surrogate, inputs[:1], batch_size=1)  # warm up
    start = time.perf_counter()
    predictions = torch.cat(apply(surrogate, continued, inputs, batch_size=size))
    seconds = (time.perf_counter() - start) / len(inputs)
    present, *later = times[(window.history - 1) * window.stride :: window.stride]
    return Rollouts(
        surrogate,
        grid,
        tuple(moment - present for moment in later),
        module.manifest.time_units,
        inputs,
        targets.unflatten(1, (window.horizon, -1)),
        predictions,
        seconds,
    )
