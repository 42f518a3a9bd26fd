"""Readers of the files that other programs wrote, one format a file."""
