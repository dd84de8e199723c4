"""The proof that a model's FP32 graph gives what sentence-transformers gives for the folder."""
