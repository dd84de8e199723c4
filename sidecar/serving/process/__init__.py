"""The daemon's process: from its first line to its exit code, reloads, what it keeps of memory."""
