"""Steps whose process is lost, and steps that end their process."""

import logging
import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.execution.plan.objects import StepRetryData, StepSuccessData
from dagster._core.execution.stats import StepEventStatus
from dagster._core.storage.tags import MAX_RUNTIME_SECONDS_TAG
from dagster._daemon.monitoring import RESUME_RUN_LOG_MESSAGE, execute_run_monitoring_iteration
from dagster._utils.error import SerializableErrorInfo

from bonseyes_dagster.execution.threads.process_state import ProcessState
from bonseyes_dagster.execution.threads.step_losses import INTERRUPTED, RESUMING, read_losses
from tests.unit.execution.launching import JOBS, LaunchingProject, code_server, launching_project, wait_until

pytestmark = pytest.mark.slow

ENDS = {"SUCCESS": StepSuccessData(1.0), "UP_FOR_RETRY": StepRetryData(SerializableErrorInfo("", [], None))}
SUCCESS, FAILURE, CANCELED = DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED


@pytest.fixture(scope="module")
def warm(tmp_path_factory) -> Iterator[LaunchingProject]:
    """A project with our launcher and a run server."""
    folder = tmp_path_factory.mktemp("losses")
    with code_server(JOBS) as port, launching_project(folder, port) as project:
        project.serve_runs("--grace", "0.5")
        yield project


@pytest.fixture
def project(warm, tmp_path, monkeypatch) -> Iterator[LaunchingProject]:
    """The project, and an empty folder for the notes of ops."""
    monkeypatch.setattr(warm, "folder", tmp_path)
    yield warm
    warm.kill_waiting()


def attempts(project) -> Counter:
    """Count the attempts of each op."""
    return Counter(line.split()[0] for line in project.notes())


def failures(project, run_id) -> dict[str, str]:
    """Return the reason of each failed step."""
    entries = project.instance.all_logs(run_id, of_type=DagsterEventType.STEP_FAILURE)
    return {entry.step_key: entry.dagster_event.step_failure_data.user_failure_data.description for entry in entries}


def test_op_that_ends_its_process_fails_alone(project):
    """It is executed three times. The steps beside it lose two attempts, and then succeed."""
    config = project.config("deadly")
    config["ops"]["end_process"]["config"]["neighbours"] = 2
    run_id = project.launch("deadly", config)
    wait_until(lambda: failures(project, run_id))
    project.release()
    assert project.wait(run_id) == FAILURE
    assert attempts(project) == {"end_process": 3, "neighbour": 6}
    assert failures(project, run_id) == {"end_process": "The step's process ended with exit status 3."}
    statuses = {stats.step_key: stats.status for stats in project.instance.get_run_step_stats(run_id)}
    success = StepEventStatus.SUCCESS
    expected = {"end_process": StepEventStatus.FAILURE, "neighbour": success, "tool_neighbour": success, "one": success}
    assert statuses == expected


def test_retry_policy_counts_lost_processes(project):
    """With three retries, the op is executed four times. Each attempt has a log, and the error names the signal."""
    config = project.config("deadly_with_retries")
    config["ops"]["end_process"]["config"]["signal"] = int(signal.SIGSEGV)
    run_id = project.launch("deadly_with_retries", config)
    assert project.wait(run_id) == FAILURE
    assert project.notes() == [f"end_process {number}" for number in range(4)]
    assert failures(project, run_id) == {"end_process": "The step's process was ended by SIGSEGV."}
    captured = project.instance.all_logs(run_id, of_type=DagsterEventType.LOGS_CAPTURED)
    captures = [entry.dagster_event.logs_captured_data for entry in captured]
    keys = [[run_id, "compute_logs", each.file_key] for each in captures if each.step_keys == ["end_process"]]
    logs = [project.instance.compute_log_manager.get_log_data(key).stdout for key in keys]
    assert logs == [b"about to end, after 1\n"] * 4


def test_kills_of_the_run_process_do_not_fail_an_isolated_step(project):
    """The step in its own process ends with the run's process, and is executed again any number of times."""
    run_id = project.launch("waiting")
    for count in range(1, 4):
        pid = project.wait_for_pid(count)
        os.kill(run_pid(project, run_id), signal.SIGKILL)
        wait_until(lambda pid=pid: not project.lives(run_id, pid))
    assert project.wait_for_pid(4) != run_pid(project, run_id)
    project.release()
    assert project.wait(run_id) == SUCCESS
    assert [line for line in project.notes() if not line.startswith("waiting")] == ["first", "last 2"]


def run_pid(project, run_id) -> int:
    """Return the pid of the run's process."""
    return wait_until(lambda: project.servers[0].ping()["runs"].get(run_id))


def test_cancelled_run_stops_an_isolated_step(project):
    """It gets SIGTERM."""
    run_id = project.launch("waiting")
    for count in (1, 2):
        os.kill(project.wait_for_pid(count), signal.SIGKILL)
    pid = project.wait_for_pid(3)
    assert project.instance.run_launcher.terminate(run_id)
    assert project.wait(run_id) == CANCELED
    wait_until(lambda: not project.lives(run_id, pid))


def test_warning_names_no_step_if_no_thread_ran(monkeypatch):
    """A step in its own process cannot change the state of the run's process."""
    monkeypatch.delenv("LEFT_BEHIND", raising=False)
    state = ProcessState()
    os.environ["LEFT_BEHIND"] = "yes"
    warning = state.restore()
    assert warning is not None and warning.startswith(
        "An earlier step changed and did not restore the environment variable"
    )


def test_losses_count_for_steps_in_flight(tmp_path):
    """At most two count. A loss does not count for a step that had ended, or if the process was stopped on purpose."""
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        run = DagsterRun(job_name="any")
        instance.add_run(run)

        def report(*lines: str) -> None:
            for each in lines:
                kind, _, key = each.partition(" ")
                if kind == "engine":
                    instance.report_engine_event(key, run)
                else:
                    event = DagsterEvent(f"STEP_{kind}", "any", step_key=key, event_specific_data=ENDS.get(kind))
                    instance.report_dagster_event(event, run.run_id)

        report("START done", "SUCCESS done", "START a", "START b")
        assert read_losses(instance, run.run_id) == {"a": 1, "b": 1}
        report(f"engine {RESUMING} (pid: 1)", f"engine {RESUMING} (pid: 2)", "START a", "START b", "UP_FOR_RETRY b")
        assert read_losses(instance, run.run_id) == {"a": 2, "b": 1}
        report(f"engine {RESUMING} (pid: 3)", "RESTARTED a", "START c", f"engine {INTERRUPTED}")
        assert read_losses(instance, run.run_id) == {"a": 2, "b": 1}


def test_run_over_its_maximum_runtime_fails_with_its_steps(project):
    """Its own process does not cancel it, and no process resumes it."""
    run_id = project.launch("waiting", **{MAX_RUNTIME_SECONDS_TAG: "0.1"})
    pid = project.wait_for_pid()
    wait_until(lambda: monitored(project) and project.run(run_id).is_finished)
    wait_until(lambda: not project.lives(run_id, pid))
    wait_until(lambda: steps_in_progress(project, run_id) == [])
    assert not monitored(project) or project.run(run_id).status == FAILURE
    ends = project.instance.all_logs(run_id, of_type={DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_CANCELED})
    assert [entry.dagster_event.event_type_value for entry in ends] == ["PIPELINE_FAILURE"]
    assert ends[0].message == "Exceeded maximum runtime of 0 seconds."
    assert len(project.pids()) == 1


def test_stubborn_run_over_its_maximum_runtime_is_killed_and_its_steps_end(project):
    """Only the run server is left to end the steps."""
    run_id = project.launch("stubborn", **{MAX_RUNTIME_SECONDS_TAG: "0.1"})
    pid = project.wait_for_pid()
    wait_until(lambda: monitored(project) and project.run(run_id).is_finished)
    wait_until(lambda: not project.lives(run_id, pid))
    wait_until(lambda: steps_in_progress(project, run_id) == [])
    assert project.run(run_id).status == FAILURE


def test_steps_of_a_run_that_is_not_resumed_end(project):
    """No step of an ended run may stay in progress."""
    run_id = project.launch("waiting")
    pid = project.wait_for_pid()
    for _ in range(10):
        project.instance.report_engine_event(RESUME_RUN_LOG_MESSAGE, project.run(run_id))
    os.kill(pid, signal.SIGKILL)
    assert project.wait(run_id) == FAILURE
    assert steps_in_progress(project, run_id) == []
    assert "10 times it was resumed" in failures(project, run_id)["wait_for_release"]


def monitored(project) -> bool:
    """Run one check of the daemon's monitoring."""
    assert not any(execute_run_monitoring_iteration(project.context, logging.getLogger("monitoring")))
    return True


def steps_in_progress(project, run_id) -> list[str]:
    """Return the steps that have started and not ended."""
    stats = project.instance.get_run_step_stats(run_id)
    return [each.step_key for each in stats if each.status is StepEventStatus.IN_PROGRESS]
