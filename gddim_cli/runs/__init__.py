"""From a sampling request to a folder of images."""
