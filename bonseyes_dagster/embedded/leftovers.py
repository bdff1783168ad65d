"""Finding and ending every process of a project, whoever its parent is by now."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

import psutil

from bonseyes_dagster.project.folder import Project

__all__ = ["MARK", "end", "find_leftovers", "kill", "mark_of"]

# Every process that a supervisor starts inherits it, and so do theirs: it is found again when its parents are gone.
MARK = "BONSEYES_SUPERVISED"


def mark_of(project: Project, supervisor: str = "") -> str:
    """Return what the variable holds below one supervisor; without `supervisor`, how it begins for all of a project."""
    return f"{project.state_folder}#{supervisor}"


def find_leftovers(project: Project, supervisor: str = "") -> list[psutil.Process]:
    """Return the processes that carry the project's mark, without this one and its ancestors."""
    mark = mark_of(project, supervisor)
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in own and _is_marked(process, mark)]


def _is_marked(process: psutil.Process, mark: str) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        if process.uids().real == os.getuid() and process.status() != psutil.STATUS_ZOMBIE:
            return process.environ().get(MARK, "").startswith(mark)
    return False


def kill(processes: Iterable[psutil.Process]) -> None:
    """KILL: what outlived its supervisor counts as crashed, and TERM would make a run cancel itself."""
    processes = list(processes)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def end(process: psutil.Process, *, patience_s: float) -> None:
    """TERM, then KILL what lives on; a process that is gone already is none."""
    with contextlib.suppress(psutil.Error):
        process.terminate()
    _, alive = psutil.wait_procs([process], timeout=patience_s)
    kill(alive)
