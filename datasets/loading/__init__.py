"""From a data set on disk to batches for training."""
