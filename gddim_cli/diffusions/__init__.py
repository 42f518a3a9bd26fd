"""Linear diffusions, defined by their matrices: one module each, a registry by name, and a loader for users' files."""
