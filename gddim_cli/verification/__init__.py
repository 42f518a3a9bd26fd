"""`gddim check`: tests of diffusions and gDDIM against exact answers, and of how well models denoise."""
