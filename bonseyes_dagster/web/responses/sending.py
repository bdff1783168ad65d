"""Send answers without blocking a thread: `holding.py` takes the connection of a waiting request or a slow client."""

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
except ImportError:  # another WSGI server, for example in tests
    uwsgi = None

__all__ = ["send_followed", "send_pieces", "send_range", "wait_for"]

_READ_BYTES = 1 << 18
_SENDFILE_BYTES = 1 << 23
_SHORTER = "The file has become shorter."
# A request waits so long in its thread before the holder takes its connection: this is faster for short waits.
_SHORT_WAIT_S = 0.25
# At most so many threads of a process may wait at the same time.
_SHORT_WAITS = threading.BoundedSemaphore(4)
_LOOK_EVERY_S = 0.05
_SLICE_S = 5.0  # the interval at which a long poll checks whether its client is still connected
# A client whose socket accepts no bytes for so long is slow.
_SLOW_MS = 50


def wait_for(ended: Future[None], wait_s: float, environ: WSGIEnvironment) -> None:
    """Return when `ended` is done, after `wait_s` seconds, or when the client has disconnected.

    Under uWSGI, a longer wait raises HeldRequest, which frees the thread. After the wait, the application gets the
    request again, and this function returns at once. No caller may catch HeldRequest.
    """
    is_held = False
    try:
        if HELD_KEY in environ:
            return None
        if uwsgi is None or body_of(environ).is_present:
            return _wait_here(ended, wait_s)
        left_s = wait_s - _wait_shortly(ended, wait_s)
        if ended.done() or left_s <= 0:
            return None
        descriptor = _held_descriptor()
        if descriptor is None:
            return _wait_here(ended, left_s)
        is_held = True
        raise HeldRequest(ended, left_s, descriptor)
    finally:
        if not is_held:
            ended.cancel()


def _wait_shortly(ended: Future[None], wait_s: float) -> float:
    """Wait for a short time, if few other threads do; return the duration in seconds."""
    begun_s = time.monotonic()
    if _SHORT_WAITS.acquire(blocking=False):
        try:
            futures.wait([ended], min(wait_s, _SHORT_WAIT_S))
        finally:
            _SHORT_WAITS.release()
    return time.monotonic() - begun_s


def _wait_here(ended: Future[None], wait_s: float) -> None:
    until = time.monotonic() + wait_s
    while not ended.done() and (left_s := until - time.monotonic()) > 0 and not _is_client_gone():
        futures.wait([ended], min(left_s, _SLICE_S))


def send_followed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Send pieces as they come; b"" means that there is no new piece yet, so try again a little later."""
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
        return None  # the artifact was deleted meanwhile
    finally:
        close(pieces)


def _held_descriptor() -> int | None:
    """Return a copy of the client's descriptor for the holder; None outside uWSGI or without a free descriptor."""
    if uwsgi is None:
        return None
    try:
        return os.dup(uwsgi.connection_fd())
    except OSError:  # there is no free descriptor
        return None


def _is_client_gone() -> bool:
    """Tell whether the client of the current request has disconnected; False outside uWSGI."""
    if uwsgi is None:
        return False
    poll = select.poll()
    poll.register(uwsgi.connection_fd(), select.POLLRDHUP)
    return bool(poll.poll(0))


def send_range(fd: int, offset: int, size_bytes: int) -> Iterator[bytes]:
    """Send a part of an open file as the body: with `os.sendfile` under uWSGI, else by yielding its bytes.

    uWSGI's own `sendfile` counts in 32 bits, and its offload threads send bytes after the end of a range.
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
            return None  # the client is gone; uWSGI closes the connection before the Content-Length is reached
        if sent == 0:
            raise OSError(_SHORTER)
        offset, size_bytes = offset + sent, size_bytes - sent
    return None


def _read(file: FileIO, offset: int, size_bytes: int) -> Iterator[bytes]:
    """Yield a part of a file and close the file; raise OSError if the file is too short."""
    with file:
        while size_bytes > 0:
            data = os.pread(file.fileno(), min(_READ_BYTES, size_bytes), offset)
            if not data:
                raise OSError(_SHORTER)
            yield data
            offset, size_bytes = offset + len(data), size_bytes - len(data)


def send_pieces(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Send pieces that are made during the sending; close `pieces` at the end."""
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
        return  # the client is gone; uWSGI closes the connection before the Content-Length is reached
    finally:
        if not is_handed_over:
            close(pieces)


def _send_fast(client: int, piece: bytes) -> bytes:
    """Send while the client reads fast, and return the rest; raise ConnectionError if the client is gone."""
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
