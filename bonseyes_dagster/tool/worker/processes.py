"""The processes of an artifact: signal them, and after a crash find and kill the ones that are left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from bonseyes_dagster.tool.files.writers import is_descriptor_to_write

__all__ = [
    "ARTIFACT_VARIABLE",
    "SERVER_VARIABLE",
    "end_stragglers",
    "flush_all",
    "holds",
    "signal_group",
]

ARTIFACT_VARIABLE = "BONSEYES_ARTIFACT"
"""Environment variable of every program that a tool starts: the artifact's id."""
SERVER_VARIABLE = "BONSEYES_SERVER"
"""Environment variable of the server: an id of its start, which the forked processes of tools inherit."""

_END_WITHIN_S = 10.0
# The place of the file in a line of /proc/PID/maps.
_MAPS_PATH = 5
_libc = ctypes.CDLL(None)


def flush_all() -> None:
    """Flush the buffers of C libraries."""
    _libc.fflush(None)


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a process group; do nothing if it has ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def end_stragglers(artifact_id: str, folder: Path, temporary: Path, server: str | None) -> int:
    """Kill the processes of an artifact that an earlier worker left; return their number.

    Such a process is in another session than this one, and one of these holds:

    - its environment has the id of the artifact, or the id of the `server` that forked it,
    - its working directory is in the artifact's `temporary` folder,
    - it has a file in `folder` open to write.

    A process that only reads there does not belong to the artifact.
    """
    # The kernel names files by paths without links.
    folder, temporary = folder.resolve(), temporary.resolve()

    def is_straggler(process: psutil.Process) -> bool:
        return _is_elsewhere(process) and (
            _is_of_artifact(process, artifact_id, server) or holds(process.pid, folder, temporary)
        )

    ended = 0
    deadline = time.monotonic() + _END_WITHIN_S
    while time.monotonic() < deadline:
        found = _with_descendants(process for process in psutil.process_iter() if is_straggler(process))
        if not found:
            break
        for process in found:
            ended += 1
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=1)
    return ended


def _with_descendants(stragglers: Iterable[psutil.Process]) -> list[psutil.Process]:
    found: dict[psutil.Process, None] = {}
    for process in stragglers:
        found[process] = None
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= dict.fromkeys(process.children(recursive=True))
    return [process for process in found if _is_elsewhere(process)]


def _is_of_artifact(process: psutil.Process, artifact_id: str, server: str | None) -> bool:
    with contextlib.suppress(OSError):
        environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        if f"{ARTIFACT_VARIABLE}={artifact_id}".encode() in environment:
            return True
        return bool(server) and f"{SERVER_VARIABLE}={server}".encode() in environment
    return False


def _is_elsewhere(process: psutil.Process) -> bool:
    """Tell whether a process is alive and in another session than this server."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and os.getsid(process.pid) != os.getsid(0)
    except (OSError, psutil.Error):
        return False


def holds(pid: int, folder: Path, temporary: Path) -> bool:
    """Tell whether the working directory of a process is in `temporary`, or it has a file in `folder` open to write."""
    with contextlib.suppress(OSError):
        if Path(f"/proc/{pid}/cwd").readlink().is_relative_to(temporary):
            return True
        with os.scandir(f"/proc/{pid}/fd") as entries:
            if any(_is_written(pid, entry.name, folder) for entry in entries):
                return True
        return _is_mapped(pid, folder)
    return False


def _is_written(pid: int, descriptor: str, folder: Path) -> bool:
    with contextlib.suppress(OSError):
        is_inside = Path(f"/proc/{pid}/fd/{descriptor}").readlink().is_relative_to(folder)
        return is_inside and is_descriptor_to_write(pid, descriptor)
    return False


def _is_mapped(pid: int, folder: Path) -> bool:
    """Tell whether a process has a file in `folder` mapped to write, which needs no descriptor."""
    inside = os.fsencode(folder) + b"/"
    for line in Path(f"/proc/{pid}/maps").read_bytes().splitlines():
        words = line.split(maxsplit=5)
        is_shared = len(words) > _MAPS_PATH and words[1].startswith(b"rw") and words[1].endswith(b"s")
        if is_shared and words[_MAPS_PATH].startswith(inside):
            return True
    return False
