"""Tests of a diffusion and of samplers on it against exact answers: `gddim check`."""
