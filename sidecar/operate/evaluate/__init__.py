"""Measures how accurate a model is in each precision, on data that people have judged."""
