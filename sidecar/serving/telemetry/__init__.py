"""Counters, distributions and metrics of the daemon's work."""
