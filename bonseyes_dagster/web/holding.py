"""Hold waiting connections without a thread: each server process has one event loop for all of them.

`Connection` and `sending.py` give it the connections of requests that only wait: a long poll, a followed log, the rest
of an answer to a slow client. uWSGI closes its own descriptor of the connection; the client sees no difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from bonseyes_dagster.backoff import Backoff
from bonseyes_dagster.errors import BonseyesError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

__all__ = ["HELD_KEY", "HOLDER", "HeldRequest", "Holder", "close"]

_log = logging.getLogger(__name__)
HELD_KEY = "bonseyes.is_held"
"""The key in the WSGI environment of a request that has waited and that the application gets again."""
# Threads for work that reads files and databases, which would block the event loop.
_THREADS = 4
# A client that reads nothing for so long is gone.
_STALL_S = 60.0
_PIECE_BYTES = 1 << 18
# The interval between two reads of a followed log: short after new bytes, longer while nothing happens.
_SHORTEST_LOOK_S = 0.05
_LONGEST_LOOK_S = 0.2
_LOOK_COST_S = 0.006
_STREAM_BYTES = 1 << 16


class HeldRequest(BaseException):
    """Frees the thread of a request that waits for `ended`, at most `wait_s`; then the application gets it again.

    `descriptor` is a copy of the client's descriptor, which the holder closes. This is a BaseException, so that no
    handler between the route and `Connection` catches it.
    """

    def __init__(self, ended: Future[None], wait_s: float, descriptor: int) -> None:
        super().__init__()
        self.ended = ended
        self.wait_s = wait_s
        self.descriptor = descriptor


class Holder:
    """The waiting connections of one process. It closes the descriptors that it gets."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0

    # Take over connections

    def answer_later(self, app: WSGIApplication, environ: WSGIEnvironment, held: HeldRequest) -> None:
        """Give the request to `app` again after the wait, and send its answer."""
        environ = {key: value for key, value in environ.items() if not key.startswith(("wsgi.file", "uwsgi"))}
        environ |= {HELD_KEY: True, "wsgi.input": io.BytesIO()}
        self._start(self._answer_later(app, environ, held), held.descriptor)

    def follow(self, descriptor: int, pieces: Iterator[bytes]) -> None:
        """Send pieces as they come; b"" means that there is no new piece yet. Close `pieces` at the end."""
        self._start(self._follow(descriptor, pieces), descriptor)

    def send_pieces(self, descriptor: int, first: bytes, pieces: Iterator[bytes]) -> None:
        """Send the rest of an answer as fast as the client reads it; close `pieces` at the end."""
        self._start(self._send_pieces(descriptor, first, pieces), descriptor)

    # The loop

    def _start(self, work: Coroutine[Any, Any, None], descriptor: int) -> None:
        try:
            with self._lock:
                if self._pid != os.getpid():
                    self._begin()
                    # Last, so that the next request tries again if there is no free descriptor or thread.
                    self._pid = os.getpid()
        except BaseException:
            work.close()
            os.close(descriptor)
            raise
        asyncio.run_coroutine_threadsafe(work, self._loop).add_done_callback(_report)

    def _begin(self) -> None:
        self._followers = 0
        self._loop = asyncio.new_event_loop()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="held")
        try:
            threading.Thread(target=self._loop.run_forever, daemon=True, name="holder").start()
        except BaseException:
            self._loop.close()
            raise

    async def _in_pool(self, function: Any, *arguments: Any) -> Any:
        return await self._loop.run_in_executor(self._pool, function, *arguments)

    async def _answer_later(self, app: WSGIApplication, environ: WSGIEnvironment, held: HeldRequest) -> None:
        async with _Client(held.descriptor) as client:
            ended = asyncio.wrap_future(held.ended)
            try:
                await asyncio.wait([ended, client.gone], timeout=held.wait_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ended.cancel()
            if not client.gone.done():
                await client.send(await self._in_pool(_answer_of, app, environ))

    async def _follow(self, descriptor: int, pieces: Iterator[bytes]) -> None:
        async with _Client(descriptor) as client:
            backoff = Backoff(_SHORTEST_LOOK_S, _LONGEST_LOOK_S, factor=1.5)
            self._followers += 1
            try:
                while (piece := await self._in_pool(next, pieces, None)) is not None and not client.gone.done():
                    if piece:
                        backoff.reset()
                        await client.send(piece)
                    else:
                        # The more followers there are, the longer is the interval of each.
                        backoff.longest_s = max(_LONGEST_LOOK_S, self._followers * _LOOK_COST_S)
                        await asyncio.wait([client.gone], timeout=backoff.take())
            except BonseyesError:
                return  # the artifact was deleted meanwhile
            finally:
                self._followers -= 1
                await self._in_pool(close, pieces)

    async def _send_pieces(self, descriptor: int, first: bytes, pieces: Iterator[bytes]) -> None:
        async with _Client(descriptor) as client:
            piece: bytes | None = first
            try:
                while piece is not None:
                    for begin in range(0, len(piece), _PIECE_BYTES):
                        await client.send(piece[begin : begin + _PIECE_BYTES])
                    piece = await self._in_pool(next, pieces, None)
            except BaseException:
                client.reset()
                raise
            finally:
                await self._in_pool(close, pieces)


class _Client:
    """One held connection: sends no faster than the client reads, and notices when the client disconnects."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)

    async def __aenter__(self) -> _Client:
        reader, self._writer = await asyncio.open_connection(sock=self._socket, limit=_STREAM_BYTES)
        self.gone = asyncio.ensure_future(_until_end(reader))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self.gone.cancel()
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_STALL_S):
                await self._writer.wait_closed()
        self._writer.transport.abort()
        # A client may disconnect or stall; that is not an error of the server.
        return kind is not None and issubclass(kind, ConnectionError | TimeoutError)

    async def send(self, data: bytes) -> None:
        """Send data; raise TimeoutError if the client reads nothing, ConnectionError if it is gone."""
        self._writer.write(data)
        async with asyncio.timeout(_STALL_S):
            await self._writer.drain()

    def reset(self) -> None:
        """Reset the connection, so that the client notices that the answer is incomplete."""
        with contextlib.suppress(OSError):  # the connection has ended already
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


def _report(done: Future[None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        _log.error("A held connection failed.", exc_info=error)


async def _until_end(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(_STREAM_BYTES):
            pass


def _answer_of(app: WSGIApplication, environ: WSGIEnvironment) -> bytes:
    """Return the whole answer with its head, as uWSGI would send it."""
    head: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:
        head[:] = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers), "Connection: close", "", ""]

    answer = app(environ, start_response)
    try:
        body = b"".join(answer)
    finally:
        close(answer)
    return "\r\n".join(head).encode("latin-1") + body


def close(pieces: object) -> None:
    """Close `pieces` if it has a `close` method, as the generator of an answer has."""
    end: Callable[[], Any] | None = getattr(pieces, "close", None)
    if end is not None:
        end()


HOLDER = Holder()
"""The holder of this process."""
