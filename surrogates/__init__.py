"""The saved thing that a user predicts with."""

from sobolev.surrogates.surrogate import Surrogate

__all__ = ["Surrogate"]
