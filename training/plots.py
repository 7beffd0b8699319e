"""Figures that a person wants to see. Nothing here touches matplotlib's global state."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from sobolev.datasets.drawing import Scale, draw_field, flat_grid, name_row, wrap
from sobolev.solvers import Grid, SphereGrid, energy_spectrum

if TYPE_CHECKING:
    from sobolev.training.evaluation import Comparison
    from sobolev.training.surrogate import Surrogate

_TRUTH, _PREDICTION, _ERROR = "#222222", "#1f77b4", "#d62728"


def save(figure: Figure, path: Path) -> None:
    """Write a PNG."""
    figure.savefig(path, dpi=120)


def fields(comparison: Comparison, surrogate: Surrogate) -> Figure:
    """Input, truth, prediction and error of the sample of median error and of the worst one.

    Each output has a row, beside the input of its number or the last; of more than three outputs
    the first, the middle and the last. A volume is cut in the middle of its first axis.
    """
    errors, sizes = comparison.errors(), " × ".join(map(str, comparison.grid.shape))
    comparison, cut = _section(comparison)
    order = errors.argsort()
    picked = {"median": int(order[len(order) // 2]), "worst": int(order[-1])}
    count = len(surrogate.outputs)
    shown = sorted({0, count // 2, count - 1})
    rows = [(label, sample, i) for label, sample in picked.items() for i in shown]
    height = 1.8 if isinstance(comparison.grid, SphereGrid) else 3.1  # maps of a sphere are 2 : 1
    figure = Figure(figsize=(12.5, height * len(rows)), layout="constrained")
    draw = _draw_lines if comparison.grid.ndim == 1 else _draw_maps
    panels = figure.subplots(len(rows), 3 if comparison.grid.ndim == 1 else 4, squeeze=False)
    for row, (label, sample, i) in zip(panels, rows, strict=True):
        draw(list(row), comparison, surrogate, sample, i)
        name = f"{label} of {len(errors)}: relative L² {float(errors[sample]):.4f}"
        if isinstance(comparison.grid, SphereGrid):  # its panels have no axes to label
            name_row(row[0], name, comparison.grid)
        else:
            row[0].set_ylabel(name, fontsize=9)
    what = surrogate.outputs[0].long_name if count == 1 else f"{len(shown)} of {count} outputs"
    figure.suptitle(f"{what} at {sizes} nodes{cut}")
    return figure


def spectra(comparisons: Mapping[int, Comparison]) -> Figure:
    """Mean energy spectrum of truth and error at each resolution."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for i, (resolution, c) in enumerate(sorted(comparisons.items())):
        k, truth = energy_spectrum(c.targets.double(), c.grid)
        _, error = energy_spectrum((c.predictions - c.targets).double(), c.grid)
        shade = 0.35 + 0.65 * (i + 1) / len(comparisons)
        for energy, colour, name in ((truth, _TRUTH, "truth"), (error, _ERROR, "error")):
            mean = energy.mean(dim=(0, 1))
            axes.loglog(
                k[1:],
                mean[1:].clamp(min=1e-30),
                color=colour,
                alpha=shade,
                lw=1.2,
                label=f"{name}, {resolution}",
            )
    low = float(truth.mean(dim=(0, 1)).max()) * 1e-16
    axes.set(
        xlabel="wavenumber",
        ylabel="energy per shell",
        title="Energy spectrum of truth and error",
        ylim=(low, None),
    )
    axes.legend(fontsize=8, ncols=2)
    return figure


def training_curve(run: Path) -> Figure:
    """Training loss and validation error by epoch, from the run's ``metrics*.csv``, one per
    start."""
    rows: list[dict[str, str]] = []
    for file in sorted(run.glob("metrics*.csv")):  # metrics-000.csv … before metrics.csv
        with file.open() as handle:
            later = list(csv.DictReader(handle))
        first = min((int(row["epoch"]) for row in later), default=0)
        rows = [row for row in rows if int(row["epoch"]) < first] + later
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    curves = (
        ("train/loss", _TRUTH, "training loss"),
        ("valid/relative_l2", _PREDICTION, "validation, relative L²"),
    )
    for column, colour, label in curves:
        points = [(int(row["epoch"]) + 1, float(row[column])) for row in rows if row.get(column)]
        axes.semilogy(*zip(*points, strict=True), color=colour, lw=1.2, label=label)
    axes.set(xlabel="epoch", title="Training")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    return figure


def _section(c: Comparison) -> tuple[Comparison, str]:
    """The middle slice of a volume, and words that say which; lines and maps as they are."""
    if c.grid.ndim < 3:
        return c, ""
    first, *others = flat_grid(c.grid).axes
    middle = first.size // 2
    inputs, targets, predictions = (u[:, :, middle] for u in (c.inputs, c.targets, c.predictions))
    plane = replace(c, grid=Grid(*others), inputs=inputs, targets=targets, predictions=predictions)
    return plane, f", cut at {first.name} = {float(first.points()[middle]):.4g}"


def _drawn(
    c: Comparison, surrogate: Surrogate, sample: int, output: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, str, str]:
    """Input, truth and prediction, and the names of the input and the output."""
    i = min(output, len(surrogate.inputs) - 1)
    given, asked = surrogate.inputs[i].long_name, surrogate.outputs[output].long_name
    return (
        c.inputs[sample, i].cpu().numpy(),
        c.targets[sample, output].cpu().numpy(),
        c.predictions[sample, output].cpu().numpy(),
        "\n".join(wrap(given, 34)),
        "\n".join(wrap(asked, 34)),
    )


def _draw_lines(
    row: list[Axes], c: Comparison, surrogate: Surrogate, sample: int, output: int
) -> None:
    x = c.grid.points()[0]
    source, truth, prediction, given, asked = _drawn(c, surrogate, sample, output)
    row[0].plot(x, source, color=_TRUTH, lw=1)
    row[0].set_title(given)
    row[1].plot(x, truth, color=_TRUTH, lw=2, label="solver")
    row[1].plot(x, prediction, color=_PREDICTION, lw=1.2, ls="--", label="surrogate")
    row[1].set_title(asked)
    row[1].legend(fontsize=8)
    row[2].plot(x, prediction - truth, color=_ERROR, lw=1)
    row[2].set_title("surrogate − solver")
    for axes in row:
        axes.set_xlabel(c.grid.dims[0])


def _draw_maps(
    row: list[Axes], c: Comparison, surrogate: Surrogate, sample: int, output: int
) -> None:
    source, truth, prediction, given, asked = _drawn(c, surrogate, sample, output)
    error = prediction - truth
    bound = max(float(abs(error).max()), 1e-30)
    panels = (
        (source, given, Scale.of(source)),
        (truth, f"{asked}\nsolver" if len(surrogate.outputs) > 1 else "solver", Scale.of(truth)),
        (prediction, "surrogate", Scale.of(truth)),
        (error, "surrogate − solver", Scale(-bound, bound, "diverging")),
    )
    for axes, (field, title, scale) in zip(row, panels, strict=True):
        draw_field(axes, field, c.grid, scale)
        axes.set_title(title, fontsize=10)
        axes.set(xticks=[], yticks=[])
        shrink = 0.4 if isinstance(c.grid, SphereGrid) else 0.85
        axes.figure.colorbar(ScalarMappable(**scale.colours), ax=axes, shrink=shrink)
