"""From a model folder to rows of floats: locate, prepare, verify, load."""
