"""Metrics on features, one per file. Importing them does not import torch, so that help and shell completion stay fast."""
