"""Computes digests of the archives in an inbox. It reads each file once, a part of it at each look of the sensor."""

import hashlib
import os
import stat
import time
from collections.abc import Collection, Iterable
from typing import Any

from bonseyes_dagster.orchestration.inbox.files import ArchiveFile, ArchiveSet, is_within, stamp_of

__all__ = ["ArchiveChangedError", "DigestReader"]

# Dagster gives a sensor 60 s, in which it also lists the folders and answers.
BUDGET_S = 10.0
CHUNK_BYTES = 4 << 20


class ArchiveChangedError(Exception):
    """A file changed while it was read."""


class _Reading:
    """The state of one file that is being read."""

    def __init__(self) -> None:
        self.digest: Any = hashlib.sha256()
        self.done_bytes = 0
        self.result: str | None = None


class DigestReader:
    """Computes digests of sets within a time budget; the next look continues where the last one stopped reading."""

    def __init__(self) -> None:
        self._readings: dict[tuple[str, tuple[int, int, int, int]], _Reading] = {}
        self._until_s = 0.0
        self._has_read = False

    def begin_look(self, sets: Iterable[ArchiveSet]) -> None:
        """Start a new budget, and forget files that are not in `sets`."""
        self._until_s = time.monotonic() + BUDGET_S
        self._has_read = False
        wanted = {(file.path, file.stamp) for each in sets for file in each.files.values()}
        self._readings = {key: reading for key, reading in self._readings.items() if key in wanted}

    def digest(self, archives: ArchiveSet) -> str | None:
        """Return the sha256 of a set's parameters and bytes, or None when the budget of this look is used up.

        Raises OSError if a file cannot be read, ArchiveChangedError if a file changes while it is read.
        """
        whole = hashlib.sha256()
        for parameter, file in sorted(archives.files.items()):
            result = self._read(file)
            if result is None:
                return None
            whole.update(f"{parameter} {result}\n".encode())
        return whole.hexdigest()[:40]

    def done_bytes(self, archives: ArchiveSet) -> int:
        """Return how many bytes of a set have been read."""
        readings = [self._readings.get((file.path, file.stamp)) for file in archives.files.values()]
        return sum(reading.done_bytes for reading in readings if reading)

    def forget(self, archives: Collection[ArchiveFile]) -> None:
        """Drop the state of files; `InboxState` remembers the digest of their set."""
        for file in archives:
            self._readings.pop((file.path, file.stamp), None)

    def _read(self, file: ArchiveFile) -> str | None:
        key = file.path, file.stamp
        reading = self._readings.get(key)
        if reading is None:
            reading = self._readings[key] = _Reading()
        if reading.result is not None:
            return reading.result
        if self._is_over():
            return None
        try:
            return self._read_on(file, reading)
        except (OSError, ArchiveChangedError):
            del self._readings[key]
            raise

    def _read_on(self, file: ArchiveFile, reading: _Reading) -> str | None:
        # Do not block: a pipe may have the name now.
        descriptor = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as opened:
            self._check(file, os.fstat(descriptor))
            if not is_within(descriptor, file.inside):
                raise ArchiveChangedError
            opened.seek(reading.done_bytes)
            while chunk := opened.read(CHUNK_BYTES):
                reading.digest.update(chunk)
                reading.done_bytes += len(chunk)
                self._has_read = True
                if self._is_over() and reading.done_bytes < file.size:
                    return None
            self._check(file, os.fstat(descriptor))
        if reading.done_bytes != file.size:
            raise ArchiveChangedError
        reading.result = reading.digest.hexdigest()
        return reading.result

    def _is_over(self) -> bool:
        """Tell whether the budget is used up; even on a slow disk each look reads one chunk."""
        return self._has_read and time.monotonic() >= self._until_s

    def _check(self, file: ArchiveFile, found: os.stat_result) -> None:
        if stamp_of(found) != file.stamp or not stat.S_ISREG(found.st_mode):
            raise ArchiveChangedError
