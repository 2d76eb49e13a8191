"""HTTP: the only floor that knows it."""
