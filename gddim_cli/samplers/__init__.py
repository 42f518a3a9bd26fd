"""Samplers: short loops over coefficients computed beforehand. They know `eps(u, t)` and nothing of networks.

The state `u` is [B, D, ...]: D numbers a pixel, then whatever a pixel grid is.
"""
