"""Multistep methods fitted to a network: with few steps, they come close to the images that many steps would give."""
