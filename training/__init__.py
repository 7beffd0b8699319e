"""Training, judging and saving surrogates."""

from sobolev.training.certificates import calibrate, certificate_of, effectivity
from sobolev.training.incremental import IncrementalModes
from sobolev.training.losses import (
    BandLoss,
    FieldLoss,
    FrameLoss,
    SobolevLoss,
    SumLoss,
    relative_error,
)
from sobolev.training.metrics import RelativeError, SampleMean
from sobolev.training.module import OperatorModule
from sobolev.training.refining import refine
from sobolev.training.residuals import residual_norm
from sobolev.training.soap import SOAP
from sobolev.training.surrogate import Surrogate

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
