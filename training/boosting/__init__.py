"""SpecBoost's stages, trained one after another."""
