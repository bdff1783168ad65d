"""The state of the worker for the server processes: a lock shows that it runs, a file how the code was loaded."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bonseyes_dagster.errors import UnavailableError
from bonseyes_dagster.system.replacing import replace_file
from bonseyes_dagster.tool.artifacts.layout import Volume

__all__ = ["check_worker", "read_state", "worker_lock", "write_state"]

_log = logging.getLogger(__name__)
_TRY_EVERY_S = 0.05
_held: set[int] = set()


def _leave_locks() -> None:
    """Close the locks in a forked child; else a child that outlives the worker would keep them."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_leave_locks)


@contextmanager
def worker_lock(path: Path, is_stopping: Callable[[], bool]) -> Iterator[int | None]:
    """Hold the lock of the one worker; yield its descriptor, or None if the worker must stop before the lock is free.

    Forked processes do not hold the lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    _held.add(descriptor)
    try:
        while not is_stopping():
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_TRY_EVERY_S)
            else:
                yield descriptor
                return
        yield None
    finally:
        if descriptor in _held:  # not in a forked child that got here
            _held.remove(descriptor)
            os.close(descriptor)


def write_state(volume: Volume, **state: Any) -> None:
    """Write how the loading of the tool's code goes: `loading`, `ready` or `broken` with its `reason`.

    Errors of the disk are only logged: on a full disk the worker must still end and delete artifacts, to make room.
    """
    try:
        replace_file(volume.worker_state, json.dumps(state).encode())
    except OSError as error:
        _log.warning("The worker's state cannot be written: %s", error)
        with suppress(OSError):
            # No state is better than an old one.
            volume.worker_state.unlink(missing_ok=True)


def read_state(volume: Volume) -> dict[str, Any]:
    """Return the state that the last worker wrote; empty if there is none."""
    try:
        state = json.loads(volume.worker_state.read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def check_worker(volume: Volume) -> None:
    """Raise UnavailableError if no worker runs, or if it still loads the tool's code or cannot load it."""
    descriptor = os.open(volume.worker_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        raise UnavailableError("The worker is not running; it should be back in a second.")
    finally:
        os.close(descriptor)
    state = read_state(volume)
    if state.get("state") == "loading":
        raise UnavailableError("The tool's code is being loaded.")
    if state.get("state") == "broken":
        raise UnavailableError(
            f"The tool's code cannot be loaded: {state.get('reason')} "
            "(The container loads it again when a file changes.)",
            detail={"state": "broken"},
        )
