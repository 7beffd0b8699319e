"""Figures of fields: truth, prediction and error, sample by sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from sobolev.evaluation.comparison import Comparison
from sobolev.evaluation.figure_look import ranked
from sobolev.grids import Grid, SphereGrid
from sobolev.grids.drawing import (
    ERROR,
    PREDICTION,
    TRUTH,
    Scale,
    draw_field,
    drawable_grid,
    name_row,
    wrap,
)
from sobolev.surrogates import Surrogate


def fields(comparison: Comparison, surrogate: Surrogate) -> Figure:
    """Draw input, truth, prediction and error of the sample of median error and of the worst one.

    Each output has a row, beside the input of its number or the last. Of more than three outputs the
    first, the middle and the last are drawn. A volume is cut in the middle of its first axis.
    """
    errors = comparison.errors()
    sizes = " × ".join(map(str, comparison.grid.shape))
    comparison, cut = _section(comparison)
    order = ranked(errors)
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
        name = f"{label} of {len(errors)}:\nrelative L² {float(errors[sample]):.4f}"
        if isinstance(comparison.grid, SphereGrid):  # its panels have no axes to label
            name_row(row[0], name, comparison.grid)
        else:
            row[0].set_ylabel(name, fontsize=9)
    what = surrogate.outputs[0].long_name if count == 1 else f"{len(shown)} of {count} outputs"
    figure.suptitle(
        f"{what} at {sizes} nodes{cut}", parse_math=False
    )  # a stranger's name is no formula
    return figure


def _section(c: Comparison) -> tuple[Comparison, str]:
    """Return the middle slice of a volume, and words that say which; lines and maps as they are."""
    if c.grid.ndim < 3:
        return c, ""
    first, *others = drawable_grid(c.grid).axes
    middle = first.size // 2
    inputs, targets, predictions = (u[:, :, middle] for u in (c.inputs, c.targets, c.predictions))
    plane = replace(c, grid=Grid(*others), inputs=inputs, targets=targets, predictions=predictions)
    return plane, f", cut at {first.name} = {float(first.points()[middle]):.4g}"


def _drawn(
    c: Comparison, surrogate: Surrogate, sample: int, output: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, str, str]:
    """Return input, truth and prediction, and the names of the input and the output."""
    i = min(surrogate.meaning.unsigned + output, len(surrogate.inputs) - 1)
    if surrogate.window is not None:  # the present frame, which is the last
        quantities = len(surrogate.quantities)
        i = len(surrogate.inputs) - quantities + output % quantities
    domain = surrogate.domain_of(c.inputs[sample : sample + 1])
    shown = [c.inputs[sample, i], c.targets[sample, output], c.predictions[sample, output]]
    if domain is not None:
        shown = [u.masked_fill(domain[0, 0] == 0, torch.nan) for u in shown]
    source, truth, prediction = (u.cpu().numpy() for u in shown)
    return (
        source,
        truth,
        prediction,
        "\n".join(wrap(surrogate.inputs[i].long_name, 34)),
        "\n".join(wrap(surrogate.outputs[output].long_name, 34)),
    )


def _draw_lines(
    row: list[Axes], c: Comparison, surrogate: Surrogate, sample: int, output: int
) -> None:
    x = c.grid.points()[0]
    source, truth, prediction, given, asked = _drawn(c, surrogate, sample, output)
    row[0].plot(x, source, color=TRUTH, lw=1)
    row[0].set_title(given, parse_math=False)
    row[1].plot(x, truth, color=TRUTH, lw=2, label="solver")
    row[1].plot(x, prediction, color=PREDICTION, lw=1.2, ls="--", label="surrogate")
    row[1].set_title(asked, parse_math=False)
    row[1].legend(fontsize=8)
    row[2].plot(x, prediction - truth, color=ERROR, lw=1)
    row[2].set_title("surrogate − solver")
    for axes in row:
        axes.set_xlabel(c.grid.dims[0])


def _draw_maps(
    row: list[Axes], c: Comparison, surrogate: Surrogate, sample: int, output: int
) -> None:
    source, truth, prediction, given, asked = _drawn(c, surrogate, sample, output)
    error = prediction - truth
    bound = max(float(np.nanmax(abs(error))), 1e-30)
    panels = (
        (source, given, Scale.of(source)),
        (truth, f"{asked}\nsolver" if len(surrogate.outputs) > 1 else "solver", Scale.of(truth)),
        (prediction, "surrogate", Scale.of(truth)),
        (error, "surrogate − solver", Scale(-bound, bound, "diverging")),
    )
    for axes, (field, title, scale) in zip(row, panels, strict=True):
        draw_field(axes, field, c.grid, scale)
        axes.set_title(title, fontsize=10, parse_math=False)
        axes.set(xticks=[], yticks=[])
        shrink = 0.4 if isinstance(c.grid, SphereGrid) else 0.85
        axes.figure.colorbar(ScalarMappable(**scale.colours), ax=axes, shrink=shrink)
