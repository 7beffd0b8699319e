"""Recipes that data sets are drawn from, one file a problem."""
