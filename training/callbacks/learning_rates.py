"""A trial of learning rates."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import lightning
import numpy as np
from lightning.pytorch.tuner import Tuner
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter1d

from sobolev.datasets.store.whole_files import replacing
from sobolev.training.module import OperatorModule

_log = logging.getLogger("sobolev")


def find_learning_rate(
    trainer: lightning.Trainer,
    module: OperatorModule,
    data: lightning.LightningDataModule,
    picture: Path,
    *,
    steps: int = 100,
) -> float:
    """Return the learning rate at which the loss falls fastest, by a trial of growing rates (Smith 2017).

    Weights and optimiser are afterwards what they were. The loss of each step, smoothed, is drawn over
    the rate in ``picture``.

    Raises:
        ArithmeticError: if the loss fell at no rate.
        ValueError: under ``fast_dev_run``.
    """
    loop = trainer.fit_loop
    epochs = loop.max_epochs
    validations = trainer.check_val_every_n_epoch
    loop.max_epochs = steps * trainer.accumulate_grad_batches  # enough, however short an epoch
    if validations is not None:
        trainer.check_val_every_n_epoch = loop.max_epochs + 1
    module.may_diverge = True
    try:
        finder = Tuner(trainer).lr_find(
            module,
            datamodule=data,
            min_lr=1e-6,
            max_lr=1.0,
            num_training=steps,
            update_attr=False,
        )
    finally:
        module.may_diverge = False
        loop.max_epochs = epochs
        trainer.check_val_every_n_epoch = validations
    if finder is None:
        raise ValueError("a trial of learning rates needs more than trainer.fast_dev_run")
    rates = finder.results["lr"]
    losses = _unsmoothed(finder.results["loss"])
    found = steepest(rates, losses)
    if trainer.is_global_zero:
        with replacing(picture) as part:
            _draw_rates(rates, losses, found).savefig(part, dpi=120, format="png")
        _log.info(f"learning rate {found:.2e}, from a trial drawn in {picture}")
    return found


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the rate at which the loss, smoothed, falls fastest over log(rate), before it is lowest.

    >>> rates = [10 ** (-6 + k / 20) for k in range(100)]
    >>> losses = [1 / (1 + (rate / 1e-3) ** 2) + rate**2 for rate in rates]
    >>> f"{steepest(rates, losses):.1e}"  # −d/d(log r) of 1/(1 + (r/ρ)²) is largest at r = ρ
    '1.0e-03'

    Raises:
        ArithmeticError: if the loss fell at no rate.
    """
    smooth = _smooth(losses)
    lowest = int(smooth.argmin())
    if lowest < 2 or not smooth[lowest] < smooth[0]:
        raise ArithmeticError(
            "the loss fell at no learning rate of the trial; set model.learning_rate by hand"
        )
    slope = np.gradient(smooth[: lowest + 1], np.log(rates[: lowest + 1]))
    return float(rates[int(slope.argmin())])


def _smooth(losses: Sequence[float]) -> np.ndarray:
    """Return the losses of single batches, averaged over a few steps. Those of a diverged end count as no
    gain."""
    values = np.nan_to_num(np.array(losses), nan=np.inf, posinf=np.inf)
    values = np.minimum(values, 2 * values[np.isfinite(values)][0])
    return gaussian_filter1d(values, 3.0, mode="nearest")


def _unsmoothed(losses: Sequence[float], beta: float = 0.98) -> list[float]:
    """Return the losses of the single steps, from Lightning's running mean.

    That mean lags by some fifty steps and, at the beginning, falls short by up to a half, so that a
    trial would always look best at its smallest rates.
    """
    means = [value * (1 - beta ** (k + 2)) for k, value in enumerate(losses)]
    return [
        (m - beta * before) / (1 - beta) for m, before in zip(means, [0.0, *means], strict=False)
    ]


def _draw_rates(rates: Sequence[float], losses: Sequence[float], found: float) -> Figure:
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(rates, losses, lw=0.8, alpha=0.4, label="each step")
    axes.semilogx(rates, _smooth(losses), lw=1.4, color="#1f77b4", label="smoothed")
    axes.axvline(found, color="#d62728", lw=1.0, label=f"used: {found:.2e}")
    axes.set(
        xlabel="learning rate",
        ylabel="training loss",
        ylim=(0.0, 1.5 * losses[0]),
        title="Trial of learning rates",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
