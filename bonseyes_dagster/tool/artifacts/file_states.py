"""What the kernel says of published files, kept from the moment when their digests were right; re-use compares it.

Whoever writes to a file, or replaces it, changes its inode, its size or one of its two times, and the time of the last
change cannot be set back. So files whose states are the same need not be read again. Only what rots below the file
system leaves the states as they are.
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

__all__ = ["FileState", "are_kept", "is_quick_to_read", "is_same_content", "keep", "look"]

# To read so much takes about 20 ms: it is always read.
_QUICK_BYTES = 16 << 20
_QUICK_FILES = 200


# Path, mode, device, inode, size, time of the last writing, time of the last change: a new link is a change, too.
# It is a plain tuple because there may be many thousands.
FileState = tuple[str, int, int, int, int, int, int]


def is_quick_to_read(manifest: Manifest) -> bool:
    """Tell whether all files are read sooner than it is worth to keep their states."""
    return manifest.size <= _QUICK_BYTES and len(manifest.files) <= _QUICK_FILES


def look(data: Path) -> list[FileState]:
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
    """Tell whether nothing but links was made between two looks."""
    return [state[:-1] for state in before] == [state[:-1] for state in after]


def keep(digest: str, states: Sequence[FileState], *folders: Folder) -> None:
    """Keep the states of files that have just been digested. A disk that does not take them costs a reading later."""
    line = _line(digest, states)
    for folder in folders:
        with suppress(OSError):
            replace_file(folder.file_states, line)


def are_kept(digest: str, states: Sequence[FileState], folder: Folder) -> bool:
    """Tell whether these are the states that were kept for the manifest with that digest."""
    with suppress(OSError):
        return folder.file_states.read_bytes() == _line(digest, states)
    return False


def _line(digest: str, states: Sequence[FileState]) -> bytes:
    return f"{digest} {hashlib.sha256(json.dumps(states).encode()).hexdigest()}\n".encode()
