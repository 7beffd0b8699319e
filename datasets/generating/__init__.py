"""Drawing, solving, writing and verifying data sets."""
