"""Network architectures, one per file. They are built from plain keyword arguments and do not depend on diffusions."""
