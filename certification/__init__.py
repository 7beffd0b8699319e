"""What an equation says of a prediction, without the truth."""
