"""Neural operators: maps between fields that are not tied to a grid."""

from sobolev.operators.base import Operator, channel_axes
from sobolev.operators.building import operator_from
from sobolev.operators.fno import FNO
from sobolev.operators.gfno import GFNO
from sobolev.operators.layers.spectral_conv import SpectralConv
from sobolev.operators.layers.spherical_conv import SphericalConv
from sobolev.operators.mgno import MgNO
from sobolev.operators.modulated import Modulated
from sobolev.operators.neuralop_weights import fno_from_neuralop
from sobolev.operators.original_weights import fno_from_original
from sobolev.operators.planar import Planar
from sobolev.operators.sfno import SFNO
from sobolev.operators.specboost import SpecBoost
from sobolev.operators.stfno import SpatioTemporalFNO
from sobolev.operators.trajectory import Trajectory

__all__ = [
    "FNO",
    "GFNO",
    "SFNO",
    "MgNO",
    "Modulated",
    "Operator",
    "Planar",
    "SpatioTemporalFNO",
    "SpecBoost",
    "SpectralConv",
    "SphericalConv",
    "Trajectory",
    "channel_axes",
    "fno_from_neuralop",
    "fno_from_original",
    "operator_from",
]
