"""The socket and its connections: bytes to requests, results to bytes."""
