"""A model's folder, read as sentence-transformers reads it."""
