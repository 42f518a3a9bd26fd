"""Storage of a run's images in its folder, one format per file."""
