"""How far a running tool is: a small file that is replaced ten times a second at most, and read by every status."""

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
    """Writes the first, the last and some of the states between."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written_s = 0.0
        self._pending: Progress | None = None

    def set(self, progress: Progress) -> None:
        """Take note of a state, and write it unless the one before was written just now."""
        self._pending = progress
        if time.monotonic() - self._written_s >= _EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write the latest state if it is not written yet."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        self._written_s = time.monotonic()
        body = {"done": pending.done, "total": pending.total, "unit": pending.unit, "message": pending.message}
        # NumPy's numbers are none of Python's, and become what they are as a float.
        replace_file(self._path, json.dumps(body, default=float).encode())


def read_progress(path: Path) -> dict[str, Any] | None:
    """Return what the file says; None when there is none, or a command tool wrote something else there."""
    try:
        with path.open("rb") as file:
            body = json.loads(file.read(_LARGEST_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    # What JSON has no word for, as infinity, must not get into the index.
    return dataclasses.asdict(progress_from_json(body)) if isinstance(body, dict) else None


def progress_from_json(body: Mapping[str, Any] | None) -> Progress:
    """Return a progress of which each value is what the contract says, or None."""
    body = body or {}
    return Progress(
        _number(body.get("done")), _number(body.get("total")), _text(body.get("unit")), _text(body.get("message"))
    )


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # An integer may be larger than any float, in which its readers hold it; NaN compares as false.
    return value if abs(value) <= _LARGEST_NUMBER else None


def _text(value: object) -> str | None:
    return value[:_LONGEST_TEXT] if isinstance(value, str) else None
