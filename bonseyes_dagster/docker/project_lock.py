"""The lock between commands that start a docker project, and commands that back it up or restore it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bonseyes_dagster.errors import UnavailableError

__all__ = ["lock_project"]


@contextmanager
def lock_project(folder: Path, *, exclusive: bool) -> Iterator[None]:
    """Lock the project's folder, `exclusive` or shared with other starts; raise UnavailableError when it is locked.

    The kernel releases the lock when the process ends. A lock file would not do: other users could not open it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            doing = "started, backed up or restored" if exclusive else "backed up or restored"
            raise UnavailableError(f"{folder.name} is being {doing}; try again when this is done.") from None
        except OSError:
            pass  # NFS cannot lock folders; a backup checks at its end whether the project has been started meanwhile
        yield
    finally:
        os.close(descriptor)
