"""The client of a Sidecar daemon: texts in, vectors and rankings out, over a Unix socket."""
