"""Prove that a model's FP32 graph gives what sentence-transformers gives for its folder."""
