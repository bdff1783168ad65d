"""Unix sockets: their URLs, how a client connects to one, and how a server takes one over from a process that is gone.

A URL is `http+unix://` and the percent-encoded path of the socket. Without Docker, all services but the gateway listen
at one: the mode of its folder decides who may connect, which no TCP port of a machine can do.
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
"""What `sun_path` of the kernel holds."""

# Else `urljoin` does not follow a redirect that has a path alone.
for _schemes in (uses_relative, uses_netloc):
    if SCHEME not in _schemes:
        _schemes.append(SCHEME)

# The workers of a server that was killed hold its socket for a moment.
_ORPHANS_S = 3.0
_locks: list[int] = []


def url_of(path: Path | str) -> str:
    """Return the base URL of the server at a socket."""
    return f"{SCHEME}://{quote(str(path), safe='')}"


def path_of(url: str) -> str | None:
    """Return the path of the socket that a URL begins with; None for a URL of another scheme."""
    parts = urlsplit(url)
    return unquote(parts.netloc) if parts.scheme == SCHEME else None


def plain_url(url: str) -> str:
    """Return `url` as people read it: `http://NAME/...` for the socket NAME.sock, and any other URL as it is."""
    path = path_of(url)
    if path is None:
        return url
    return f"http://{Path(path).name.removesuffix(SUFFIX)}{url[len(url_of(path)) :]}"


def connect(path: str, timeout_s: float | None) -> socket.socket:
    """Return a connection to the server at a socket; raise OSError, TimeoutError after `timeout_s` among them.

    A socket with a timeout of Python's does not wait for a full backlog: the kernel refuses at once. A blocking socket
    with a timeout of the kernel's does wait.
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
        raise TimeoutError(errno.ETIMEDOUT, "timed out: too many connections wait") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _limit_sending(connection: socket.socket, timeout_s: float) -> None:
    seconds, microseconds = divmod(int(timeout_s * 1e6), 1_000_000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", seconds, microseconds))


def claim(path: Path) -> None:
    """Let this process, as the only one, bind a socket at `path`; remove the socket of a process that is gone.

    The claim ends with the process. Raises SettingsError when another process listens there, when something else lies
    there, or when the path is too long.
    """
    if not path.is_absolute() or len(os.fsencode(path)) > LONGEST_PATH_BYTES:
        raise SettingsError(
            f"{path} cannot be a socket: it must be an absolute path of {LONGEST_PATH_BYTES} bytes at most."
        )
    # A lock of this process alone: the processes that it forks do not hold it.
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
        raise SettingsError(f"{path} is no socket; choose another path, or remove the file.")
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
