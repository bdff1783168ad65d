"""Unix sockets: build their URLs, connect to them, and claim the socket of a process that has ended.

A URL is `http+unix://` and the percent-encoded path of the socket. In an embedded project, all services except the
gateway listen at a unix socket. The mode of the socket's folder decides who may connect; a TCP port has no mode.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
import time
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, uses_netloc, uses_relative

from bonseyes_dagster.errors import SettingsError

__all__ = ["LONGEST_PATH_BYTES", "SCHEME", "SUFFIX", "claim", "connect", "path_of", "plain_url", "url_of"]

SCHEME = "http+unix"
SUFFIX = ".sock"
LONGEST_PATH_BYTES = 107
"""The capacity of the kernel's `sun_path`."""

# Without these entries, `urljoin` does not resolve a redirect that is only a path.
for _schemes in (uses_relative, uses_netloc):
    if SCHEME not in _schemes:
        _schemes.append(SCHEME)

# After a kill of the server, its workers hold the socket for a moment.
_ORPHANS_S = 3.0
_locks: list[int] = []


def url_of(path: Path | str) -> str:
    """Return the base URL of the server at a socket."""
    return f"{SCHEME}://{quote(str(path), safe='')}"


def path_of(url: str) -> str | None:
    """Return the path of the socket in a URL; None for a URL of another scheme."""
    parts = urlsplit(url)
    return unquote(parts.netloc) if parts.scheme == SCHEME else None


def plain_url(url: str) -> str:
    """Return `url` in a readable form: `http://NAME/...` for the socket NAME.sock; return other URLs unchanged."""
    path = path_of(url)
    if path is None:
        return url
    return f"http://{Path(path).name.removesuffix(SUFFIX)}{url[len(url_of(path)) :]}"


def connect(path: str, timeout_s: float | None) -> socket.socket:
    """Return a connection to the server at a socket; raise TimeoutError after `timeout_s`, or another OSError.

    The connection waits while the server's backlog is full. For this, the socket is blocking, with a timeout of the
    kernel (SO_SNDTIMEO). With a timeout of Python, the kernel would refuse at once.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        if timeout_s is not None:
            _limit_sending(connection, timeout_s)
        connection.connect(path)
        _limit_sending(connection, 0)
        connection.settimeout(timeout_s)
    except BlockingIOError as error:
        connection.close()
        raise TimeoutError(errno.ETIMEDOUT, "timed out: too many connections are waiting") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _limit_sending(connection: socket.socket, timeout_s: float) -> None:
    seconds, microseconds = divmod(int(timeout_s * 1e6), 1_000_000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", seconds, microseconds))


def claim(path: Path) -> None:
    """Reserve `path` for a socket of this process, and remove the socket of a process that has ended.

    The claim ends with this process. Raises SettingsError if another process listens at `path`, if `path` is another
    file than a socket, or if it is too long.
    """
    if not path.is_absolute() or len(os.fsencode(path)) > LONGEST_PATH_BYTES:
        raise SettingsError(
            f"{path} cannot be a socket: it must be an absolute path of {LONGEST_PATH_BYTES} bytes at most."
        )
    # A POSIX lock: only this process holds it, not the processes that it forks.
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SettingsError(f"{path} cannot be a socket: {error.strerror}.") from error
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove_stale(path)
    except OSError as error:
        os.close(lock)
        raise SettingsError(
            f"Another process listens at {path}; choose another socket, or end that process."
        ) from error
    except SettingsError:
        os.close(lock)
        raise
    _locks.append(lock)


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SettingsError(f"{path} is not a socket; choose another path, or remove the file.")
    until_s = time.monotonic() + _ORPHANS_S
    while _is_live(path):
        if time.monotonic() > until_s:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        time.sleep(0.05)
    path.unlink(missing_ok=True)


def _is_live(path: Path) -> bool:
    try:
        connect(str(path), 1.0).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    return True
