"""Networks, and how a network becomes the noise prediction `eps(u, t)` of a diffusion."""
