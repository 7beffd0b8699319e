"""Training, judging and saving surrogates."""

from sobolev.training.incremental import IncrementalModes
from sobolev.training.losses import (
    BandLoss,
    FieldLoss,
    FrameLoss,
    SobolevLoss,
    relative_error,
)
from sobolev.training.metrics import RelativeError, SampleMean
from sobolev.training.module import OperatorModule
from sobolev.training.surrogate import Surrogate

__all__ = [
    "BandLoss",
    "FieldLoss",
    "FrameLoss",
    "IncrementalModes",
    "OperatorModule",
    "RelativeError",
    "SampleMean",
    "SobolevLoss",
    "Surrogate",
    "relative_error",
]
