"""Conventions for what a network predicts, and how each prediction is turned into the denoiser `D(y, sigma)`."""
