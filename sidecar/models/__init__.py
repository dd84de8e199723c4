"""A model's way from a folder to rows of floats: locate, prepare, verify, load."""
