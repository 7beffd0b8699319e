"""One equation a file."""

from sobolev.solvers.equations.burgers import Burgers

__all__ = ["Burgers"]
