"""Metrics on features, one per file. Importing them does not import torch, so help and shell completion are fast."""
