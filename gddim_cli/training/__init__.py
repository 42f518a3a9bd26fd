"""Training a denoiser: the recipe, the trainer, the model card it leaves."""
