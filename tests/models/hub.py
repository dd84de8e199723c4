"""A hub on 127.0.0.1, with enough of the real one's interface for its client."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves `repositories`, a mapping of names to files; `gated` ones answer 403.

    `fetched` lists the files that were downloaded.
    """

    def __init__(
        self, repositories: Mapping[str, Mapping[str, bytes]], gated: frozenset[str] = frozenset()
    ) -> None:
        self.repositories = repositories
        self.gated = gated
        self.fetched: list[str] = []

    def answer(self, path: str, *, head: bool) -> tuple[int, dict[str, str], bytes]:
        """Return the status, headers and body for a request."""
        parts = unquote(path).partition("?")[0].strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if is_api else parts[:2])
        if name in self.gated:
            return 403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"}, b""
        if name not in self.repositories:
            return 401, {"X-Error-Code": "RepoNotFound"}, b""
        files, rest = self.repositories[name], parts[4:] if is_api else parts[2:]
        if rest[1:2] and rest[1] not in {"main", "v1", COMMIT}:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if is_api:
            return 200, {"Content-Type": "application/json"}, _listing(rest[:1], name, files)
        return self._file(files, "/".join(rest[2:]), head=head)

    def _file(
        self, files: Mapping[str, bytes], file: str, *, head: bool
    ) -> tuple[int, dict[str, str], bytes]:
        if file not in files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        if not head:
            self.fetched.append(file)
        return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{_digest(files[file])}"'}, files[file]


@contextmanager
def running(hub: Hub) -> Iterator[str]:
    """Serve the hub while the context lasts; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(head=False)

        def do_HEAD(self) -> None:
            self._reply(head=True)

        def log_message(self, *_: object) -> None:
            pass

        def _reply(self, *, head: bool) -> None:
            status, headers, body = hub.answer(self.path, head=head)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if not head:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _listing(what: list[str], name: str, files: Mapping[str, bytes]) -> bytes:
    if what == ["tree"]:
        tree = [
            {"type": "file", "path": file, "size": len(content), "oid": _digest(content)}
            for file, content in files.items()
        ]
        return json.dumps(tree).encode()
    siblings = [{"rfilename": file} for file in files]
    return json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
