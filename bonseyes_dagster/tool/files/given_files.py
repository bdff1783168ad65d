"""Tells whether a tool has changed a file that it was given: an upload, a fetched file, a link to a published one.

Tool and container are one user, so no permission keeps a tool from it. The child writes down what each file is before
the tool gets it; the worker looks again when all that the tool has started has ended.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from bonseyes_dagster.errors import ToolError

__all__ = ["GivenFiles"]


class GivenFiles:
    """The files that an artifact's tool was given, kept in the file `record`, which is there once there is one."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._descriptor: int | None = None

    def add(self, path: Path, name: str) -> None:
        """Write down what a file is; `name` is what a message calls it."""
        if self._descriptor is None:
            self._descriptor = os.open(self._record, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        line = json.dumps([os.fspath(path), name, _content_state(path)])
        # At once: the tool may end at any time, and may be a program that this process becomes.
        os.write(self._descriptor, f"{line}\n".encode())

    def check(self) -> None:
        """Raise ToolError when one has other content. One that the tool has moved or removed is no lie to anybody."""
        try:
            lines = self._record.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return
        for path, name, state in map(json.loads, lines):
            if _content_state(Path(path)) not in (state, None):
                raise ToolError(
                    f"The tool changed its input {name}. Inputs must stay as they are: copy what is to be changed."
                )


def _content_state(path: Path) -> list[int] | None:
    """Return what changes with the content; links that others make to a published file do not change it."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns]
