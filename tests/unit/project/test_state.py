"""What a supervisor tells others, and the lock that makes it the only one."""

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


def test_a_record_of_a_living_supervisor_is_read_as_written(project: Project) -> None:
    """Through JSON and back."""
    project_state = _project_state(os.getpid(), psutil.Process().create_time())
    write_json(project.state_file, project_state.to_json())
    assert read_project_state(project) == project_state
    assert project_state.is_healthy
    assert not replace(project_state, services=(replace(project_state.services[0], state="unhealthy"),)).is_healthy


def test_a_later_process_with_the_same_pid_is_another(project: Project) -> None:
    """A project_state may be left of a supervisor that was killed, and its pid be anybody's by now."""
    write_json(project.state_file, _project_state(os.getpid(), psutil.Process().create_time() - 100).to_json())
    assert read_project_state(project) is None


def test_a_record_of_a_dead_process_is_none(project: Project) -> None:
    """Also of one that nobody has waited for."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    write_json(project.state_file, _project_state(process.pid, psutil.Process(process.pid).create_time()).to_json())
    assert read_project_state(project) is not None
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert read_project_state(project) is None
    process.communicate()
    assert read_project_state(project) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": "x"}'])
def test_a_damaged_record_is_none(project: Project, text: str) -> None:
    """It says nothing, and must not keep anybody from starting."""
    project.state_file.write_text(text)
    assert read_project_state(project) is None


def test_one_holds_the_lock_at_a_time(project: Project) -> None:
    """A killed holder's lock is free."""
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


def test_the_state_is_closed_to_others(project: Project) -> None:
    """It holds logs, uploads and the addresses of what has no token."""
    assert project.state_folder.stat().st_mode & 0o777 == 0o700
