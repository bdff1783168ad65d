"""Find the processes of a project by their role, and kill them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from dataclasses import dataclass

import psutil

from tests.contract.tools.server import is_alive
from tests.crash.executions import working_pid
from tests.system.embedded import Embedded

__all__ = ["KILL_GROUPS", "PIPELINE", "RUN", "TOOLS", "Kill", "Victims"]

PIPELINE = "five"
TOOLS = ("source", "combine", "judge")
RUN = "run"
_SERVERS = ("run-server", "code-server", "dagster-daemon", PIPELINE, f"{PIPELINE} worker")
_OF_TOOLS = tuple(f"{tool}{process}" for tool in TOOLS for process in ("", " worker", " mule", " child"))
_TOGETHER = (
    (RUN, "run-server"),
    (RUN, "dagster-daemon"),
    (RUN, "combine mule"),
    ("run-server", "source"),
    ("run-server", "dagster-daemon"),
    ("code-server", PIPELINE),
    (RUN, "run-server", "dagster-daemon"),
    (RUN, "run-server", "code-server", "combine"),
)
# Groups of processes to kill at the same moment. The process of the run occurs more often: everything depends on it.
KILL_GROUPS: tuple[tuple[str, ...], ...] = (*((role,) for role in (RUN, RUN, *_SERVERS, *_OF_TOOLS)), *_TOGETHER)


@dataclass(slots=True)
class Kill:
    """One killed process; `back_s` is the time until another process replaced it."""

    role: str
    pid: int
    at: float
    run: str
    back_s: float | None = None

    @property
    def container(self) -> str:
        """Return the service of the process."""
        return self.role.partition(" ")[0]

    @property
    def interrupts(self) -> bool:
        """Tell whether the kill interrupts a tool that works."""
        return self.container in TOOLS and not self.role.endswith(" worker")


class Victims:
    """Finds and kills the processes of one project."""

    def __init__(self, project: Embedded) -> None:
        self._project = project
        self.executing: int | None = None
        """The process of `dagster job execute`, while it executes a run."""
        self._records = project.project.dagster_home / "run_server" / "runs"

    def pid(self, role: str) -> int | None:
        """Return the process that has this role now."""
        service, _, part = role.partition(" ")
        if role == RUN:
            found = self.executing or next(iter(self.runs()), None)
        elif part == "child":
            found = working_pid(self._project.folder, service)
        elif part:
            found = self._spawned(service, part)
        else:
            found = self._service(service)
        return found if found and is_alive(found) else None

    def kill(self, roles: tuple[str, ...], run: str) -> list[Kill]:
        """Kill the processes of all roles at once, if all of them run."""
        pids = {role: self.pid(role) for role in roles}
        if not all(pids.values()):
            return []
        kills = []
        for role, pid in pids.items():
            kills.append(Kill(role, pid or 0, time.time(), run))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid or 0, signal.SIGKILL)
        return kills

    def runs(self) -> list[int]:
        """Return the process ids in the run records, dead or alive."""
        found = []
        for record in self._records.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                found.append(int(json.loads(record.read_bytes())["pid"]))
        return found

    def run_processes(self) -> list[int]:
        """Return every process of the project that executes a run, with or without a record."""
        found = []
        for process in self._project.processes():
            with contextlib.suppress(psutil.Error):
                if process.name().startswith("run ") or "run_worker" in " ".join(process.cmdline()):
                    found.append(process.pid)
        return found

    def _service(self, name: str) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            pid = self._project.service(name)["pid"]
            return int(pid) if pid else None
        return None

    def _spawned(self, service: str, part: str) -> int | None:
        """Return a living process from the log of uWSGI."""
        log = (self._project.project.logs / f"{service}.log").read_text(errors="replace")
        what = "mule 1" if part == "mule" else r"worker \d+"
        pids = [int(pid) for pid in re.findall(rf"spawned uWSGI {what} \((?:new )?pid: (\d+)", log)]
        return next((pid for pid in reversed(pids) if is_alive(pid)), None)
