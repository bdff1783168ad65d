"""A small real HTTP server for tests: a test scripts its answers, and makes it break off or drop them."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True)
class Call:
    """A received request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """One answer, and how to break it.

    `cut_after`: hang up after this many bytes of the body. `drop`: hang up without any answer.
    `chunks`: a chunked body; if it raises, the connection ends without the last chunk.
    """

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    drop: bool = False
    delay_s: float = 0.0
    chunks: Iterable[bytes] | None = None

    @property
    def content(self) -> bytes:
        """Return the bytes of the body."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def error(status: int, code: str, message: str = "no", detail: Any = None, **options: Any) -> Answer:
    """Return an error answer in the form of the contract."""
    body = {"error": {"code": code, "message": message, "detail": detail, "request_id": "r1"}}
    return Answer(body, status, **options)


Reply = Answer | Callable[[Call], Answer]


class ScriptedServer:
    """Answers by (method, path). It gives the scripted answers in order, and repeats the last one."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._replies: dict[tuple[str, str], list[Reply]] = {}
        self._lock = threading.Lock()
        self.connections: list[socket.socket] = []
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Return the base URL."""
        return f"http://127.0.0.1:{self.port}"

    def on(self, method: str, path: str, *replies: Reply) -> None:
        """Set the answers for a method and a path."""
        self._replies[method, path] = list(replies)

    def serve_file(
        self, path: str, content: bytes, *first: Reply, container: str = "", name: str = "a", kind: str = "artifacts"
    ) -> None:
        """Serve an artifact with one file, with ranges, after the replies `first`."""
        base = f"{container}/{kind}/{name}"
        entry = {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self.on("GET", f"{base}/files", Answer([entry]))
        self.on("GET", f"{base}/data/{path}", *first, lambda call: ranged(call, content))

    def count(self, method: str, path: str) -> int:
        """Return the number of requests with this method and path."""
        return sum((call.method, call.path) == (method, path) for call in self.calls)

    def take(self, call: Call) -> Answer:
        """Return the next answer to a call."""
        with self._lock:
            self.calls.append(call)
            replies = self._replies.get((call.method, call.path))
            if not replies:
                return error(404, "not_found", f"there is no {call.path}")
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
        return reply if isinstance(reply, Answer) else reply(call)

    def start(self) -> None:
        """Start to listen; after `stop`, on the same port."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening, and close all open connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()


@contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    """Run a server until the end of the block."""
    server = ScriptedServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()


def ranged(call: Call, content: bytes, etag: str = '"v1"') -> Answer:
    """Answer with the file, or with the requested range of it."""
    wanted = call.headers.get("Range")
    if wanted and call.headers.get("If-Range", etag) == etag:
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            return error(416, "range_not_satisfiable")
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return Answer(content[start:], 206, {"ETag": etag, "Content-Range": span})
    return Answer(content, 200, {"ETag": etag})


def _handler(server: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            server.connections.append(self.connection)

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, ValueError):
                self.close_connection = True

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            call = Call(self.command, unquote(parts.path), query, dict(self.headers), body)
            answer = server.take(call)
            time.sleep(answer.delay_s)
            if answer.drop:
                return self._hang_up()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.chunks is not None:
                return self._send_chunks(answer.chunks)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content[: answer.cut_after])
            if answer.cut_after is not None:
                self._hang_up()
            return None

        do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 - http.server's names

        def _send_chunks(self, chunks: Iterable[bytes]) -> None:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                for chunk in chunks:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")
            except RuntimeError:
                self._hang_up()

        def _hang_up(self) -> None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
