"""The figures of an evaluation. Nothing here touches matplotlib's global state."""

from sobolev.evaluation.cost_figures import bounds, effectivities, total_cost, work_and_precision
from sobolev.evaluation.error_figures import (
    binned_errors,
    error_histogram,
    error_over_parameter,
    error_over_resolution,
    spectra,
    training_curve,
)
from sobolev.evaluation.field_figures import fields
from sobolev.evaluation.figure_look import save
from sobolev.evaluation.rollout_figures import drift, error_over_time, filmstrip, last_spectra

__all__ = [
    "binned_errors",
    "bounds",
    "drift",
    "effectivities",
    "error_histogram",
    "error_over_parameter",
    "error_over_resolution",
    "error_over_time",
    "fields",
    "filmstrip",
    "last_spectra",
    "save",
    "spectra",
    "total_cost",
    "training_curve",
    "work_and_precision",
]
