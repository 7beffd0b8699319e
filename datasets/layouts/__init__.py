"""To and from the layouts that other tools use."""
