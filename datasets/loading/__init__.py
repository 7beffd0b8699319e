"""Batches for training, from a data set on disk."""
