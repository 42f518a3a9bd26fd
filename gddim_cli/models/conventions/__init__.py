"""What networks predict, one convention a file: how each becomes the denoiser `D(y, sigma)`."""
