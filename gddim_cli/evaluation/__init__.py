"""Features of images, and distances between their distributions."""
