"""The folder with the unix sockets of a running project. Only the project's owner can connect to them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.project.folder import Project
from bonseyes_dagster.system import sockets

__all__ = ["SocketFolder"]

_LONGEST_NAME = 24
# A code server that replaces another listens at the path of its predecessor, with a number after it.
_RESERVE_BYTES = len(sockets.SUFFIX) + len(".9999")
# Other characters have a meaning for uWSGI or gRPC.
_PLAIN = re.compile(r"[A-Za-z0-9/._+-]+")
_DIGEST_DIGITS = 8


class SocketFolder:
    """`.bonseyes/sockets`, or a short folder elsewhere if this path is too long for a socket."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._folder: Path | None = None

    def make(self) -> None:
        """Make an empty folder; the caller holds the project's lock. Raises SettingsError when no place is possible."""
        self.remove()
        home = self._project.sockets
        if _is_usable(home):
            home.mkdir(mode=0o700)
            if _holds_sockets(home):
                self._folder = home
                return
        self._folder = self._make_elsewhere()

    def path(self, name: str) -> Path:
        """Return the path of a service's socket."""
        assert self._folder is not None, "make() comes first"
        return self._folder / f"{_short(name)}{sockets.SUFFIX}"

    def remove(self) -> None:
        """Remove the folder, and the folder that a killed supervisor has left."""
        for folder in (self._stored_place(), self._project.sockets):
            if folder is not None and _is_ours(folder):
                shutil.rmtree(folder, ignore_errors=True)
        self._project.socket_place.unlink(missing_ok=True)
        self._folder = None

    def _stored_place(self) -> Path | None:
        try:
            text = self._project.socket_place.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return Path(text)

    def _make_elsewhere(self) -> Path:
        for parent in _parents():
            folder = Path(tempfile.mkdtemp(prefix="bonseyes-", dir=parent))
            self._project.socket_place.write_text(str(folder), encoding="utf-8")
            return folder
        raise SettingsError(
            f"There is no place for sockets: {self._project.sockets} is too long, has special characters or is on a "
            "file system without sockets. Set TMPDIR to a short path that no other user can change."
        )


def _short(name: str) -> str:
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_DIGITS]
    return f"{name[: _LONGEST_NAME - _DIGEST_DIGITS - 1]}-{digest}"


def _parents() -> Iterator[Path]:
    """Yield the folders in which a temporary folder has a short path and is safe."""
    for text in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108 - checked below
        if text and _is_usable(Path(text) / "bonseyes-12345678") and _is_safe(Path(text)):
            yield Path(text)


def _is_usable(folder: Path) -> bool:
    length = len(os.fsencode(folder)) + len("/") + _LONGEST_NAME + _RESERVE_BYTES
    return length <= sockets.LONGEST_PATH_BYTES and _PLAIN.fullmatch(str(folder)) is not None


def _is_safe(parent: Path) -> bool:
    """Tell whether we can make a folder in `parent`, and no other user can replace it."""
    with contextlib.suppress(OSError):
        status = parent.stat()
        is_open = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
        return status.st_uid in (0, os.getuid()) and not is_open and os.access(parent, os.W_OK | os.X_OK)
    return False


def _is_ours(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        status = folder.lstat()
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
    return False


def _holds_sockets(folder: Path) -> bool:
    """Tell whether only we can enter the folder, and its file system has sockets; shared drives have none."""
    probe = folder / "probe"
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(probe))
        probe.unlink()
    except OSError:
        return False
    return _is_ours(folder)
