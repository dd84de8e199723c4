"""Requests to rows, rows to results."""
