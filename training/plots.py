"""Figures that a person wants to see. Nothing here touches matplotlib's global state."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from sobolev.datasets.drawing import Scale, draw_field, name_row
from sobolev.solvers import SphereGrid, energy_spectrum

if TYPE_CHECKING:
    from sobolev.training.evaluation import Comparison
    from sobolev.training.surrogate import Surrogate

_TRUTH, _PREDICTION, _ERROR = "#222222", "#1f77b4", "#d62728"


def save(figure: Figure, path: Path) -> None:
    """Write a PNG."""
    figure.savefig(path, dpi=120)


def fields(comparison: Comparison, surrogate: Surrogate) -> Figure:
    """Input, truth, prediction and error of the sample of median error and of the worst one."""
    errors = comparison.errors()
    order = errors.argsort()
    picked = {"median": int(order[len(order) // 2]), "worst": int(order[-1])}
    figure = Figure(figsize=(12.5, 3.1 * len(picked)), layout="constrained")
    draw = _draw_lines if comparison.grid.ndim == 1 else _draw_maps
    panels = figure.subplots(len(picked), 3 if comparison.grid.ndim == 1 else 4, squeeze=False)
    for row, (label, sample) in zip(panels, picked.items(), strict=True):
        draw(list(row), comparison, surrogate, sample)
        name = f"{label} of {len(errors)}: relative L² {float(errors[sample]):.4f}"
        if isinstance(comparison.grid, SphereGrid):  # its panels have no axes to label
            name_row(row[0], name, comparison.grid)
        else:
            row[0].set_ylabel(name, fontsize=9)
    sizes = " × ".join(map(str, comparison.grid.shape))
    figure.suptitle(f"{surrogate.outputs[0].long_name} at {sizes} nodes")
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


def _draw_lines(row: list[Axes], c: Comparison, surrogate: Surrogate, sample: int) -> None:
    x = c.grid.points()[0]
    row[0].plot(x, c.inputs[sample, 0], color=_TRUTH, lw=1)
    row[0].set_title(surrogate.inputs[0].long_name)
    row[1].plot(x, c.targets[sample, 0], color=_TRUTH, lw=2, label="solver")
    row[1].plot(x, c.predictions[sample, 0], color=_PREDICTION, lw=1.2, ls="--", label="surrogate")
    row[1].set_title(surrogate.outputs[0].long_name)
    row[1].legend(fontsize=8)
    row[2].plot(x, c.predictions[sample, 0] - c.targets[sample, 0], color=_ERROR, lw=1)
    row[2].set_title("surrogate − solver")
    for axes in row:
        axes.set_xlabel(c.grid.dims[0])


def _draw_maps(row: list[Axes], c: Comparison, surrogate: Surrogate, sample: int) -> None:
    source, truth, prediction = (
        u[sample, 0].cpu().numpy() for u in (c.inputs, c.targets, c.predictions)
    )
    error = prediction - truth
    bound = max(float(abs(error).max()), 1e-30)
    panels = (
        (source, surrogate.inputs[0].long_name, Scale.of(source)),
        (truth, "solver", Scale.of(truth)),
        (prediction, "surrogate", Scale.of(truth)),
        (error, "surrogate − solver", Scale(-bound, bound, "diverging")),
    )
    for axes, (field, title, scale) in zip(row, panels, strict=True):
        draw_field(axes, field, c.grid, scale)
        axes.set_title(title, fontsize=10)
        axes.set(xticks=[], yticks=[])
        shrink = 0.4 if isinstance(c.grid, SphereGrid) else 0.85
        axes.figure.colorbar(ScalarMappable(**scale.colours), ax=axes, shrink=shrink)
