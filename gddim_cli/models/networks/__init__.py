"""Network architectures, one per file: built from plain keyword arguments, independent of diffusions."""
