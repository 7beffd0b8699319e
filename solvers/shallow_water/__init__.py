"""A shallow layer on the rotating sphere."""
