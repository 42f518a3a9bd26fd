"""Metrics on features, one a file. Importing them imports no torch: `gddim fid --help` and shell completion stay quick."""
