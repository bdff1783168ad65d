"""A project for tests of launchers. Its ops write notes into the project's folder."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import launching_project as common
from tests.launching_project import code_server, wait_until

__all__ = ["JOBS", "LaunchingProject", "code_server", "launching_project", "own_jobs", "wait_until"]

JOBS = Path(__file__).parent / "launcher_jobs.py"
# The ops of each job that write notes.
NOTING = {
    "waiting": ["first", "wait_for_release", "last"],
    "stubborn": ["sleep_on"],
    "deadly": ["end_process", "neighbour", "tool_neighbour"],
    "deadly_with_retries": ["end_process"],
    "involved": ["flaky", "wait_for_release", "total"],
}


class LaunchingProject(common.LaunchingProject):
    """A project with the notes of its ops."""

    def config(self, job: str) -> dict[str, Any]:
        """Return the config that makes ops write their notes into the project's folder."""
        ops = {name: {"config": {"folder": str(self.folder)}} for name in NOTING.get(job, [])}
        return {"ops": ops}

    def notes(self) -> list[str]:
        """Return the notes of ops, one per line."""
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def pids(self) -> list[int]:
        """Return the pids of processes whose ops wait or have waited, oldest first."""
        return [int(line.split()[1]) for line in self.notes() if line.startswith("waiting ")]

    def lives(self, _run_id: str, pid: int) -> bool:
        """Tell whether a run's process is alive."""
        return Path(f"/proc/{pid}").exists()

    def wait_for_pid(self, count: int = 1) -> int:
        """Wait until ops have waited `count` times; return the pid of the last."""
        wait_until(lambda: len(self.pids()) >= count)
        return self.pids()[-1]

    def release(self) -> None:
        """Make waiting ops go on."""
        (self.folder / "release").touch()

    def close(self) -> None:
        """Stop the run servers, and kill the processes that still wait."""
        super().close()
        self.kill_waiting()

    def kill_waiting(self) -> None:
        """Kill the processes of runs that a failed test left waiting."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@contextmanager
def launching_project(
    folder: Path, port: int, *, launcher: Any = "warm", jobs: Path = JOBS, postgres: str | None = None
) -> Iterator[LaunchingProject]:
    """Create a project whose instance has the given launcher; its code server listens at `port`."""
    options: dict[str, Any] = {"jobs": jobs, "launcher": launcher, "postgres": postgres, "kind": LaunchingProject}
    with common.launching_project(folder, port, **options) as project:
        yield project


def own_jobs(folder: Path) -> Path:
    """Copy the jobs, for a test that changes them."""
    return Path(shutil.copy(JOBS, folder / "own_jobs.py"))
