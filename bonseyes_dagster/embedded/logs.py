"""The logs of services: one file for each, rotated during writes; `bonseyes logs` reads them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["RotatingLog", "follow", "tail"]

LIMIT_BYTES = 10 * 2**20
KEPT = 3


class RotatingLog:
    """A log file. Before it grows beyond its limit, it is renamed to NAME.1, and NAME.1 to NAME.2, and so on."""

    def __init__(self, file: Path, *, limit_bytes: int = LIMIT_BYTES, kept: int = KEPT) -> None:
        self._file = file
        self._limit_bytes = limit_bytes
        self._kept = kept
        self._open: BinaryIO | None = None
        self._size_bytes = 0

    @property
    def file(self) -> Path:
        """The current file."""
        return self._file

    def write(self, data: bytes) -> None:
        """Append to the file; readers can read the data when this returns."""
        if self._open is not None and self._size_bytes + len(data) > self._limit_bytes:
            self.close()
            self._rotate()
        if self._open is None:
            self._open = self._file.open("ab", buffering=0)
            self._size_bytes = self._file.stat().st_size
        self._open.write(data)
        self._size_bytes += len(data)

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _rotate(self) -> None:
        for number in range(self._kept - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._file.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._file.with_name(f"{self._file.name}.{number}")


def tail(file: Path, lines: int) -> list[bytes]:
    """Return the last lines of a log, without line ends."""
    if not file.exists():
        return []
    window_bytes = lines * 400
    with file.open("rb") as opened:
        size_bytes = opened.seek(0, 2)
        opened.seek(max(0, size_bytes - window_bytes))
        found = opened.read().splitlines()
    return found[-lines:] if lines else []


def follow(
    files: dict[str, Path], *, is_over: Callable[[], bool], interval_s: float = 0.2
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, line) of each line added to the files from now on, also after rotations."""
    readers = {name: _Reader(file) for name, file in files.items()}
    while True:
        over = is_over()
        for name, reader in readers.items():
            for line in reader.read_lines():
                yield name, line
        if over:
            return
        time.sleep(interval_s)


class _Reader:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._inode, self._offset = self._stat()
        self._rest = b""

    def _stat(self) -> tuple[int, int]:
        try:
            stat = self._file.stat()
        except FileNotFoundError:
            return 0, 0
        return stat.st_ino, stat.st_size

    def read_lines(self) -> list[bytes]:
        """Return the complete lines added since the last call."""
        try:
            opened = self._file.open("rb")
        except FileNotFoundError:
            return []
        data = b""
        with opened:
            inode = os.fstat(opened.fileno()).st_ino
            if inode != self._inode:
                data = self._read_rotated()
                self._inode, self._offset = inode, 0
            opened.seek(self._offset)
            added = opened.read()
        self._offset += len(added)
        *lines, self._rest = (self._rest + data + added).split(b"\n")
        return lines

    def _read_rotated(self) -> bytes:
        """Return the bytes added to the last file before its rotation."""
        rotated = self._file.with_name(f"{self._file.name}.1")
        try:
            with rotated.open("rb") as opened:
                if os.fstat(opened.fileno()).st_ino != self._inode:
                    return b""
                opened.seek(self._offset)
                return opened.read()
        except FileNotFoundError:
            return b""
