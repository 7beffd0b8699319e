"""SpecBoost's stages, trained one after another."""

from sobolev.training.boosting.stages import BoostingModule, boost

__all__ = ["BoostingModule", "boost"]
