"""How accurate a model is in each precision, on folders of texts that people have judged."""
