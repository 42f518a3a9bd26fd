"""Samplers: short loops over precomputed coefficients. A sampler sees the network only as a function `eps(u, t)`.

The state `u` has the shape [B, D, ...]: batch, state dimension per pixel, and the axes of the pixel grid.
"""
