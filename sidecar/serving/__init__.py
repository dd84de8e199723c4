"""The path from a socket to vectors: lifecycle → server → session → engine → workers."""
