"""Frames to write to a socket that may not accept them all at once."""

import socket
from collections import deque


class Outbox:
    """Frames in order, each with its request's id; `_sent` bytes of the first have been sent."""

    def __init__(self) -> None:
        self._frames: deque[tuple[int, memoryview]] = deque()
        self._sent = 0

    def put(self, request_id: int, frame: bytes) -> None:
        """Append one frame."""
        self._frames.append((request_id, memoryview(frame)))

    def flush(self, sock: socket.socket) -> None:
        """Send what `sock` accepts. Raises `OSError`, and `BlockingIOError` if it is full."""
        while self._frames:
            _, frame = self._frames[0]
            self._sent += sock.send(frame[self._sent :])
            if self._sent == len(frame):
                self._frames.popleft()
                self._sent = 0

    def withdraw(self, request_id: int) -> bool:
        """Remove a frame; return False if any of it was sent, since the rest must follow then."""
        for position, (other_id, _) in enumerate(self._frames):
            if other_id == request_id and (position > 0 or self._sent == 0):
                del self._frames[position]
                return True
        return False

    def clear(self) -> None:
        """Drop everything."""
        self._frames.clear()
        self._sent = 0

    def __len__(self) -> int:
        return len(self._frames)
