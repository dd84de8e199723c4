"""Embedding of whole corpora: files of texts → one file of vectors, through a running daemon."""
