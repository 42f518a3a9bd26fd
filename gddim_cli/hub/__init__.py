"""Finds checkpoints and reference files by name: the catalogue, the cache and downloads."""
