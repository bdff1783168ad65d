"""Read request bodies of every framing, and end connections so that the client can read the answer.

Under uWSGI, a connection carries one request. WSGI cannot send `100 Continue`, cannot read a chunked body and does not
notice that the client is gone. uWSGI's own module can do all three. The rest of this module works on any WSGI server.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from bonseyes_dagster.errors import BadRequestError, TooLargeError
from bonseyes_dagster.web.holding import HOLDER, HeldRequest, close
from bonseyes_dagster.web.server import HELD_MARK

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

try:
    import uwsgi
except ImportError:  # another WSGI server, for example in tests
    uwsgi = None

__all__ = ["Body", "Connection", "body_of"]

_BODY_KEY = "bonseyes.body"
_READ_BYTES = 1 << 18
# How long, and how many bytes, the server reads of an unused body, so that the client can read the answer.
_LINGER_S = 5.0
_LINGER_BYTES = 1 << 30


class Body:
    """The body of one request: `read` returns its next bytes, and b"" at its end."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._environ = environ
        self._input = environ["wsgi.input"]
        self._left: int | None = None
        self._is_continued = False
        self.is_ended = False
        self.size_bytes = 0
        self.limit_bytes: int | None = None

    @property
    def is_present(self) -> bool:
        """Tell whether the request announces a body."""
        length = self._environ.get("CONTENT_LENGTH", "")
        return bool(self._environ.get("HTTP_TRANSFER_ENCODING")) or length not in ("", "0")

    @property
    def length(self) -> int | None:
        """Return the announced length, None for a chunked body; raise BadRequestError for a wrong framing."""
        text = self._environ.get("CONTENT_LENGTH", "")
        encoding = self._environ.get("HTTP_TRANSFER_ENCODING", "").strip().lower()
        if encoding:
            if encoding != "chunked" or text:
                raise BadRequestError("Transfer-Encoding must be `chunked`, without a Content-Length.")
            return None
        if text and not (text.isascii() and text.isdigit() and len(text) < 19):
            raise BadRequestError(f"Content-Length must be a number of bytes, not {text[:40]!r}.")
        return int(text or 0)

    def limit(self, size_bytes: int) -> None:
        """Limit the body to `size_bytes`; raise TooLargeError now for a larger Content-Length, else from `read`."""
        self.limit_bytes = size_bytes
        length = self.length
        if length is not None and length > size_bytes:
            raise TooLargeError(
                f"The body has {length} bytes; the limit is {size_bytes}.", detail={"limit_bytes": size_bytes}
            )

    def read(self) -> bytes:
        """Return the next bytes, b"" at the end; raise BadRequestError if the client stops in the middle."""
        if self.is_ended:
            return b""
        self._continue()
        try:
            data = self._read_chunked() if self.length is None else self._read_plain()
        except OSError as error:
            self.is_ended = True
            raise BadRequestError("The body is incomplete: the client stopped sending.") from error
        self.size_bytes += len(data)
        self.is_ended = self.is_ended or not data
        if self.limit_bytes is not None and self.size_bytes > self.limit_bytes:
            raise TooLargeError(
                f"The body is too large; the limit is {self.limit_bytes} bytes.",
                detail={"limit_bytes": self.limit_bytes},
            )
        return data

    def _read_plain(self) -> bytes:
        if self._left is None:
            self._left = self.length or 0
        if self._left == 0:
            return b""
        data: bytes = self._input.read(min(_READ_BYTES, self._left))
        if not data:
            raise OSError("short body")
        self._left -= len(data)
        self.is_ended = self._left == 0
        return data

    def _read_chunked(self) -> bytes:
        if uwsgi is None:
            return bytes(self._input.read(_READ_BYTES))
        return bytes(uwsgi.chunked_read())

    def _continue(self) -> None:
        if self._is_continued:
            return
        self._is_continued = True
        if self._environ.get("HTTP_EXPECT", "").lower() == "100-continue" and uwsgi is not None:
            with contextlib.suppress(OSError):
                os.write(uwsgi.connection_fd(), b"HTTP/1.1 100 Continue\r\n\r\n")


def body_of(environ: WSGIEnvironment) -> Body:
    """Return the body of a request; all calls for one request return the same object."""
    if _BODY_KEY not in environ:
        environ[_BODY_KEY] = Body(environ)
    body: Body = environ[_BODY_KEY]
    return body


class Connection:
    """WSGI middleware: frees the thread of a waiting request, and lets a refused client read the answer.

    When a server closes a socket with unread input, the kernel resets the connection. A proxy in between then reports
    its own error instead of the server's answer.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        # uWSGI also passes on input without a request line. Flask fails without a method; for "" it finds no route.
        environ.setdefault("REQUEST_METHOD", "")
        environ.setdefault("PATH_INFO", "")
        environ.setdefault("QUERY_STRING", "")
        body = body_of(environ)
        try:
            answer = self._app(environ, start_response)
        except HeldRequest as held:
            return self._hold(environ, held)
        if uwsgi is None or not body.is_present or body.is_ended:
            return answer
        return _Lingering(answer, uwsgi.connection_fd())

    def _hold(self, environ: WSGIEnvironment, held: HeldRequest) -> Iterable[bytes]:
        """Give the connection to the holder; without a status line, uWSGI sends nothing, and the log has no line."""
        uwsgi.set_logvar("held", HELD_MARK)
        HOLDER.answer_later(self._app, dict(environ), held)
        return ()


class _Lingering:
    def __init__(self, answer: Iterable[bytes], fd: int) -> None:
        self._answer = answer
        self._fd = fd

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer
        yield b""  # makes uWSGI send the headers of an empty answer now, not after close()

    def close(self) -> None:
        close(self._answer)
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._fd)) as client:
            client.shutdown(socket.SHUT_WR)
            _drain(client)


def _drain(client: socket.socket) -> None:
    until = time.monotonic() + _LINGER_S
    left = _LINGER_BYTES
    poll = select.poll()
    poll.register(client, select.POLLIN)
    while left > 0 and (wait_s := until - time.monotonic()) > 0:
        if not poll.poll(wait_s * 1000):
            return
        data = client.recv(_READ_BYTES)
        if not data:
            return
        left -= len(data)
