"""Linear diffusions as matrices: one file each, a registry of names, and users' own files."""
