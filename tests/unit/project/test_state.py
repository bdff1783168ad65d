"""The state file of a supervisor, and its lock."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bonseyes_dagster.project.folder import Project
from bonseyes_dagster.project.state import Lock, ProjectState, ServiceState, read_project_state, write_json


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with its state folder."""
    project = Project(tmp_path)
    project.prepare()
    return project


def _project_state(pid: int, process_start: float) -> ProjectState:
    service = ServiceState(name="a", kind="tool", state="healthy", pid=1, url="http://x/", seconds=0.5)
    return ProjectState(
        pid=pid, process_start=process_start, phase="up", url="http://x", seconds=1.0, services=(service,)
    )


def test_state_of_a_running_supervisor_is_read_as_written(project: Project) -> None:
    """The state survives the way to JSON and back."""
    project_state = _project_state(os.getpid(), psutil.Process().create_time())
    write_json(project.state_file, project_state.to_json())
    assert read_project_state(project) == project_state
    assert project_state.is_healthy
    assert not replace(project_state, services=(replace(project_state.services[0], state="unhealthy"),)).is_healthy


def test_state_of_a_pid_used_by_another_process_is_none(project: Project) -> None:
    """A killed supervisor leaves its state file, and another process may have its pid by now."""
    write_json(project.state_file, _project_state(os.getpid(), psutil.Process().create_time() - 100).to_json())
    assert read_project_state(project) is None


def test_state_of_an_ended_supervisor_is_none(project: Project) -> None:
    """A zombie counts as ended, too."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    write_json(project.state_file, _project_state(process.pid, psutil.Process(process.pid).create_time()).to_json())
    assert read_project_state(project) is not None
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert read_project_state(project) is None
    process.communicate()
    assert read_project_state(project) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": "x"}'])
def test_damaged_state_file_counts_as_none(project: Project, text: str) -> None:
    """It must not prevent a start."""
    project.state_file.write_text(text)
    assert read_project_state(project) is None


def test_lock_has_one_holder_and_is_free_after_a_kill(project: Project) -> None:
    """A killed supervisor must not block the next start."""
    first, second = Lock(project.lock), Lock(project.lock)
    assert first.take()
    assert not second.take()
    first.give_back()
    assert second.take()
    second.give_back()
    holder = (
        "import sys, time; from pathlib import Path; from bonseyes_dagster.project.state import Lock;"
        f"assert Lock(Path({str(project.lock)!r})).take(); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert not first.take()
        process.kill()
        process.wait()
        assert first.take()
    first.give_back()


def test_only_the_owner_can_enter_the_state_folder(project: Project) -> None:
    """It holds logs, uploads, and sockets of services that need no token."""
    assert project.state_folder.stat().st_mode & 0o777 == 0o700
