"""Training, judging and saving surrogates."""

from sobolev.training.losses import SobolevLoss, relative_error
from sobolev.training.metrics import RelativeError
from sobolev.training.module import OperatorModule
from sobolev.training.surrogate import Surrogate

__all__ = ["OperatorModule", "RelativeError", "SobolevLoss", "Surrogate", "relative_error"]
