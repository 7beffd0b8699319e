"""A shallow layer on the rotating sphere."""

from sobolev.solvers.shallow_water.equation import ShallowWater
from sobolev.solvers.shallow_water.flow import truncation
from sobolev.solvers.shallow_water.states import balanced, galewsky, random_states, williamson2

__all__ = ["ShallowWater", "balanced", "galewsky", "random_states", "truncation", "williamson2"]
