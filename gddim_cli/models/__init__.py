"""Networks, and the adapters that turn a network into the noise prediction `eps(u, t)` of a diffusion."""
