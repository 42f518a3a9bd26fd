"""Checkpoints and reference files by name: catalogue, cache, download."""
