"""Networks that turn uint8 images into features, one kind per file."""
