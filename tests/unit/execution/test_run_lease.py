"""Runs that no launcher started: the executing process holds a lease, and no other process resumes the run."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dagster import DagsterRunStatus, RunsFilter
from dagster._daemon.monitoring import execute_run_monitoring_iteration

from bonseyes_dagster.execution.launching.run_protocol import RunServerClient, default_socket, records_folder
from bonseyes_dagster.execution.runs.process_record import recorded_run_ids
from bonseyes_dagster.execution.runs.run_names import run_name
from bonseyes_dagster.tags import RUN_TAG
from tests.unit.execution.launching import JOBS, LaunchingProject, code_server, launching_project, wait_until

pytestmark = pytest.mark.slow

SUCCESS, FAILURE, CANCELED = DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED
STARTED = DagsterRunStatus.STARTED
# Ops in threads, and each op in its own process.
BOTH = pytest.mark.parametrize("job", ["waiting", "waiting_separate"])


@pytest.fixture(scope="module")
def warm(tmp_path_factory) -> Iterator[LaunchingProject]:
    """A project with our launcher and a run server."""
    folder = tmp_path_factory.mktemp("leases")
    with code_server(JOBS) as port, launching_project(folder, port) as project:
        project.serve_runs()
        yield project


@pytest.fixture
def project(warm, tmp_path, monkeypatch) -> Iterator[LaunchingProject]:
    """The project, and an empty folder for the notes of ops."""
    monkeypatch.setattr(warm, "folder", tmp_path)
    yield warm
    warm.kill_waiting()


class Execution:
    """A running `dagster job execute`."""

    def __init__(self, project: LaunchingProject, process: subprocess.Popen, known: set[str]) -> None:
        self._project = project
        self.process = process
        self._known = known

    @property
    def run_id(self) -> str:
        """The id of the run that it created."""
        found = wait_until(lambda: set(self._project.instance.get_run_ids()) - self._known)
        return next(iter(found))


@contextmanager
def job_execute(project, job="waiting", **tags) -> Iterator[Execution]:
    """Run `dagster job execute` with the project's DAGSTER_HOME."""
    known = set(project.instance.get_run_ids())
    config = project.folder / f"{job}.yaml"
    config.write_text(json.dumps(project.config(job.partition("_")[0])))
    command = [str(Path(sys.executable).with_name("dagster")), "job", "execute", "-f", str(JOBS)]
    command += ["-d", str(JOBS.parent), "-j", job, "-c", str(config), "--tags", json.dumps(tags)]
    environ = {**os.environ, "DAGSTER_HOME": str(project.home)}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield Execution(project, process, known)
    finally:
        process.kill()
        process.wait()


def look_for_lost_runs(project, run_id=None) -> None:
    """Check for lost runs, like the daemon every few seconds and the run server every 15 s."""
    assert not any(execute_run_monitoring_iteration(project.context, logging.getLogger("monitoring")))
    if run_id is not None:
        RunServerClient(default_socket(project.home)).ask("status", run_id=run_id)


def count(project, run_id) -> Counter:
    """Count the events of a run by step and type."""
    events = (entry.dagster_event for entry in project.instance.all_logs(run_id))
    return Counter((event.step_key, event.event_type_value) for event in events if event)


@pytest.mark.parametrize("job", ["waiting", "waiting_separate", "waiting_stock"])
def test_run_of_job_execute_is_executed_once(project, job):
    """Neither the daemon nor the run server resumes it, with any executor."""
    with job_execute(project, job) as execution:
        project.wait_for_pid()
        for _ in range(3):
            look_for_lost_runs(project, execution.run_id)
        if job == "waiting":  # a new run server looks for runs to adopt
            project.servers.pop().stop()
            assert project.serve_runs().ping()["runs"] == {}
        project.release()
        assert execution.process.wait(60) == 0
    counts = count(project, execution.run_id)
    assert [counts[step, "STEP_START"] for step in ("first", "wait_for_release", "last")] == [1, 1, 1]
    assert counts[None, "PIPELINE_SUCCESS"] == 1
    assert len(project.pids()) == 1


@BOTH
def test_run_of_a_killed_job_execute_fails(project, job):
    """The run is not resumed, and does not stay STARTED."""
    with job_execute(project, job) as execution:
        project.wait_for_pid()
        execution.process.kill()
        execution.process.wait()
        look_for_lost_runs(project, execution.run_id)
        assert project.wait(execution.run_id) == FAILURE
    reason = "The run's process ended; the run was executed by `dagster job execute` and is not resumed."
    assert reason in project.messages(execution.run_id)
    assert len(project.pids()) == 1
    wait_until(lambda: execution.run_id not in recorded_run_ids(records_folder(default_socket(project.home))))


def test_killed_run_of_a_stock_executor_is_left_alone(project):
    """Without a lease, the loss of its process cannot be detected. A cancel ends the run."""
    with job_execute(project, "waiting_stock") as execution:
        project.wait_for_pid()
        execution.process.kill()
        execution.process.wait()
        look_for_lost_runs(project, execution.run_id)
        assert project.run(execution.run_id).status == STARTED
        assert project.instance.run_launcher.terminate(execution.run_id)
        assert project.wait(execution.run_id) == CANCELED
    assert len(project.pids()) == 1


@BOTH
def test_cancel_stops_job_execute(project, job):
    """Its executor polls the run's status; a process that was not started for the run gets no signal."""
    with job_execute(project, job) as execution:
        project.wait_for_pid()
        assert project.instance.run_launcher.terminate(execution.run_id)
        assert project.wait(execution.run_id) == CANCELED
        assert execution.process.wait(30) >= 0
    assert count(project, execution.run_id)["wait_for_release", "STEP_FAILURE"] == 1


@BOTH
def test_interrupt_of_job_execute_cancels_its_run(project, job):
    """No process would resume it."""
    with job_execute(project, job) as execution:
        project.wait_for_pid()
        execution.process.send_signal(signal.SIGINT)
        assert project.wait(execution.run_id) == CANCELED
        execution.process.wait(30)


@BOTH
def test_a_deleted_run_stops_job_execute(project, job):
    """The run has no log any more."""
    with job_execute(project, job) as execution:
        project.wait_for_pid()
        project.instance.delete_run(execution.run_id)
        assert execution.process.wait(30) != 0
    assert "last 2" not in project.notes()


@pytest.mark.parametrize("job", ["quick", "waiting_separate"])
def test_job_execute_with_a_taken_name_gets_another_name(project, job):
    """The older run keeps the name, and the log of the newer run has the new name."""
    taken = f"demo-of-{job}"
    first = project.create("quick", **{RUN_TAG: taken})
    project.release()
    with job_execute(project, job, **{RUN_TAG: taken}) as execution:
        assert execution.process.wait(60) == 0
    name = f"{taken}-{execution.run_id[:8]}"
    assert run_name(project.run(execution.run_id)) == name
    assert run_name(project.run(first)) == taken
    assert f"Another run is called {taken}; this one is called {name}." in project.messages(execution.run_id)
    assert project.instance.get_runs_count(RunsFilter(tags={RUN_TAG: taken})) == 1


def test_lease_ends_with_the_run_in_a_process_that_goes_on(project, tmp_path):
    """In a notebook, for example, the record is removed when the run has ended."""
    code = """
import sys, time
from pathlib import Path
from dagster import DagsterInstance, execute_job, reconstructable
sys.path.insert(0, sys.argv[1])
from launcher_jobs import quick
from bonseyes_dagster.execution.runs.process_record import recorded_run_ids
with DagsterInstance.get() as instance:
    folder = instance.run_launcher.records
    with execute_job(reconstructable(quick), instance) as result:
        print(result.success, result.run_id in recorded_run_ids(folder), flush=True)
    deadline = time.monotonic() + 30
    while result.run_id in recorded_run_ids(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    print(result.run_id in recorded_run_ids(folder))
"""
    environ = {**os.environ, "DAGSTER_HOME": str(project.home)}
    output = subprocess.check_output([sys.executable, "-c", code, str(JOBS.parent)], env=environ, text=True)
    assert output.split() == ["True", "True", "False"]
