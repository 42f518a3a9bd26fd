"""Features of images, and metrics between their distributions."""
