"""Darcy flow, and the solvers of its linear systems."""
