"""Find and end all processes of a project, also those whose parent has ended."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

import psutil

from bonseyes_dagster.project.folder import Project

__all__ = ["MARK", "end", "find_leftovers", "kill", "mark_of"]

# All descendants of a supervisor inherit this variable, so they can be found when their parents have ended.
MARK = "BONSEYES_SUPERVISED"


def mark_of(project: Project, supervisor: str = "") -> str:
    """Return the value of the variable below one supervisor; without `supervisor`, the prefix for the project."""
    return f"{project.state_folder}#{supervisor}"


def find_leftovers(project: Project, supervisor: str = "") -> list[psutil.Process]:
    """Return the processes that have the project's mark, without this process and its ancestors."""
    mark = mark_of(project, supervisor)
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in own and _is_marked(process, mark)]


def _is_marked(process: psutil.Process, mark: str) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        if process.uids().real == os.getuid() and process.status() != psutil.STATUS_ZOMBIE:
            return process.environ().get(MARK, "").startswith(mark)
    return False


def kill(processes: Iterable[psutil.Process]) -> None:
    """Send SIGKILL and wait. With SIGTERM, a run would cancel itself; a killed run is resumed like after a crash."""
    processes = list(processes)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def end(process: psutil.Process, *, patience_s: float) -> None:
    """Send SIGTERM, and SIGKILL after `patience_s`; ignore a process that has ended."""
    with contextlib.suppress(psutil.Error):
        process.terminate()
    _, alive = psutil.wait_procs([process], timeout=patience_s)
    kill(alive)
