"""Training, judging and saving surrogates."""

from sobolev.certification.certificates import calibrate, certificate_of, effectivity
from sobolev.certification.refinement import refine
from sobolev.certification.residuals import residual_norm
from sobolev.grids.norms import relative_error
from sobolev.surrogates.surrogate import Surrogate
from sobolev.training.callbacks.incremental import IncrementalModes
from sobolev.training.losses import BandLoss, FieldLoss, FrameLoss, SobolevLoss, SumLoss
from sobolev.training.metrics import RelativeError, SampleMean
from sobolev.training.module import OperatorModule
from sobolev.training.optimizers.soap import SOAP

__all__ = [
    "SOAP",
    "BandLoss",
    "FieldLoss",
    "FrameLoss",
    "IncrementalModes",
    "OperatorModule",
    "RelativeError",
    "SampleMean",
    "SobolevLoss",
    "SumLoss",
    "Surrogate",
    "calibrate",
    "certificate_of",
    "effectivity",
    "refine",
    "relative_error",
    "residual_norm",
]
