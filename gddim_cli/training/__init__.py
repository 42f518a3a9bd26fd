"""Training a denoiser: the recipe, the trainer, and the resulting model card."""
