"""Save the kernel's metadata of published files when their digests are right. `reuse.py` compares it later.

A write to a file, or its replacement, changes its inode, its size or one of its two times. No program can set the time
of the last change back. So files with the same states need not be read again. Only bit rot below the file system
leaves the states unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bonseyes_dagster.model import Manifest
from bonseyes_dagster.system.replacing import replace_file
from bonseyes_dagster.tool.artifacts.layout import Folder

__all__ = ["FileState", "are_saved", "is_quick_to_read", "is_same_content", "read_states", "save_states"]

# Reading up to this much takes about 20 ms, so it is always read.
_QUICK_BYTES = 16 << 20
_QUICK_FILES = 200


# Path, mode, device, inode, size, time of the last write, time of the last change. A new link counts as a change.
# This is a plain tuple because there may be many thousands.
FileState = tuple[str, int, int, int, int, int, int]


def is_quick_to_read(manifest: Manifest) -> bool:
    """Tell whether reading all files is so quick that saving their states does not pay."""
    return manifest.size <= _QUICK_BYTES and len(manifest.files) <= _QUICK_FILES


def read_states(data: Path) -> list[FileState]:
    """Return the states of all files below `data`, ordered by path."""
    found, waiting = [], [os.fspath(data)]
    start = len(waiting[0]) + 1
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    found.append(_state(entry.path[start:], entry.stat(follow_symlinks=False)))
    return sorted(found)


def _state(path: str, found: os.stat_result) -> FileState:
    return path, found.st_mode, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def is_same_content(before: Sequence[FileState], after: Sequence[FileState]) -> bool:
    """Tell whether two lists of states differ in nothing but new links."""
    return [state[:-1] for state in before] == [state[:-1] for state in after]


def save_states(digest: str, states: Sequence[FileState], *folders: Folder) -> None:
    """Save the states of files that have just been digested. If the disk refuses, a later re-use reads the files."""
    line = _line(digest, states)
    for folder in folders:
        with suppress(OSError):
            replace_file(folder.file_states, line)


def are_saved(digest: str, states: Sequence[FileState], folder: Folder) -> bool:
    """Tell whether `states` are the saved ones of the manifest with the digest `digest`."""
    with suppress(OSError):
        return folder.file_states.read_bytes() == _line(digest, states)
    return False


def _line(digest: str, states: Sequence[FileState]) -> bytes:
    return f"{digest} {hashlib.sha256(json.dumps(states).encode()).hexdigest()}\n".encode()
