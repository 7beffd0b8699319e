"""Judging surrogates."""
