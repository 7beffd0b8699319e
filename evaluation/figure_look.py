"""The common look of an evaluation's figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sobolev.grids.drawing import ERROR, PREDICTION, TRUTH

PALE = "#8c8c8c"
WIDE = 20
"""Ratio of the largest to the least value from which on an axis is logarithmic."""
SPECTRA = ((TRUTH, "-"), (PREDICTION, "--"), (ERROR, "-"))
"""Colour and line of truth, prediction and error."""
LEGEND: dict[str, Any] = {"fontsize": 7, "title_fontsize": 7, "frameon": False}


def save(figure: Figure, path: Path) -> None:
    """Write a PNG."""
    figure.savefig(path, dpi=120)
    figure.set_layout_engine("none")  # found once, the layout holds for whatever else is written


def plot() -> tuple[Figure, Axes]:
    """Return a figure of the usual size with one panel, and its axes."""
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    return figure, figure.subplots()


def scale_values(axes: Axes, values: Sequence[float] | np.ndarray) -> None:
    """Make the y axis logarithmic where it has several decades to show, else begin it at 0."""
    shown = np.asarray(values, dtype=float)
    shown = shown[np.isfinite(shown) & (shown > 0)]
    if len(shown) and shown.max() > WIDE * shown.min():
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, None)


def tidied(figure: Figure) -> Figure:
    """Give all panels a faint grid, small labels and no frame above and on the right; return the figure."""
    for axes in figure.axes:
        axes.grid(alpha=0.25, lw=0.5)
        axes.tick_params(which="both", labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        show_single_points(axes)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_fontsize(8)
    return figure


def show_single_points(axes: Axes) -> None:
    """Mark lines of one point, such as the error of one frame or epoch: they would not be seen."""
    for line in axes.lines:
        if np.isfinite(np.asarray(line.get_ydata(), dtype=float)).sum() == 1:
            line.set_marker("o")


def ranked(errors: Float[Tensor, " sample"]) -> Int[Tensor, " known"]:
    """Return the samples from the best to the worst, without those that have no error, if others have."""
    order = errors.argsort()
    some = ~errors[order].isnan()
    return order[some] if bool(some.any()) else order


def plottable(values: Sequence[float] | Float[Tensor, " ..."]) -> np.ndarray:
    """Return values with gaps where they are not finite."""
    array = np.asarray(values, dtype=float)
    return np.where(np.isfinite(array), array, np.nan)
