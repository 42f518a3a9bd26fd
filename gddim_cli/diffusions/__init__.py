"""Linear diffusions as matrices, one a file, and a registry of their names."""
