"""Checkpoints: what a card says, where named ones lie, and the one native format."""
