"""Keeps apart who starts a project's containers, and who copies or replaces what they keep."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bonseyes_dagster.errors import UnavailableError

__all__ = ["lock_project"]


@contextmanager
def lock_project(folder: Path, *, alone: bool) -> Iterator[None]:
    """Hold the project's folder, with others who start it or `alone`; raise UnavailableError when that cannot be now.

    It is a lock of the kernel's, which ends with the process, and needs no file that others could not open.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            doing = "started, backed up or restored" if alone else "backed up or restored"
            raise UnavailableError(f"{folder.name} is being {doing}; try again when that is done.") from None
        except OSError:
            pass  # NFS, for one, locks no folders: a backup still finds at its end what was started meanwhile
        yield
    finally:
        os.close(descriptor)
