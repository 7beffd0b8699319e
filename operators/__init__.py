"""Neural operators: maps between fields that are not tied to a grid."""

from sobolev.operators.base import Operator, operator_from
from sobolev.operators.fno import FNO
from sobolev.operators.spectral_conv import SpectralConv

__all__ = ["FNO", "Operator", "SpectralConv", "operator_from"]
