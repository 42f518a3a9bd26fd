"""Readers for checkpoints of other programs, one module per format."""
