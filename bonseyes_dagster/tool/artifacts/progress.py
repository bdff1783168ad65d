"""The progress of a running tool: a small file that is replaced at most ten times a second. Each status reads it."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bonseyes_dagster.model import Progress
from bonseyes_dagster.system.replacing import replace_file

__all__ = ["ProgressWriter", "progress_from_json", "read_progress"]

_EVERY_S = 0.1
_LONGEST_TEXT = 500
_LARGEST_FILE_BYTES = 1 << 16
_LARGEST_NUMBER = sys.float_info.max


class ProgressWriter:
    """Writes the first progress, the last one, and some between them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written_s = 0.0
        self._pending: Progress | None = None

    def set(self, progress: Progress) -> None:
        """Set the progress; write it if the last write is at least 0.1 seconds ago."""
        self._pending = progress
        if time.monotonic() - self._written_s >= _EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write the latest progress if it is not written yet."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        self._written_s = time.monotonic()
        body = {"done": pending.done, "total": pending.total, "unit": pending.unit, "message": pending.message}
        # JSON does not take NumPy's numbers, so they become floats.
        replace_file(self._path, json.dumps(body, default=float).encode())


def read_progress(path: Path) -> dict[str, Any] | None:
    """Return the progress in the file; None if there is no file, or a command tool wrote something else there."""
    try:
        with path.open("rb") as file:
            body = json.loads(file.read(_LARGEST_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    # Infinity and NaN are no JSON, so they must not get into the index.
    return dataclasses.asdict(progress_from_json(body)) if isinstance(body, dict) else None


def progress_from_json(body: Mapping[str, Any] | None) -> Progress:
    """Return a progress; each value that breaks the contract becomes None."""
    body = body or {}
    return Progress(
        _number(body.get("done")), _number(body.get("total")), _text(body.get("unit")), _text(body.get("message"))
    )


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Readers hold the number in a float, and an integer may be too large for one. NaN compares as false.
    return value if abs(value) <= _LARGEST_NUMBER else None


def _text(value: object) -> str | None:
    return value[:_LONGEST_TEXT] if isinstance(value, str) else None
