"""What training does beside its steps."""
