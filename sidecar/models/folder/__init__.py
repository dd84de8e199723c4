"""Model folders, read the way sentence-transformers reads them."""
