"""Network architectures, one per file. They are built from plain keyword arguments and know nothing of diffusions."""
