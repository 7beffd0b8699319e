"""Flow on the torus, by its vorticity."""
