"""Figures of merit of predictions beside true fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from jaxtyping import Float
from torch import Tensor

from sobolev.grids import AbstractGrid
from sobolev.grids.norms import relative_error
from sobolev.training.metrics import max_error, nrmse, spectrum_error, vrmse

Fields = Float[Tensor, "sample channels *space"]


@dataclass(frozen=True)
class Measure:
    """A figure of merit: one number per sample from ``(prediction, target, grid)``."""

    title: str
    definition: str
    of: Callable[[Fields, Fields, AbstractGrid], Float[Tensor, " sample"]]
    comparable: bool = True
    """True if it is taken of fields in ``surrogate.comparable`` units rather than in their own."""


MEASURES = {
    "relative_l2": Measure("relative L²", "‖p − y‖ / ‖y‖ with ‖u‖² = ∫u²", relative_error),
    "relative_h1": Measure(
        "relative H¹",
        "the same with ‖u‖² = Σₖ (1 + λₖ) |ûₖ|², λₖ the eigenvalues of −Δ: values and gradients",
        partial(relative_error, order=1.0),
    ),
    "relative_h-1": Measure(
        "relative H⁻¹",
        "the same with ‖u‖² = Σₖ |ûₖ|² / (1 + λₖ): large scales",
        partial(relative_error, order=-1.0),
    ),
    "nrmse": Measure(
        "nRMSE",
        "√⟨(p − y)²⟩ / √⟨y²⟩ per channel, then their mean, ⟨⟩ the mean over space (PDEBench)",
        nrmse,
        comparable=False,
    ),
    "vrmse": Measure(
        "VRMSE",
        "√⟨(p − y)²⟩ / √⟨(y − ⟨y⟩)²⟩ per channel, then their mean; predicting the mean scores 1 (The Well)",
        vrmse,
        comparable=False,
    ),
    "max_error": Measure(
        "max error", "max |p − y| over all nodes, in training standard deviations", max_error
    ),
    "spectrum_error": Measure(
        "spectrum error",
        "√⟨(log₁₀ Eₚ(k)/E(k))²⟩ over the shells of wavenumber the truth has energy in: decades between the energy "
        "spectra, whatever the phases",
        spectrum_error,
    ),
}  # fmt: skip
