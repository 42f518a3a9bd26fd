"""Samplers: short loops over precomputed coefficients. They depend on `eps(u, t)`, not on networks.

The state `u` is [B, D, ...]: batch, state dimension per pixel, and the axes of the pixel grid.
"""
