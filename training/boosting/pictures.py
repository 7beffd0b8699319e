"""The spectra of what each stage of a boost leaves, as a picture."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from sobolev.grids.drawing import ERROR, TRUTH


def stage_spectra(
    wavenumbers: Float[Tensor, " shell"],
    truth: Float[Tensor, " shell"],
    errors: Mapping[str, Float[Tensor, " shell"]],
) -> Figure:
    """Draw the energy spectra of the errors before and after stages of a boosted operator, by name,
    beside the truth's."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.loglog(wavenumbers[1:], truth[1:].clamp(min=1e-30), color=TRUTH, lw=1.2, label="truth")
    for i, (name, energy) in enumerate(errors.items()):
        shade = 0.3 + 0.7 * (i + 1) / len(errors)
        axes.loglog(
            wavenumbers[1:],
            energy[1:].clamp(min=1e-30),
            color=ERROR,
            alpha=shade,
            lw=1.2 + 1.8 * (len(errors) - 1 - i),  # to be seen beneath a stage that changes nothing
            label=name,
        )
    least = min(energy[1:].min() for energy in errors.values())
    axes.set(
        xlabel="wavenumber",
        ylabel="energy per shell, in variances",
        title="What each stage leaves of the truth",
        ylim=(max(float(least) / 3, float(truth.max()) * 1e-14), None),
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure
