"""From a socket to vectors: lifecycle → server → session → engine → worker, batch."""
