"""Certificates, calibration and refinement: an equation judges a prediction, without the truth."""

from sobolev.certification.calibration import calibrate
from sobolev.certification.certificates import certificate_of, effectivity
from sobolev.certification.certifying import certified
from sobolev.certification.refinement import refine
from sobolev.certification.residuals import residual_norm

__all__ = [
    "calibrate",
    "certificate_of",
    "certified",
    "effectivity",
    "refine",
    "residual_norm",
]
