"""The log of an artifact: readers start at a byte and follow it, the container appends lines, a limit cuts it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

__all__ = ["FARTHEST_OFFSET", "LogLimit", "append_line", "append_note", "iter_log"]

_CHUNK_BYTES = 1 << 18
_TAIL_BYTES = 1 << 16
FARTHEST_OFFSET = 1 << 42
"""The largest offset to seek to: file systems refuse one beyond the largest file."""


def iter_log(path: Path, offset: int, is_final: Callable[[], bool] | None) -> Iterator[bytes]:
    """Yield the log from byte `offset`; with `is_final`, go on until it returns True and all is read.

    b"" means that there is nothing new; the caller asks again a little later.

    `is_final` raises an error if the artifact is deleted. The response then breaks off instead of looking complete.
    """
    descriptor: int | None = None
    try:
        while True:
            # Ask before the read: then everything that was written before the end is read.
            was_final = is_final is None or is_final()
            descriptor = _opened(path, offset) if descriptor is None else descriptor
            while descriptor is not None and (chunk := os.read(descriptor, _CHUNK_BYTES)):
                yield chunk
            if was_final:
                return
            yield b""
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _opened(path: Path, offset: int) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    os.lseek(descriptor, min(offset, FARTHEST_OFFSET), os.SEEK_SET)
    return descriptor


def append_line(path: Path, line: str) -> None:
    """Add a line to a log; its last line may be incomplete, and other artifacts may share the file by a hard link."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_nlink > 1:
            draft = path.with_name(f"{path.name}.new")
            shutil.copyfile(path, draft)
            draft.replace(path)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        size_bytes = os.fstat(descriptor).st_size
        is_whole = size_bytes == 0 or os.pread(descriptor, 1, size_bytes - 1) == b"\n"
        os.write(descriptor, f"{'' if is_whole else chr(10)}{line}\n".encode())
    finally:
        os.close(descriptor)


def append_note(path: Path, sentence: str) -> None:
    """Add a sentence of the container to a log; ignore errors of the disk, because they must not fail the artifact."""
    moment = datetime.now().strftime("%Y-%m-%d %H:%M:%S,%f")[:-3]
    with contextlib.suppress(OSError):
        append_line(path, f"{moment} WARNING bonseyes_dagster.tool: {sentence}")


class LogLimit:
    """Limits the size of a log while its writers append to it: its begin and its last 64 KiB stay, its middle goes.

    The end tells why a tool failed. If the disk refuses, the log stays as it is.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._kept_bytes = limit_bytes

    def enforce(self) -> None:
        """Cut out the part between the limit and the last 64 KiB, if there is one."""
        with contextlib.suppress(OSError):
            begin = self._path.stat().st_size - _TAIL_BYTES
            if begin > self._kept_bytes:
                self._cut(begin)

    def _cut(self, begin: int) -> None:
        with self._path.open("rb") as log:
            log.seek(begin)
            tail = log.read().partition(b"\n")[2]
        os.truncate(self._path, self._limit_bytes)
        append_note(
            self._path, f"The log has passed {self._limit_bytes} bytes, BONSEYES_LOG_LIMIT_BYTES; only its end follows."
        )
        self._kept_bytes = self._path.stat().st_size
        # Appended, because the tool may write at the same time.
        with self._path.open("ab") as log:
            log.write(tail)
