"""The layers that operators are made of."""
