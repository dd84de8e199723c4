"""The socket and its connections: bytes into requests, results into bytes."""
