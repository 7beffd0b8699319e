"""Training of surrogates: losses, the training step, optimizers, runs."""

from sobolev.grids.norms import relative_error
from sobolev.surrogates import Surrogate
from sobolev.training.callbacks.incremental import IncrementalModes
from sobolev.training.losses import BandLoss, FieldLoss, FrameLoss, SobolevLoss, SumLoss
from sobolev.training.metrics import RelativeError, SampleMean
from sobolev.training.module import OperatorModule
from sobolev.training.optimizers.soap import SOAP
from sobolev.training.runs.run import Run, train

__all__ = [
    "SOAP",
    "BandLoss",
    "FieldLoss",
    "FrameLoss",
    "IncrementalModes",
    "OperatorModule",
    "RelativeError",
    "Run",
    "SampleMean",
    "SobolevLoss",
    "SumLoss",
    "Surrogate",
    "relative_error",
    "train",
]

_MOVED = {
    "calibrate": "sobolev.certification",
    "certificate_of": "sobolev.certification",
    "effectivity": "sobolev.certification",
    "refine": "sobolev.certification",
    "residual_norm": "sobolev.certification",
}


def __getattr__(name: str) -> object:
    """Say where the names went that used to be here."""
    hint = f"; it is in {_MOVED[name]}" if name in _MOVED else ""
    raise AttributeError(f"module 'sobolev.training' has no attribute {name!r}{hint}")
