"""A supervisor in the background: start it, wait until the project is healthy, stop it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from bonseyes_dagster.embedded import leftovers
from bonseyes_dagster.embedded.logs import tail
from bonseyes_dagster.embedded.socket_folder import SocketFolder
from bonseyes_dagster.embedded.supervisor import STOP_S
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.project.environment import GATEWAY_ONLY, chosen_environ
from bonseyes_dagster.project.folder import Project
from bonseyes_dagster.project.state import Lock, ProjectState, read_project_state
from bonseyes_dagster.settings import Settings

__all__ = ["bring_down", "start_supervisor", "wait_healthy"]

POLL_S = 0.1
START_S = 120.0
# A supervisor writes its state soon after it has taken the lock; without a state after this time, it has ended.
VANISHED_S = 15.0


def start_supervisor(project: Project, settings: Settings) -> subprocess.Popen[bytes]:
    """Start a supervisor in its own session; its output goes to `.bonseyes/logs/supervisor.log`."""
    project.prepare()
    with (project.logs / "supervisor.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "bonseyes_dagster.embedded", str(project.folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=project.folder,
            env={**_environ(settings), "BONSEYES_PORT": str(settings.port), "BONSEYES_URL": settings.url},
            start_new_session=True,
        )


def _environ(settings: Settings) -> dict[str, str]:
    gateway = {name: os.environ[name] for name in GATEWAY_ONLY if name in os.environ}
    return {**chosen_environ(os.environ, settings.pass_env), **gateway}


def wait_healthy(
    project: Project,
    on_state: Callable[[ProjectState], None],
    *,
    supervisor: subprocess.Popen[bytes] | None = None,
    timeout_s: float = START_S,
) -> ProjectState | None:
    """Return the state once each service is healthy or broken; None after `timeout_s`.

    Raises SettingsError with the supervisor's output when the supervisor ends.
    """
    until_s = time.monotonic() + timeout_s
    last_seen_s = time.monotonic()
    while time.monotonic() < until_s:
        has_ended = supervisor is not None and supervisor.poll() is not None
        project_state = read_project_state(project)
        if project_state is not None:
            last_seen_s = time.monotonic()
            on_state(project_state)
            if project_state.phase == "up" and project_state.is_settled:
                return project_state
        elif has_ended:
            output = b"\n".join(tail(project.logs / "supervisor.log", 30)).decode(errors="replace").strip()
            raise SettingsError(output or "The supervisor ended at once.")
        elif time.monotonic() - last_seen_s > VANISHED_S:
            return None
        time.sleep(POLL_S)
    return None


def bring_down(project: Project) -> bool:
    """Stop the supervisor, and kill processes left of an earlier one; tell whether there were any."""
    project_state = read_project_state(project)
    process = project_state.process() if project_state is not None else None
    if process is not None:
        leftovers.end(process, patience_s=3 * STOP_S)
    found = leftovers.find_leftovers(project)
    leftovers.kill(found)
    for file in (project.state_file, project.addresses):
        file.unlink(missing_ok=True)
    _remove_sockets(project)
    return process is not None or bool(found)


def _remove_sockets(project: Project) -> None:
    """Remove the sockets of a killed supervisor, unless another supervisor has started meanwhile."""
    lock = Lock(project.lock)
    if project.state_folder.is_dir() and lock.take():
        SocketFolder(project).remove()
        lock.give_back()
