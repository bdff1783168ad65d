"""Finding and ending every process of a project, whoever its parent is by now."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

import psutil

from bonseyes_dagster.local.project import Project

__all__ = ["MARK", "end", "find_leftovers"]

# Every process that a supervisor starts inherits it, and so do theirs: it is found again when its parents are gone.
MARK = "BONSEYES_SUPERVISED"


def find_leftovers(project: Project) -> list[psutil.Process]:
    """Return the processes that carry the project's mark, without this one and its ancestors."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in own and _is_marked(process, project)]


def _is_marked(process: psutil.Process, project: Project) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        if process.uids().real == os.getuid() and process.status() != psutil.STATUS_ZOMBIE:
            return process.environ().get(MARK) == str(project.state)
    return False


def end(processes: Iterable[psutil.Process], *, patience_s: float) -> None:
    """TERM, then KILL what lives on; a process that is gone already is none."""
    processes = list(processes)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=patience_s)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
