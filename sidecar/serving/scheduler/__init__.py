"""Decide which row is computed next, and run the threads that compute it."""
