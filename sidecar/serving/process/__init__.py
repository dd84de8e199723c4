"""The daemon's process: startup, reloads, shutdown, memory and file descriptors."""
