"""Which row is computed next, and the threads that compute it."""
