"""Jobs of a project on Dagster's multiprocess executor: separate process state, logs, cancel and resume."""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterRunStatus

from tests.unit.execution.launching import LaunchingProject, code_server, launching_project, wait_until

pytestmark = pytest.mark.slow

JOBS = Path(__file__).with_name("multiprocess_jobs.py")
NOTING = {
    "neighbours": ["left", "right", "compare"],
    "waiting": ["first", "wait_for_release", "last"],
    "deadly": ["first"],
}


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A project with a run server, whose jobs have this executor."""
    with (
        code_server(JOBS) as port,
        launching_project(tmp_path_factory.mktemp("warm"), port, jobs=JOBS) as project,
    ):
        project.serve_runs()
        yield project


@pytest.fixture
def served(warm, tmp_path, monkeypatch):
    """The project, and an empty folder for the notes of ops."""
    monkeypatch.setattr(warm, "folder", tmp_path)
    yield warm
    warm.kill_waiting()


def launch(project: LaunchingProject, job: str) -> str:
    """Launch a job whose ops write notes."""
    ops = {name: {"config": {"folder": str(project.folder)}} for name in NOTING[job]}
    return project.launch(job, {"ops": ops, "execution": {"config": {"max_concurrent": 2}}})


def events(project: LaunchingProject, run_id: str) -> Counter[tuple[str | None, str]]:
    """Count a run's events by step and kind."""
    entries = project.instance.all_logs(run_id)
    return Counter((entry.step_key, entry.dagster_event.event_type_value) for entry in entries if entry.dagster_event)


def output_of(project: LaunchingProject, run_id: str, step: str) -> str:
    """Return the output of a step."""
    manager: Any = project.instance.compute_log_manager
    logs = [
        entry.dagster_event.logs_captured_data
        for entry in project.instance.all_logs(run_id)
        if entry.dagster_event and entry.dagster_event.event_type_value == "LOGS_CAPTURED"
    ]
    key = next(each.file_key for each in logs if each.step_keys == [step])
    data = manager.get_log_data(manager.build_log_key_for_run(run_id, key))
    return (data.stdout or b"").decode()


def test_concurrent_ops_share_no_process_state(served):
    """Each op has its own working directory, environment, redirected output and log."""
    run_id = launch(served, "neighbours")
    assert served.wait(run_id) == DagsterRunStatus.SUCCESS, served.messages(run_id)
    seen = " ".join(
        f"Seen(folder='{name}-home', variable='{name}', captured='{name} captured\\n')" for name in ("left", "right")
    )
    assert served.notes() == [seen]
    for name in ("left", "right"):
        assert output_of(served, run_id, name).splitlines() == [f"{name} before", f"{name} after"]


def test_op_that_ends_its_process_fails_only_its_step(served):
    """The other op goes on, and the run fails once."""
    run_id = launch(served, "deadly")
    assert served.wait(run_id) == DagsterRunStatus.FAILURE
    found = events(served, run_id)
    assert found["end_the_process", "STEP_FAILURE"] == found["first", "STEP_SUCCESS"] == 1
    assert found["end_the_process", "STEP_START"] == 1
    assert "child process for step end_the_process" in served.messages(run_id)


def test_cancelled_run_ends_its_ops(served):
    """The executor forwards the signal to the processes of the steps."""
    run_id = launch(served, "waiting")
    served.wait_for_pid()
    served.instance.run_launcher.terminate(run_id)
    assert served.wait(run_id) == DagsterRunStatus.CANCELED
    assert events(served, run_id)["wait_for_release", "STEP_FAILURE"] == 1


def test_resumed_run_executes_only_unfinished_steps(served):
    """Ended steps are not executed again, stored values are loaded, and a failed step stays failed."""
    run_id = launch(served, "waiting")
    served.wait_for_pid()
    process = served.servers[0].ping()["runs"][run_id]
    wait_until(lambda: events(served, run_id)["fails", "STEP_FAILURE"])
    os.kill(process, signal.SIGKILL)
    served.wait_for_pid(2)
    served.release()
    assert served.wait(run_id) == DagsterRunStatus.FAILURE, served.messages(run_id)
    assert [line for line in served.notes() if not line.startswith("waiting")] == ["first", "last (1, {2: 'two'})"]
    found = events(served, run_id)
    assert found["first", "STEP_START"] == found["fails", "STEP_START"] == found["last", "STEP_SUCCESS"] == 1
