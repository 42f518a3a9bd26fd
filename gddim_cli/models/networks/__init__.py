"""Architectures, one a file: plain keyword arguments, no knowledge of diffusions."""
