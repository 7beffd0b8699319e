"""Figures of errors: over samples, resolutions, wavenumbers and epochs."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sobolev.evaluation.comparison import Comparison
from sobolev.evaluation.figure_look import (
    LEGEND,
    PALE,
    SPECTRA,
    WIDE,
    plot,
    scale_values,
    show_single_points,
    tidied,
)
from sobolev.grids import energy_spectrum
from sobolev.grids.drawing import ERROR, PREDICTION, TRUTH
from sobolev.grids.norms import known
from sobolev.grids.variables import same_units

Sizes = tuple[int, ...]
"""Nodes per axis."""


def spectra(comparisons: Mapping[Sizes, Comparison]) -> Figure:
    """Draw the mean energy spectrum of truth, prediction and error at each resolution, in
    ``surrogate.comparable`` units; the mean over channels."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    low = 1.0
    for i, (_, c) in enumerate(sorted(comparisons.items())):
        prediction, target = c.comparable()
        shade = 0.35 + 0.65 * (i + 1) / len(comparisons)
        fields = {"truth": target, "prediction": prediction, "error": prediction - target}
        for (name, u), (colour, style) in zip(fields.items(), SPECTRA, strict=True):
            k, energy = energy_spectrum(u, c.grid)
            mean = energy.mean(dim=(0, 1))
            low = float(mean.max()) * 1e-16 if name == "truth" else low
            axes.loglog(
                k[1:],
                mean[1:].clamp(min=1e-30),
                style,
                color=colour,
                alpha=shade,
                lw=1.2,
                label=f"{name}, {c.label}",
            )
    axes.set(
        xlabel="wavenumber",
        ylabel="energy per shell",
        title="Energy spectrum of truth, prediction and error",
        ylim=(low, None),
    )
    figure.legend(loc="outside lower center", fontsize=8, ncols=len(comparisons), frameon=False)
    return figure


def training_curve(run: Path) -> Figure:
    """Draw training loss and validation error by epoch, from the run's ``metrics*.csv``, of which there
    is one per start."""
    rows: list[dict[str, str]] = []
    for file in sorted(run.glob("metrics*.csv")):  # metrics-000.csv … before metrics.csv
        with file.open() as handle:
            later = list(csv.DictReader(handle))
        first = min((int(row["epoch"]) for row in later), default=0)
        rows = [row for row in rows if int(row["epoch"]) < first] + later
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    curves = (
        ("train/loss", TRUTH, "training loss"),
        ("valid/relative_l2", PREDICTION, "validation, relative L²"),
    )
    for column, colour, label in curves:
        points = [(int(row["epoch"]) + 1, float(row[column])) for row in rows if row.get(column)]
        axes.semilogy(*zip(*points, strict=True), color=colour, lw=1.2, label=label)
    axes.set(xlabel="epoch", title="Training")
    axes.grid(alpha=0.3, which="both")
    show_single_points(axes)
    axes.legend()
    return figure


def error_histogram(comparisons: Mapping[Sizes, Comparison]) -> Figure:
    """Draw the distribution of the samples' relative L² errors at each resolution."""
    figure, axes = plot()
    errors = {n: c.errors().numpy() for n, c in sorted(comparisons.items())}
    errors = {n: e[np.isfinite(e) & (e > 0)] for n, e in errors.items()}
    finite = np.concatenate(list(errors.values()))
    low, high = (finite.min(), finite.max()) if len(finite) else (0.1, 1.0)
    wide = high > WIDE * low
    edges = (
        np.geomspace(low / 1.05, high * 1.05, 31)
        if wide
        else np.linspace(0.95 * low, 1.05 * high, 31)
    )
    for i, (sizes, values) in enumerate(errors.items()):
        shade = 0.35 + 0.65 * (i + 1) / len(errors)
        axes.hist(
            values,
            edges.tolist(),
            histtype="step",
            color=PREDICTION,
            alpha=shade,
            label=comparisons[sizes].label,
        )
        if len(values):
            axes.axvline(float(np.mean(values)), color=PREDICTION, alpha=shade, lw=0.8, ls=":")
    axes.set(
        xscale="log" if wide else "linear", xlabel="relative L² error of a sample", ylabel="samples"
    )
    axes.legend(title="nodes (dotted: mean)", **LEGEND)
    return tidied(figure)


def error_over_resolution(
    comparisons: Mapping[Sizes, Comparison], solver: Mapping[Sizes, float], trained_at: Sizes
) -> Figure:
    """Draw the mean relative L² error and its 10th to 90th percentile over nodes per axis, with the
    errors of the classical solver on the same grids where they are known."""
    figure, axes = plot()
    sizes = sorted(comparisons)
    nodes = [_per_axis(n) for n in sizes]
    errors = [known(comparisons[n].errors()) for n in sizes]
    low, high = ([float(e.quantile(q)) if len(e) else np.nan for e in errors] for q in (0.1, 0.9))
    axes.fill_between(nodes, low, high, color=PREDICTION, alpha=0.15, lw=0)
    means = [float(e.mean()) for e in errors]
    axes.plot(nodes, means, "o-", color=PREDICTION, lw=1.2, ms=4, label="surrogate")
    if solved := {_per_axis(n): e for n, e in sorted(solver.items()) if e > 0}:
        axes.plot(
            *zip(*solved.items(), strict=True), "s--", color=TRUTH, lw=1, ms=3, label="solver"
        )
    if trained_at in sizes:
        axes.axvline(_per_axis(trained_at), color=PALE, lw=0.8, ls=":", label="trained at")
    axes.set(xscale="log", xlabel="nodes per axis", ylabel="relative L² error")
    scale_values(axes, [*low, *high, *solved.values()])
    axes.set_xticks(nodes, [comparisons[n].label for n in sizes])
    axes.set_xticks([], minor=True)
    axes.legend(**LEGEND)
    return tidied(figure)


def error_over_parameter(comparison: Comparison, place: int) -> Figure:
    """Draw the samples' relative L² errors over one of their numbers, the first input channels."""
    figure, axes = plot()
    parameter = comparison.surrogate.meaning.parameters[place]
    values = comparison.inputs[:, place].flatten(1)[:, 0].numpy()
    axes.plot(values, comparison.errors().numpy(), "o", color=PREDICTION, ms=3, alpha=0.6)
    for end in (parameter.low, parameter.high):
        axes.axvline(end, color=PALE, lw=0.8, ls=":")
    units = "" if same_units(parameter.units, "1") else f" in {parameter.units}"
    axes.set(
        xscale=parameter.scale,
        yscale="log",
        xlabel=f"{parameter.long_name}{units} (dotted: range of the training data)",
        ylabel="relative L² error of a sample",
    )
    return tidied(figure)


def _per_axis(sizes: Sizes) -> float:
    """Return the geometric mean of the nodes per axis, to draw over."""
    return math.prod(sizes) ** (1 / len(sizes))


def binned_errors(comparisons: Mapping[Sizes, Comparison]) -> Figure:
    """Draw the share of the mean square error up to each wavenumber."""
    figure, axes = plot()
    for i, (_, c) in enumerate(sorted(comparisons.items())):
        k, bins, _ = c.spectral_error()
        shade = 0.35 + 0.65 * (i + 1) / len(comparisons)
        share = bins.cumsum(0) / bins.sum()
        axes.plot(k[1:], share[1:], color=ERROR, alpha=shade, lw=1.2, label=c.label)
    axes.set(
        xscale="log",
        ylim=(0, 1.02),
        xlabel="wavenumber",
        ylabel="share of the squared error up to it",
    )
    axes.legend(title="nodes", **LEGEND)
    return tidied(figure)
