"""How answers leave their thread: when they wait, or their readers are slow, `holding.py` has their connections."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import Future
from io import FileIO
from typing import TYPE_CHECKING

from bonseyes_dagster.errors import BonseyesError
from bonseyes_dagster.web.connection import body_of
from bonseyes_dagster.web.holding import HELD_KEY, HOLDER, HeldRequest, close

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

try:
    import uwsgi
except ImportError:  # any other WSGI server, such as the one of the tests
    uwsgi = None

__all__ = ["send_followed", "send_pieces", "send_range", "wait_for"]

_READ_BYTES = 1 << 18
_SENDFILE_BYTES = 1 << 23
_SHORTER = "the file is shorter than it was"
# So long a request waits in its thread before its connection is held elsewhere: for short waits that is faster.
_SHORT_WAIT_S = 0.25
# Of all threads of a process only so many may wait at the same time.
_SHORT_WAITS = threading.BoundedSemaphore(4)
_LOOK_EVERY_S = 0.05
_SLICE_S = 5.0  # how often a long poll looks whether its client is still there
# A socket that takes nothing for so long has a slow reader.
_SLOW_MS = 50


def wait_for(over: Future[None], wait_s: float, environ: WSGIEnvironment) -> None:
    """Return when `over` is done, after `wait_s` seconds, or when the client has hung up.

    Under uWSGI a longer wait raises HeldRequest: the thread is free, and the request is asked again at the end, when
    this returns at once. Raise it through whatever handles errors.
    """
    is_held = False
    try:
        if HELD_KEY in environ:
            return None
        if uwsgi is None or body_of(environ).is_present:
            return _wait_here(over, wait_s)
        left_s = wait_s - _wait_shortly(over, wait_s)
        if over.done() or left_s <= 0:
            return None
        descriptor = _held_descriptor()
        if descriptor is None:
            return _wait_here(over, left_s)
        is_held = True
        raise HeldRequest(over, left_s, descriptor)
    finally:
        if not is_held:
            over.cancel()


def _wait_shortly(over: Future[None], wait_s: float) -> float:
    """Wait where few others do; return how long it took."""
    begun_s = time.monotonic()
    if _SHORT_WAITS.acquire(blocking=False):
        try:
            futures.wait([over], min(wait_s, _SHORT_WAIT_S))
        finally:
            _SHORT_WAITS.release()
    return time.monotonic() - begun_s


def _wait_here(over: Future[None], wait_s: float) -> None:
    until = time.monotonic() + wait_s
    while not over.done() and (left_s := until - time.monotonic()) > 0 and not _is_client_gone():
        futures.wait([over], min(left_s, _SLICE_S))


def send_followed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Send pieces as they come; b"" means that there is none for now, and is asked for again a little later."""
    yield b""  # sends the headers before there is a piece
    descriptor = _held_descriptor()
    if descriptor is not None:
        return HOLDER.follow(descriptor, pieces)
    try:
        for piece in pieces:
            if piece:
                yield piece
            elif _is_client_gone():
                return None
            else:
                time.sleep(_LOOK_EVERY_S)
    except BonseyesError:
        return None  # deleted while it was followed
    finally:
        close(pieces)


def _held_descriptor() -> int | None:
    """Return a descriptor of the client for the holder; None where there is none to have."""
    if uwsgi is None:
        return None
    try:
        return os.dup(uwsgi.connection_fd())
    except OSError:  # no descriptor is left
        return None


def _is_client_gone() -> bool:
    """Tell whether the client of the current request has hung up; False where the server cannot know."""
    if uwsgi is None:
        return False
    poll = select.poll()
    poll.register(uwsgi.connection_fd(), select.POLLRDHUP)
    return bool(poll.poll(0))


def send_range(fd: int, offset: int, size_bytes: int) -> Iterator[bytes]:
    """Send a part of an open file as the body: from kernel to kernel under uWSGI, else by yielding it.

    uWSGI's own `sendfile` counts in 32 bits, and its offload threads send past the end of a range.
    """
    if uwsgi is None:
        return (yield from _read(FileIO(fd, closefd=False), offset, size_bytes))
    yield b""  # makes uWSGI send the headers
    client = uwsgi.connection_fd()
    while size_bytes > 0:
        try:
            sent = os.sendfile(client, fd, offset, min(_SENDFILE_BYTES, size_bytes))
        except BlockingIOError:
            if not _is_fast(client):
                pieces = _read(FileIO(os.dup(fd)), offset, size_bytes)
                return HOLDER.send_pieces(os.dup(client), b"", pieces)
            continue
        except OSError:
            return None  # it is gone; the connection is closed short of its Content-Length
        if sent == 0:
            raise OSError(_SHORTER)
        offset, size_bytes = offset + sent, size_bytes - sent
    return None


def _read(file: FileIO, offset: int, size_bytes: int) -> Iterator[bytes]:
    """Yield a part of a file and close it; raise OSError when it ends before."""
    with file:
        while size_bytes > 0:
            data = os.pread(file.fileno(), min(_READ_BYTES, size_bytes), offset)
            if not data:
                raise OSError(_SHORTER)
            yield data
            offset, size_bytes = offset + len(data), size_bytes - len(data)


def send_pieces(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Send pieces that are made while they are sent; `pieces` is closed at the end."""
    yield b""
    is_handed_over = False
    try:
        if uwsgi is None:
            yield from pieces
            return
        client = uwsgi.connection_fd()
        for piece in pieces:
            rest = _send_fast(client, piece)
            if rest:
                HOLDER.send_pieces(os.dup(client), rest, pieces)
                is_handed_over = True
                return
    except ConnectionError:
        return  # it is gone; the connection is closed short of its Content-Length
    finally:
        if not is_handed_over:
            close(pieces)


def _send_fast(client: int, piece: bytes) -> bytes:
    """Send as long as the client takes it, and return the rest; raise ConnectionError when it is gone."""
    rest = memoryview(piece)
    while rest:
        try:
            rest = rest[os.write(client, rest) :]
        except BlockingIOError:
            if not _is_fast(client):
                return bytes(rest)
    return b""


def _is_fast(client: int) -> bool:
    poll = select.poll()
    poll.register(client, select.POLLOUT)
    return bool(poll.poll(_SLOW_MS))
