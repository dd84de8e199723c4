"""Whole corpora: files of texts → one file of vectors, through a daemon that runs."""
