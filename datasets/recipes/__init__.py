"""What data sets are drawn from: one file a problem."""
