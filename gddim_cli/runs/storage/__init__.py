"""How a run's images lie in its folder, one format a file."""
