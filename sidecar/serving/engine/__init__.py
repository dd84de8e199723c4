"""Turn requests into rows, and rows into results."""
