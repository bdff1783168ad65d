"""Connections that wait without a thread: one event loop for each server process holds them all.

`Connection` hands over to it what a request of uWSGI has nothing more to do for than to wait: a long poll, a followed
log, the rest of an answer whose reader is slow. uWSGI closes its own descriptor; the client sees no difference.
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
"""In the environment of a request that has waited, and is asked again."""
# What the loop must not do itself, since it reads files and databases.
_THREADS = 4
# A reader that takes nothing for so long is gone.
_STALL_S = 60.0
_PIECE_BYTES = 1 << 18
# A followed log is looked at so often: soon again after news, seldom while nothing happens.
_SHORTEST_LOOK_S = 0.05
_LONGEST_LOOK_S = 0.2
_LOOK_COST_S = 0.006
_STREAM_BYTES = 1 << 16


class HeldRequest(BaseException):
    """Leaves the thread of a request that waits for `over`, at most `wait_s`; it is asked again then.

    `descriptor` is the client's, for the holder to close. No Exception: nothing between the route and `Connection`
    handles it.
    """

    def __init__(self, over: Future[None], wait_s: float, descriptor: int) -> None:
        super().__init__()
        self.over = over
        self.wait_s = wait_s
        self.descriptor = descriptor


class Holder:
    """The connections of one process that wait. Descriptors given to it are its own to close."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0

    # What is handed over

    def answer_later(self, app: WSGIApplication, environ: WSGIEnvironment, held: HeldRequest) -> None:
        """Ask `app` again once the wait is over, and send what it answers."""
        environ = {key: value for key, value in environ.items() if not key.startswith(("wsgi.file", "uwsgi"))}
        environ |= {HELD_KEY: True, "wsgi.input": io.BytesIO()}
        self._start(self._answer_later(app, environ, held), held.descriptor)

    def follow(self, descriptor: int, pieces: Iterator[bytes]) -> None:
        """Send pieces as they come, b"" being none for now; `pieces` is closed at the end."""
        self._start(self._follow(descriptor, pieces), descriptor)

    def send_pieces(self, descriptor: int, first: bytes, pieces: Iterator[bytes]) -> None:
        """Send the rest of an answer as fast as its reader takes it; `pieces` is closed at the end."""
        self._start(self._send_pieces(descriptor, first, pieces), descriptor)

    # The loop

    def _start(self, work: Coroutine[Any, Any, None], descriptor: int) -> None:
        try:
            with self._lock:
                if self._pid != os.getpid():
                    self._begin()
                    # Only now: where no descriptor or thread was left, the next request tries again.
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
            over = asyncio.wrap_future(held.over)
            try:
                await asyncio.wait([over, client.gone], timeout=held.wait_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                over.cancel()
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
                        # The more there are, the less often each is looked at.
                        backoff.longest_s = max(_LONGEST_LOOK_S, self._followers * _LOOK_COST_S)
                        await asyncio.wait([client.gone], timeout=backoff.take())
            except BonseyesError:
                return  # deleted while it was followed
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
                client.break_off()
                raise
            finally:
                await self._in_pool(close, pieces)


class _Client:
    """One held connection: sends no faster than the client reads, and knows when it has hung up."""

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
        # That a client hangs up, or stalls, is no error of ours.
        return kind is not None and issubclass(kind, ConnectionError | TimeoutError)

    async def send(self, data: bytes) -> None:
        """Send; raise TimeoutError when the client takes nothing, ConnectionError when it is gone."""
        self._writer.write(data)
        async with asyncio.timeout(_STALL_S):
            await self._writer.drain()

    def break_off(self) -> None:
        """End the connection so that the client sees that something is missing."""
        with contextlib.suppress(OSError):  # it has ended already
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


def _report(done: Future[None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        _log.error("a connection that was held broke off", exc_info=error)


async def _until_end(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(_STREAM_BYTES):
            pass


def _answer_of(app: WSGIApplication, environ: WSGIEnvironment) -> bytes:
    """Return the whole answer, as uWSGI would have sent it."""
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
    """Close what can be closed, such as the generator of an answer."""
    end: Callable[[], Any] | None = getattr(pieces, "close", None)
    if end is not None:
        end()


HOLDER = Holder()
"""The one of this process."""
