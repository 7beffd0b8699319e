"""Callbacks: the work of training beside its steps."""
