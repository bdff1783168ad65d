"""The files of a creation while they arrive: named safely, hashed, kept off the disk's reserve, durable when closed.

The tool's store and the pipeline's runs write their uploads with it. `requests/uploads.py` reads the parts of a request
into them; it checks names, repeated parts and sizes, so that nobody else has to.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

from bonseyes_dagster.system.storage import check_reserve, start_writing, storage_errors

__all__ = ["UploadedFile", "safe_file_name"]

_CHECK_EVERY_BYTES = 1 << 24
_START_EVERY_BYTES = 1 << 23
_LONGEST_NAME_BYTES = 200


def safe_file_name(filename: str) -> str:
    """Return the last part of a client's file name, without what could hurt on this disk; "" if nothing is left."""
    last = filename.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(character for character in last if character.isprintable()).strip().lstrip(".")
    encoded = kept.encode("utf-8", "ignore")[-_LONGEST_NAME_BYTES:]
    return encoded.decode("utf-8", "ignore").lstrip(".")


class UploadedFile(io.FileIO):
    """A new file at `path`, which must not exist. Raises StorageFullError when writing would use the reserve up."""

    def __init__(self, path: Path, *, reserve_bytes: int) -> None:
        super().__init__(path, "x+")
        self.path = path
        self.size_bytes = 0
        self._reserve_bytes = reserve_bytes
        self._hash = hashlib.sha256()
        self._checked_bytes: int | None = None
        self._started_bytes = 0

    @property
    def sha256(self) -> str:
        """Return the hex digest of the bytes written so far."""
        return self._hash.hexdigest()

    def write(self, data: Any, /) -> int:
        """Write all of `data`."""
        view = memoryview(data).cast("B")
        self._check_reserve(len(view))
        with storage_errors():
            written = 0
            while written < len(view):
                written += super().write(view[written:]) or 0
        self._hash.update(view)
        self.size_bytes += len(view)
        left_bytes = self.size_bytes - self._started_bytes
        if left_bytes >= _START_EVERY_BYTES:
            start_writing(self.fileno(), self._started_bytes, left_bytes)
            self._started_bytes = self.size_bytes
        return len(view)

    def close(self) -> None:
        """Make the file durable and close it; harmless when called twice."""
        if not self.closed:
            try:
                with storage_errors():
                    os.fsync(self.fileno())
            finally:
                super().close()

    def abandon(self) -> None:
        """Close the file without waiting for the disk: it is about to be removed."""
        super().close()

    def _check_reserve(self, size_bytes: int) -> None:
        if self._checked_bytes is None or self.size_bytes + size_bytes - self._checked_bytes > _CHECK_EVERY_BYTES:
            self._checked_bytes = self.size_bytes
            check_reserve(self.path.parent, self._reserve_bytes)
