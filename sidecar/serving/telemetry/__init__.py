"""What the daemon has done, in numbers."""
