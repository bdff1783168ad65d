"""The project that test_launcher.py launches runs of: its ops note what they do in the project's folder."""

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
# The ops that note what they do.
NOTING = {
    "waiting": ["first", "wait_for_release", "last"],
    "stubborn": ["sleep_on"],
    "deadly": ["end_process", "neighbour", "tool_neighbour"],
    "deadly_with_retries": ["end_process"],
    "involved": ["flaky", "wait_for_release", "total"],
}


class LaunchingProject(common.LaunchingProject):
    """A project, and what its ops have noted."""

    def config(self, job: str) -> dict[str, Any]:
        """Let all ops of a job that note things do so in the project's folder."""
        ops = {name: {"config": {"folder": str(self.folder)}} for name in NOTING.get(job, [])}
        return {"ops": ops}

    def notes(self) -> list[str]:
        """Return what ops have noted."""
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def pids(self) -> list[int]:
        """Return the processes whose ops are or were waiting, oldest first."""
        return [int(line.split()[1]) for line in self.notes() if line.startswith("waiting ")]

    def lives(self, _run_id: str, pid: int) -> bool:
        """Tell whether a run's process is there."""
        return Path(f"/proc/{pid}").exists()

    def wait_for_pid(self, count: int = 1) -> int:
        """Wait until ops have waited `count` times; return the last one's process."""
        wait_until(lambda: len(self.pids()) >= count)
        return self.pids()[-1]

    def release(self) -> None:
        """Let waiting ops go on."""
        (self.folder / "release").touch()

    def close(self) -> None:
        """End what is left of it."""
        super().close()
        self.kill_waiting()

    def kill_waiting(self) -> None:
        """End runs that a failed test has left waiting."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@contextmanager
def launching_project(
    folder: Path, port: int, *, launcher: Any = "warm", jobs: Path = JOBS, postgres: str | None = None
) -> Iterator[LaunchingProject]:
    """Make a project whose instance has the given launcher, on a code server."""
    options: dict[str, Any] = {"jobs": jobs, "launcher": launcher, "postgres": postgres, "kind": LaunchingProject}
    with common.launching_project(folder, port, **options) as project:
        yield project


def own_jobs(folder: Path) -> Path:
    """Copy the jobs, for a test that changes them."""
    return Path(shutil.copy(JOBS, folder / "own_jobs.py"))
