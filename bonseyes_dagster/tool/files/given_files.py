"""Find out whether a tool has changed an input file: an upload, a fetched file, or a link to a published file.

Tool and container run as the same user, so no permission prevents the change. The child saves the state of each file
before the tool gets it. The worker compares the states when all processes of the tool have ended.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from bonseyes_dagster.errors import ToolError

__all__ = ["GivenFiles"]


class GivenFiles:
    """The input files of one artifact; their states are saved in `states_file`, which the first `add` makes."""

    def __init__(self, states_file: Path) -> None:
        self._states_file = states_file
        self._descriptor: int | None = None

    def add(self, path: Path, name: str) -> None:
        """Save the state of a file; messages call it `name`."""
        if self._descriptor is None:
            self._descriptor = os.open(self._states_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        line = json.dumps([os.fspath(path), name, _content_state(path)])
        # Write at once: the tool may end at any time, and this process may become the tool by exec.
        os.write(self._descriptor, f"{line}\n".encode())

    def check(self) -> None:
        """Raise ToolError if a file has other content. A moved or removed file is fine: nobody reads wrong data."""
        try:
            lines = self._states_file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return
        for path, name, state in map(json.loads, lines):
            if _content_state(Path(path)) not in (state, None):
                raise ToolError(
                    f"The tool changed its input {name}. A tool must copy an input before it changes the content."
                )


def _content_state(path: Path) -> list[int] | None:
    """Return a state that changes with the content; new links to a published file do not change it."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns]
